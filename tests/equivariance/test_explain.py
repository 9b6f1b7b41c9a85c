"""Where the error comes from: margins, factors on the lattice, enlarged pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Invariant, Plane
from secli.config import MeasureSettings
from secli.equivariance.curves import Curves, measure_curves
from secli.equivariance.explain import EXPLAINED, explain, twice_as_large
from secli.errors import InputError
from secli.models.contract import Stage, StagedModel
from secli.records.schema import ExplainRow
from tests.equivariance.test_photographs import Differences


def blobs(count: int = 3, side: int = 28, at: float = 0.0) -> Tensor:
    """Return Gaussian blobs of some widths, ``at`` pixels off the centre, on black."""
    x = torch.arange(side) - (side - 1) / 2 - at
    widths = torch.linspace(2.0, 3.0, count)[:, None]
    line = torch.exp(-((x[None] / widths) ** 2) / 2)
    return (line[:, :, None] * line[:, None, :])[:, None]


def shift_net() -> StagedModel:
    """Return a network that moves its features by eight pixels, off a small canvas, and classifies one size."""
    conv = nn.Conv2d(1, 1, 17, padding=8, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[..., 0, 0] = 1
        conv.weight[..., 16, 16] = 1
    return StagedModel(
        [
            Stage("moved", conv, Plane()),
            Stage("flat", nn.Flatten(), Invariant()),
            Stage("logits", nn.Linear(28 * 28, 2), Invariant()),
        ]
    ).eval()


def at(rows: list[ExplainRow], tap: str, factor: float) -> ExplainRow:
    return next(row for row in rows if row.tap == tap and row.factor == factor)


def means(curves: Curves, tap: str) -> dict[float, float | None]:
    return {row.factor: row.mean for row in curves.rows if row.tap == tap}


def test_what_leaves_the_canvas_is_what_a_margin_saves() -> None:
    rows = explain(shift_net(), blobs(), MeasureSettings(factors=(1, 0.7)), on_black=True)
    moved = at(rows, "moved", 0.7)
    assert moved.error is not None
    assert moved.with_margin is not None
    plain = measure_curves(shift_net(), blobs(), MeasureSettings(factors=(0.7,)), on_black=True)
    assert moved.error == means(plain, "moved")[0.7]
    padded = nn.functional.pad(blobs(), [10] * 4)
    wide = StagedModel([Stage("moved", shift_net().get_submodule("moved"), Plane())]).eval()
    apart = means(measure_curves(wide, padded, MeasureSettings(factors=(0.7,)), on_black=True), "moved")[0.7]
    assert moved.with_margin == pytest.approx(apart, rel=1e-3)
    assert moved.canvas == moved.error - moved.with_margin
    logits = at(rows, "logits", 0.7)
    assert (logits.with_margin, logits.enlarged, logits.canvas, logits.grid) == (None, None, None, None)
    assert logits.reason is not None
    assert logits.reason.code == "no-margin"


def test_on_the_lattice_nothing_lies_between_levels_and_off_it_both_sides_are_read() -> None:
    off = 0.5**0.25
    rows = explain(
        Differences(), blobs(), MeasureSettings(factors=(0.5**0.5, off), taps=("dog",)), on_black=True
    )
    on = at(rows, "dog", 0.5**0.5)
    assert (on.lattice_factors, on.on_lattice, on.levels) == (None, None, None)
    between = at(rows, "dog", off)
    assert between.lattice_factors == pytest.approx((0.5**0.5, 1.0))
    assert on.with_margin is not None
    assert between.on_lattice == pytest.approx(on.with_margin / 2)  # half way to 1, where Δ is 0
    assert between.with_margin is not None
    assert between.levels == pytest.approx(between.with_margin - on.with_margin / 2)
    assert between.levels is not None
    assert between.levels > 10 * on.with_margin


def test_a_grid_twice_as_fine_costs_less() -> None:
    class Rectified(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.relu(images - 0.5)

    model = StagedModel(
        [Stage("kinks", Rectified(), Plane()), Stage("logits", nn.Flatten(), Invariant())]
    ).eval()
    rows = explain(model, blobs(), MeasureSettings(factors=(0.5,), taps=("kinks",)), on_black=True)
    (row,) = rows
    assert row.grid is not None
    assert row.error is not None
    assert 0.5 * row.error < row.grid < row.error


def test_enlarged_pictures_are_l_2_of_them() -> None:
    x = blobs(1, 29)
    large = twice_as_large(x)
    assert large.shape[-1] == 57
    assert (large[..., ::2, ::2] - x).abs().max() < 1e-6
    assert twice_as_large((x * 255).byte()).max() < 1.1


def test_photographs_are_refused_and_few_pictures_are_read() -> None:
    with pytest.raises(InputError, match="explain: an empty margin goes around pictures on black alone"):
        explain(shift_net(), torch.rand(2, 1, 28, 28), MeasureSettings())
    with pytest.raises(InputError, match="margin: empty pixels go around pictures on black alone"):
        measure_curves(shift_net(), torch.rand(2, 1, 28, 28), MeasureSettings(margin=4))
    rows = explain(
        shift_net(), blobs(EXPLAINED + 5, 28), MeasureSettings(factors=(0.7,), taps=("moved",)), on_black=True
    )
    assert rows[0].n == EXPLAINED


def test_a_margin_is_brought_up_to_whole_cells_and_told() -> None:
    strided = StagedModel(
        [
            Stage("far", nn.Conv2d(1, 2, 8, stride=4, padding=2), Plane(4.0, 1.5)),
            Stage("flat", nn.Flatten(), Invariant()),
            Stage("logits", nn.Linear(98, 2), Invariant()),
        ]
    ).eval()
    curves = measure_curves(strided, blobs(), MeasureSettings(factors=(0.8,), margin=5), on_black=True)
    assert curves.surroundings is not None
    assert (curves.surroundings.kind, curves.surroundings.enlarged) == ("margin", (8,))
    assert curves.surroundings.taps == ("far",)
    none = measure_curves(strided, blobs(), MeasureSettings(factors=(0.8,), margin=0), on_black=True)
    assert none.surroundings is None
