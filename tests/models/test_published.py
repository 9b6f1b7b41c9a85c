"""Whole networks beside the published code: their logits on the same weights and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secli.catalogue import MODELS
from secli.layers.ses import SteerableFilters
from secli.models.building import build

GOLDEN = Path(__file__).parent.parent / "golden" / "wide_resnets.npz"
NETWORKS = ("wrn_16_8_ses_a", "wrn_16_8_ses_b", "wrn_16_8_disco")


@cache
def golden() -> Mapping[str, Tensor]:
    with np.load(GOLDEN) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def formula(i: int, shape: torch.Size) -> Tensor:
    """F(i, shape): numbers in [−1, 1) that anybody can make again, by a hash of 32 bits.

    h = (2654435761 t + 97531 (i + 1)) mod 2³², h = ((h xor (h >> 15)) · 2246822519) mod 2³², h = h xor (h >> 13),
    F = h/2³¹ − 1.
    """
    wrap = 2**32
    h = (2654435761 * np.arange(shape.numel(), dtype=np.int64) + 97531 * (i + 1)) % wrap
    h = (((h ^ (h >> 15)).astype(np.uint64) * np.uint64(2246822519)) % np.uint64(wrap)).astype(np.int64)
    h ^= h >> 13
    return torch.from_numpy((h / 2**31 - 1).astype(np.float32).reshape(shape))


def fill(model: nn.Module) -> None:
    """Give every parameter and every running statistic its value by formula (tests/golden/README.md)."""
    with torch.no_grad():
        for i, (name, parameter) in enumerate(model.named_parameters()):
            drawn = formula(i, parameter.shape)
            if parameter.ndim == 1:
                parameter.copy_(1 + 0.3 * drawn if name.endswith("weight") else 0.2 * drawn)
            else:
                parameter.copy_(drawn * 2.4 / math.sqrt(parameter[0].numel()))
        statistics = [each for each in model.named_buffers() if "running_" in each[0]]
        for j, (name, buffer) in enumerate(statistics):
            drawn = formula(500 + j, buffer.shape)
            buffer.copy_(0.1 * drawn if name.endswith("mean") else 1 + 0.3 * drawn)


def of_published_weights(name: str) -> nn.Module:
    """A network with the golden weights; DISCO's with the golden basis in the place of a fitted one."""
    model = build(name, {"image_size": 24}).eval()
    fill(model)
    if name == "wrn_16_8_disco":
        for module in model.modules():
            if isinstance(module, SteerableFilters):
                module.set_basis(golden()["disco_basis"])
    return model


def difference(ours: Tensor, theirs: Tensor) -> float:
    """‖ours − theirs‖/‖theirs‖."""
    return float((ours - theirs).norm() / theirs.norm())


def test_the_golden_file_holds_the_networks_of_this_test() -> None:
    assert set(golden()) == {*NETWORKS, "images", "disco_basis"}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_the_published_code(name: str) -> None:
    model = of_published_weights(name)
    with torch.no_grad():
        logits = model(golden()["images"])
    assert difference(logits, golden()[name]) < 1e-5


def test_disco_is_trained_on_photographs_as_its_authors_did() -> None:
    disco, others = MODELS["wrn_16_8_disco"].training, MODELS["wrn_16_8_ses_b"].training
    assert {key: value for key, value in disco.items() if others[key] != value} == {
        "batch": 64,
        "lr": 0.05,
        "weight_decay": 1e-3,
    }
