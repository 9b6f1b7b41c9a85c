"""Behind every lift the ruler knows the axes and the grid; small levels and sources off the range are left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from secli.action.fields import Canvas, Field, Plane, ScaleSpace, VectorField
from secli.config import MeasureSettings
from secli.equivariance import inner_layers as leaves
from secli.equivariance.curves import measure_curves
from secli.equivariance.layer_fields import output_field, output_levels
from secli.layers import (
    ColumnConv,
    ColumnLift,
    PyramidLift,
    RotationConv,
    RotationLift,
    RotationPool,
    VectorFieldConv,
    VectorFieldLift,
)
from secli.models.building import build
from secli.models.contract import Stage, StagedModel
from secli.records.schema import CurveRow

CANVAS = Canvas(28, 28)
COLUMNS = (0.67, 1.0, 1.5)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """Eight digits, 24 pixels high, on a canvas of 28."""
    large = torch.from_numpy(np.kron(load_digits().images[:8, None] / 16, np.ones((3, 3)))).float()
    return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(large, (2, 2, 2, 2)), 5, 1, 2)


def behind(module: nn.Module, x: Tensor, before: Field) -> Field | None:
    return output_field(module, x, module(x), before, (), CANVAS)


@pytest.mark.parametrize(
    ("lift", "after", "kind"),
    [
        (ColumnLift(1, 2, 7, COLUMNS), ColumnConv(2, 2, 7, COLUMNS), ScaleSpace(COLUMNS)),
        (
            VectorFieldLift(1, 2, 7),
            VectorFieldConv(2, 3, 7),
            VectorField(1 / 1.26, 2 * math.pi / 21, (-4, 3)),
        ),
        (RotationLift(1, 2, 5, 4, padding=2), RotationConv(2, 3, 5, 4, padding=2), Plane()),
    ],
)
def test_axes_behind_a_lift_and_the_convolution_after_it(
    lift: nn.Module, after: nn.Module, kind: Field
) -> None:
    """No tap has to say them: the lift does, on the grid before it."""
    x = torch.rand(1, 1, 14, 14)
    first = behind(lift, x, Plane(stride=2.0, origin=0.5))
    assert type(first) is type(kind)
    assert (getattr(first, "stride", None), getattr(first, "origin", None)) == ((2.0, 2.0), (0.5, 0.5))
    for name in ("scales", "base", "angle_step", "levels"):
        assert getattr(first, name, None) == pytest.approx(getattr(kind, name, None))
    assert first is not None
    assert behind(after, lift(x), first) == first


def test_a_maximum_over_rotations_is_a_plane() -> None:
    x = torch.rand(1, 2, 4, 14, 14)
    assert isinstance(behind(RotationPool(), x, Plane(2.0)), Plane)


def test_levels_behind_a_pyramid_lift_lie_symmetrically_at_exact_steps() -> None:
    """28/1.5² = 12.4 cells become 13: they are 2.25 pixels apart, not 28/13."""
    lift, x = PyramidLift(1.5, 3), torch.rand(1, 1, 28, 28)
    outputs = lift(x)
    planes = output_levels(lift, x, outputs, Plane(), CANVAS)
    assert [plane.stride for plane in planes] == [(1.0, 1.0), (1.5, 1.5), (2.25, 2.25)]
    for plane, level in zip(planes, outputs, strict=True):
        assert isinstance(plane.origin, tuple)
        centre = plane.origin[0] + 1.5 ** planes.index(plane) * (level.shape[-1] - 1) / 2
        assert centre == pytest.approx(13.5)
    spanning = output_levels(nn.Identity(), None, outputs, None, CANVAS)
    assert [plane.stride for plane in spanning] == [(28 / y.shape[-1],) * 2 for y in outputs]


def test_the_layers_of_a_pyramid_network_are_still_found(digits: Tensor) -> None:
    model = build("dss_v2").eval()
    with torch.no_grad():
        sites = leaves.Probe(model, leaves.layers_of(model, ("conv", "norm")), CANVAS).run(digits[:1] * 0)
    assert sites


def test_all_levels_of_a_pyramid_but_the_small_ones_are_compared(digits: Tensor) -> None:
    """At block1 levels have 14, 10, 8 and 6 cells: at s = 0.5 the last two hold fewer than five of the picture."""
    taken = {}
    for smallest in (4.0, 4.5, 8.0):
        settings = MeasureSettings(
            factors=(0.5,), taps=("block1",), smallest_plane=smallest, per=("level",), border=0
        )
        rows = measure_curves(build("dss_v2").eval(), digits, settings).rows
        taken[smallest] = {row.level: row for row in rows}
    sizes = [level.shape[-1] for level in build("dss_v2").eval().features(digits[:1])["block1"]]
    assert [n * 0.5 >= 4 for n in sizes[:2]] == [True, True]
    for smallest, found in taken.items():
        whole = found[None]
        if smallest == 8.0:
            assert whole.mean is None
            assert "fewer than 8" in str(whole.reason)
            continue
        assert whole.mean is not None
        for level, n in enumerate(sizes):
            if n * 0.5 < smallest:
                assert found[level].mean is None
                assert f"fewer than {smallest:g} cells" in str(found[level].reason)
    few, many = taken[4.5][None], taken[4.0][None]
    assert few.levels_used is not None
    assert many.levels_used is not None
    assert few.levels_used <= many.levels_used


def lifted(images: Tensor, seed: int, factor: float, field: VectorField) -> CurveRow:
    torch.manual_seed(seed)
    lift = VectorFieldLift(1, 16, 7)
    model = StagedModel([Stage("lift", lift, field)]).eval()
    return measure_curves(model, images, MeasureSettings(factors=(factor,), border=0)).rows[0]


class OneSided(VectorField):
    """The broken control: only L_sΦ(f)'s own angles are looked at."""

    def compared(self, acted, raw, answer, factor, canvas):  # type: ignore[no-untyped-def]
        return super().compared(acted, raw, None, factor, canvas)


@pytest.mark.parametrize("factor", [1.26**-1, 1.26**-2])
def test_vectors_without_a_source_would_be_counted_as_errors(digits: Tensor, factor: float) -> None:
    law = (1 / 1.26, 2 * math.pi / 21, (-4, 3))
    for seed in (0, 1):
        both, one = (lifted(digits, seed, factor, kind(*law)) for kind in (VectorField, OneSided))
        assert both.mean is not None
        assert one.mean is not None
        assert both.compared is not None
        assert one.compared is not None
        assert both.mean < 0.8 * one.mean
        assert 0.1 < both.compared < one.compared < 1
    whole = lifted(digits, 0, 1.0, VectorField(*law))
    assert (whole.mean, whole.compared) == (0.0, 1.0)
