"""Stages and layers of a foreign network that are run alone: they find the modules beside their own file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from secli.config import MeasureSettings
from secli.equivariance.attribution import local_errors
from secli.equivariance.controls import untrained
from secli.equivariance.forward_mode import tangent_faults
from secli.external.load import load_external

LATE = """
from torch import nn
from secli.action.fields import Plane

class Late(nn.Conv2d):
    def reset_parameters(self):
        from beside import drawn
        drawn(self)

    def forward(self, x):
        from beside import scaled
        return scaled(super().forward(x))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Late(1, 4, 3, padding=1), Late(4, 4, 3, padding=1)

    @property
    def taps(self):
        return {"first": Plane(), "second": Plane()}

    @property
    def stages(self):
        return [("first", self.first), ("second", self.second)]

    def features(self, x):
        first = self.first(x)
        second = self.second(first)
        return {"first": first, "second": second, "logits": second.mean((2, 3))}

    def forward(self, x):
        return self.features(x)["logits"]
"""
BESIDE = """
from torch import nn

def drawn(layer):
    nn.init.normal_(layer.weight)
    nn.init.zeros_(layer.bias)

def scaled(x):
    return 2 * x
"""


@pytest.fixture
def model(tmp_path: Path) -> Any:
    (tmp_path / "net.py").write_text(LATE)
    (tmp_path / "beside.py").write_text(BESIDE)
    return load_external(f"{tmp_path}/net.py:Net", taps=None, input_shape=(1, 16, 16))


def test_a_stage_alone(model: Any) -> None:
    rows = local_errors(model, torch.rand(2, 1, 16, 16), MeasureSettings(factors=(0.5,), border=0))
    assert [row.part for row in rows if row.kind == "stage"] == ["first", "second"]
    assert "beside" not in sys.modules


def test_a_layer_alone(model: Any) -> None:
    settings = MeasureSettings(factors=(0.5,), border=0)
    rows = local_errors(model, torch.rand(2, 1, 16, 16), settings, kinds=["conv"])
    assert sum(row.kind == "conv" and row.mean is not None for row in rows) == 2


def test_fresh_weights(model: Any) -> None:
    fresh: Any = untrained(model, "net.py:Net", {}, 3)
    assert not torch.equal(fresh.network.first.weight, model.network.first.weight)
    again: Any = untrained(model, "net.py:Net", {}, 3)
    assert torch.equal(fresh.network.first.weight, again.network.first.weight)


def test_tangents(model: Any) -> None:
    assert tangent_faults(model, torch.rand(1, 1, 16, 16)) == {}
