from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from secli.action.fields import Canvas, Pyramid
from secli.action.images import Axis, resample, rescale
from secli.layers.spline_pyramid import SplinePyramidLift

DTYPES = {torch.float32: 2e-6, torch.float64: 1e-12}


def smooth(side: int) -> Tensor:
    """Two smooth blobs off the centre, black around them."""
    grid = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    blobs = [
        amount * torch.exp(-((grid - y).view(-1, 1) ** 2 + (grid - x) ** 2) / (2 * width**2))
        for amount, y, x, width in ((1.0, 2.0, -3.0, 2.0), (-0.7, -4.0, 1.5, 1.4))
    ]
    return (blobs[0] + blobs[1])[None, None]


@pytest.mark.parametrize("dtype", list(DTYPES))
@given(
    plane=st.tuples(st.integers(5, 17), st.integers(5, 17)),
    base=st.sampled_from([2**0.25, math.sqrt(2), 1.7, 2.0]),
    lowest=st.integers(-2, 0),
    multiple=st.sampled_from([1, 2, 8]),
)
def test_levels_are_read_as_the_scale_action_reads(
    dtype: torch.dtype, plane: tuple[int, int], base: float, lowest: int, multiple: int
) -> None:
    """The oracle solves for the spline's coefficients; the lift has them in closed form."""
    x = torch.randn(1, 2, *plane, dtype=dtype, generator=torch.Generator().manual_seed(0))
    levels = SplinePyramidLift(base, 3, lowest, multiple)(x)
    for k, level in enumerate(levels):
        variance = 0.25 * (base ** (2 * k) - 1)
        axes = [
            Axis(n, m, base ** (lowest + k), (n - 1) / 2, (m - 1) / 2, variance)
            for n, m in zip(plane, level.shape[2:], strict=True)
        ]
        # the discrete Gaussian of the action has longer tails than the lift's eight deviations
        expected = resample(x.double(), *axes)
        assert float((level - expected).norm() / expected.norm()) < 1e-3
        if variance == 0:
            torch.testing.assert_close(level.double(), expected, rtol=0, atol=DTYPES[dtype] * 10)
        assert all(m % multiple == 0 for m in level.shape[2:])
        assert all(
            -1e-6 <= m - n / base ** (lowest + k) < multiple + 1e-6
            for n, m in zip(plane, level.shape[2:], strict=True)
        )


def test_the_level_of_the_picture_is_the_picture() -> None:
    x = torch.rand(1, 1, 12, 9, dtype=torch.float64)
    torch.testing.assert_close(SplinePyramidLift(2.0, 1)(x)[0], x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_shrunk_picture_moves_down_the_levels(steps: int) -> None:
    lift, picture = SplinePyramidLift(math.sqrt(2), 4, -1, 2), smooth(32)
    factor = 2 ** (-steps / 2)
    field = Pyramid(lift.factors, base_blur=0.5)
    actual = lift(rescale(picture, factor))

    def off(field: Pyramid) -> float:
        acted = field.act(lift(picture), factor, Canvas(32, 32))
        assert acted.levels_used == 4 - steps
        assert acted.on_lattice
        known = list(zip(acted.features, actual, strict=True))[: 4 - steps]
        return max(float((a - b).norm() / b.norm()) ** 2 for a, b in known)

    assert off(field) < 1.5e-3
    # the controls: as if the lift added no blur, and one level off
    assert off(Pyramid(lift.factors)) > 4 * off(field)


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_between_levels_the_blur_of_the_lift_stays_as_many_cells(factor: float) -> None:
    lift, picture = SplinePyramidLift(math.sqrt(2), 4, -1, 2), smooth(32)
    acted = Pyramid(lift.factors, base_blur=0.5).act(lift(picture), factor, Canvas(32, 32))
    assert not acted.on_lattice
    actual = lift(rescale(picture, factor))
    off = [float((a - b).norm() / b.norm()) ** 2 for a, b in zip(acted.features, actual, strict=True)]
    assert max(off[:3]) < 6e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": 1.0, "levels": 2}, "base must be greater than 1, not 1"),
        ({"base": 2.0, "levels": 0}, "levels and multiple must be at least 1, not 0 and 1"),
        ({"base": 2.0, "levels": 2, "multiple": 0}, "levels and multiple must be at least 1, not 2 and 0"),
        ({"base": 2.0, "levels": 2, "lowest": 1}, "the lowest level must be at most 0, not 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplinePyramidLift(**arguments)
