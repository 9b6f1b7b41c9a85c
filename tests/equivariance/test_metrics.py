"""The errors that can be measured: each against its formula, and one that is registered from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import secli
from secli.action.fields import Plane
from secli.action.images import rescale
from secli.cli.app import app
from secli.errors import UnknownNameError
from secli.metrics import METRICS, Metric, Norms
from secli.models.contract import Stage, StagedModel


def angle(norms: Norms) -> Tensor:
    """Return 1 − cos of the angle between both sides: the product of two vectors follows from three norms."""
    product = (norms.actual + norms.expected - norms.difference) / 2
    cosine: Tensor = product / (norms.actual * norms.expected).sqrt()
    return 1 - cosine


@pytest.fixture
def _registered() -> Iterator[None]:
    METRICS.register(Metric("angle", angle, "One minus cosine", "1 − cos", "$1-\\cos$", needs_actual=True))
    yield
    del METRICS._specs["angle"]


@pytest.mark.usefixtures("_registered")
def test_every_metric_against_its_formula(digits: Tensor) -> None:
    layer = nn.Conv2d(1, 3, 5, padding=2)
    images = digits[:3]

    def features(x: Tensor) -> Tensor:
        with torch.no_grad():
            response: Tensor = (layer(x) - layer(torch.zeros_like(x))).double().flatten(1)
        return response

    with torch.no_grad():
        empty = layer(torch.zeros_like(images))
        expected = rescale(layer(images) - empty, 0.5).double().flatten(1)
    actual = features(rescale(images, 0.5))
    d, e, a = ((x.square().sum(1)) for x in (actual - expected, expected, actual))
    literal = {
        "squared": d / e,
        "relative": (d / e).sqrt(),
        "absolute": d.sqrt(),
        "angle": 1 - torch.nn.functional.cosine_similarity(actual, expected, dim=1),
    }
    assert (a > 0).all()
    assert set(literal) == set(METRICS)
    for name, values in literal.items():
        frame = secli.measure(nn.Sequential(layer), images, factors=[0.5], metric=name, border=0)
        assert frame["mean"].iloc[0] == pytest.approx(values.mean().item(), rel=2e-3), name


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("format", ["table", "json"])
def test_a_new_metric_in_tables_figures_and_records(format: str, tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["make-data", "digits", "--out", str(tmp_path), "--realisations", "0"])
    assert made.exit_code == 0, made.output
    data, results, map_file = tmp_path / "digits" / "r0", tmp_path / "results", tmp_path / "map.svg"
    call = [
        "equivariance",
        "cnn",
        "--data",
        str(data),
        "--images",
        "8",
        "--factors",
        "0.5,1",
        "--metric",
        "angle",
    ]
    call += ["--format", format, "--save", str(results), "--heatmap", str(map_file), "--caption"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    if format == "json":
        assert json.loads(result.stdout)["metric"] == "angle"
    else:
        assert "One minus cosine" in result.stdout
    assert "1 − cos" in map_file.with_name(f"{map_file.name}.txt").read_text(encoding="utf-8")
    again = CliRunner().invoke(app, ["compare", str(results)])
    assert again.exit_code == 0, again.output
    assert "1 − cos" in again.stdout


@pytest.mark.usefixtures("_registered")
def test_pictures_for_which_a_metric_is_undefined_do_not_count(digits: Tensor) -> None:
    bright = nn.Threshold(0.93, 0.0)  # nothing is left of a shrunk picture: the angle is 0/0
    model = StagedModel([Stage("bright", bright, Plane())])
    options: dict[str, Any] = {"factors": [1, 0.35], "taps": ["bright"], "border": 0, "background": "none"}
    ok = secli.measure(model, digits[:8], metric="relative", **options)["n"].iloc[1]
    row = secli.measure(model, digits[:8], metric="angle", **options).iloc[1]
    assert row["n"] < ok
    assert row["n"] > 0 or "not defined" in row["reason"]


def test_an_unknown_metric_is_told_with_those_there_are(digits: Tensor) -> None:
    with pytest.raises(UnknownNameError, match="squared"):
        METRICS["sqared"]
    result = CliRunner().invoke(app, ["equivariance", "mnist_cnn", "--data", "digits", "--metric", "sqared"])
    assert result.exit_code == 2
    assert "did you mean 'squared'" in result.stderr
