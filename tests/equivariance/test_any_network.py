"""Every option on every network: a cell of the matrix holds rows, each with a value or a stated reason."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from secli.config import MeasureSettings, TrainingSettings
from secli.datasets.pictures import Pictures
from secli.equivariance.feature_maps import feature_views
from secli.equivariance.inner_layers import KINDS
from secli.equivariance.lie import lie_derivatives
from secli.errors import InputError
from secli.external.adapt import adapt
from secli.external.field_text import parse_fields
from secli.external.hooked_model import ExternalModel
from secli.external.load import load_external
from secli.figures.heatmap import plot_heatmap
from secli.models.building import count_parameters
from secli.records.schema import DataInfo, EquivarianceRecord, ModelInfo
from secli.sweeps.measure import MeasureRequest, measure_subject
from secli.tables.curve_tables import render_curves
from secli.training.load import Subject
from tests.equivariance.any_network import EVERY, OWN, TIMM, TORCHVISION, blobs

OPTIONS = ("curves", "lie", "local", "attribute", "per", "controls", "heatmap", "features", "batch")
CPU = TrainingSettings(device="cpu", threads=1)
DATA = DataInfo(name="blobs", realisation=0, digest="", path="blobs")


def networks() -> list[Any]:
    return [pytest.param(name, marks=() if name in OWN else pytest.mark.slow) for name in EVERY]


def pictures(side: int) -> Pictures:
    return Pictures(blobs(4, side), torch.tensor([0, 1, 2, 0]), ("x", "y", "z"), DATA, True, False)


@lru_cache
def loaded(name: str) -> ExternalModel:
    if name in TIMM:
        pytest.importorskip("timm")
    entry = EVERY[name]
    if isinstance(entry.make, str):
        shape = (3, entry.side, entry.side)
        return load_external(entry.make, taps=entry.taps, fields=entry.fields, input_shape=shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = entry.make().eval()
    shape = (3, entry.side, entry.side)
    model = adapt(network, nn.Identity(), shape, entry.taps, parse_fields(entry.fields), name)
    model.description = {"target": name, "input": list(shape), "mean": [0.0] * 3, "std": [1.0] * 3}
    return model.eval()


def subject(name: str) -> Subject:
    model = loaded(name)
    # as with loaded weights: the untrained network is a control too
    options = {**model.description, "weights": model.description.get("weights") or "mine.pth"}
    info = ModelInfo(name=name, options=options, parameters=count_parameters(model))
    return Subject(model, info, 0, foreign=True)


@lru_cache
def measured(name: str) -> tuple[EquivarianceRecord, tuple[str, ...]]:
    """Everything that can be asked for, in one record, and what was remarked upon."""
    side, remarks = EVERY[name].side, list[str]()
    settings = MeasureSettings(factors=(0.7,), per=("level", "channel"), images=4)
    wanted = MeasureRequest(settings, lie=True, local=True, kinds=KINDS, controls=True)
    record = measure_subject(subject(name), pictures(side), wanted, CPU, remark=remarks.append)
    return record, tuple(remarks)


def explained(rows: Any) -> int:
    """Check that each row has a finite value or a reason; return how many have a value."""
    assert rows
    for row in rows:
        assert (row.mean is None) == bool(row.reason), row
        assert row.mean is None or math.isfinite(row.mean)
    return sum(row.mean is not None for row in rows)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", networks())
def test_rows_or_a_reason(name: str, option: str, tmp_path: Path) -> None:
    record, remarks = measured(name)
    whole = [row for row in record.rows if row.channel is None and row.level is None]
    if option == "curves":
        assert explained(whole) > 0
        assert [row.tap for row in whole] == list(loaded(name).order)
    elif option == "lie":
        assert explained(record.lie) > 0 or any(re.search("forward.mode", text) for text in remarks)
        assert [row.tap for row in record.lie] == [row.tap for row in whole]
    elif option == "local":
        (row,) = [row for row in record.local if row.kind == "stage"]
        assert "no chain of stages" in str(row.reason)
    elif option == "attribute":
        layers = [row for row in record.local if row.kind in KINDS]
        assert {row.kind for row in layers} == set(KINDS)
        assert explained(layers) > 0
    elif option == "per":
        assert explained([row for row in record.rows if row.channel is not None]) > 0
    elif option == "controls":
        found = {control.control for control in record.controls}
        found |= {kind for kind in ("untrained", "plain cnn") if any(f"'{kind}'" in text for text in remarks)}
        assert found == {"identity", "pointwise", "untrained", "plain cnn"}
        assert all(explained(control.rows) for control in record.controls)
    elif option == "heatmap":
        plot_heatmap([record], tmp_path / "map.png")
        assert (tmp_path / "map.png").stat().st_size > 0
        assert render_curves([record], "table")
    elif option == "features":
        views = feature_views(loaded(name), blobs(1, EVERY[name].side).float() / 255, 0.7, border=0.0)
        assert {view.tap for view in views.features} <= set(loaded(name).taps)
        assert views.features
    elif option == "batch":
        settings = MeasureSettings(factors=(0.7,), batch=1, images=4)
        alone = measure_subject(subject(name), pictures(EVERY[name].side), MeasureRequest(settings), CPU)
        for one, other in zip(alone.rows, whole, strict=True):
            assert one.tap == other.tap
            coarse = 0.1 if "autocast" in name else 1e-3
            assert one.mean == (None if other.mean is None else pytest.approx(other.mean, rel=coarse))


def test_the_lie_derivative_of_a_class_is_that_of_the_chain_of_its_layers() -> None:
    class Class(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.b(self.a(x))
            return y

    torch.manual_seed(0)
    network, values = Class().eval(), []
    chain = nn.Sequential(network.a, network.b).eval()
    for module, taps in ((network, ["a", "b"]), (chain, ["0", "1"])):
        model = adapt(module, nn.Identity(), (3, 20, 20), taps)
        rows = lie_derivatives(model, blobs(2, 20), MeasureSettings(images=2))
        values.append([row.mean for row in rows])
    assert values[0] == values[1]
    assert None not in values[0]


SOME = [*list(TORCHVISION)[:5], *TIMM]


@pytest.mark.slow
@pytest.mark.parametrize("black", [True, False], ids=["on black", "photographs"])
def test_eight_networks_together_read_as_each_alone(black: bool) -> None:
    """To the bit, twelve pictures each, batches chosen from measured memory: nothing of one reaches the next."""
    pytest.importorskip("timm")

    def values(names: list[str]) -> dict[str, list[tuple[str, float | None]]]:
        loaded.cache_clear()
        subjects = [subject(name) for name in names]
        found = {}
        for each in subjects:
            side = EVERY[each.info.name].side
            photographs = Pictures(blobs(12, side, 1, black), None, (), DATA, black, False)
            settings = MeasureSettings(factors=(0.8, 0.6), images=12)
            record = measure_subject(each, photographs, MeasureRequest(settings), CPU)
            found[each.info.name] = [(row.tap, row.mean) for row in record.rows]
        return found

    together = values(SOME)
    for name in SOME:
        assert values([name])[name] == together[name]
    loaded.cache_clear()


def test_a_network_that_mixes_pictures_is_refused_or_measured_picture_by_picture() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.d = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.n = nn.BatchNorm2d(4, track_running_stats=False)  # statistics of the batch, in eval mode too

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.d(self.n(self.c(x)))
            return y

    torch.manual_seed(0)
    model = adapt(Mixing().eval(), nn.Identity(), (3, 24, 24), None, name="mixer")
    assert {tap: field.reads_as() for tap, field in model.taps.items()} == dict.fromkeys(
        ("c", "d", "n"), "plane, stride 1"
    )
    info = ModelInfo(name="mixer", options={"input": [3, 24, 24]}, parameters=1)
    each, remarks = Subject(model, info, 0, foreign=True), list[str]()
    settings = MeasureSettings(factors=(0.7,), images=4)
    with pytest.raises(InputError, match=r"mixer: tap 'n' of a picture changes by .* --batch 1"):
        measure_subject(each, pictures(24), MeasureRequest(settings), CPU)
    alone = MeasureRequest(settings.model_copy(update={"batch": 1}))
    record = measure_subject(each, pictures(24), alone, CPU, remark=remarks.append)
    assert all(row.mean is not None for row in record.rows)
    assert all(row.warnings[0].code == "picture-by-picture" for row in record.rows)
    assert any("alone: measured picture by picture" in text for text in remarks)
