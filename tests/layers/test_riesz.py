from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from secli.action.images import rescale
from secli.layers.riesz import RieszConv, riesz_symbols, riesz_transforms

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12}


def literal(x: np.ndarray) -> np.ndarray:
    """The five transforms by sums over frequencies and cells, on a canvas of 2n + 1 cells."""
    height, width = x.shape
    canvas = (2 * height + 1, 2 * width + 1)
    out = np.zeros((5, height, width))
    for p in range(-height, height + 1):
        for q in range(-width, width + 1):
            u, v = p / canvas[0], q / canvas[1]
            size = math.hypot(u, v)
            if size == 0:
                continue
            first, second = -1j * u / size, -1j * v / size
            spectrum = sum(
                x[i, j] * cmath.exp(-2j * math.pi * (u * i + v * j))
                for i in range(height)
                for j in range(width)
            ) / (canvas[0] * canvas[1])
            for k, symbol in enumerate((first, second, first * first, first * second, second * second)):
                for i in range(height):
                    for j in range(width):
                        wave = cmath.exp(2j * math.pi * (u * i + v * j))
                        out[k, i, j] += (spectrum * symbol * wave).real
    return out


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("plane", [(3, 4), (4, 3), (1, 5)])
def test_transforms_are_the_formula(dtype: torch.dtype, plane: tuple[int, int]) -> None:
    x = torch.randn(plane, dtype=dtype)
    expected = torch.from_numpy(literal(x.double().numpy()))
    torch.testing.assert_close(riesz_transforms(x).double(), expected, rtol=0, atol=DTYPES[dtype])


def test_the_layer_combines_them() -> None:
    layer = RieszConv(2, 3, dtype=torch.float64)
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    weight = layer.mix.weight.reshape(3, 5, 2)
    expected = torch.einsum("okc,knchw->nohw", weight, riesz_transforms(x))
    assert layer.mix.bias is not None
    torch.testing.assert_close(layer(x), expected + layer.mix.bias.view(-1, 1, 1))


def symbols(height: int, width: int) -> Tensor:
    return riesz_symbols(height, width, torch.float64, torch.device("cpu"))


def test_first_order_is_an_all_pass() -> None:
    """|R_1|² + |R_2|² = 1 at every frequency but the mean, which is lost."""
    first, second = symbols(15, 21)[:2]
    power = first.abs().square() + second.abs().square()
    assert power[0, 0] == 0
    power[0, 0] = 1
    torch.testing.assert_close(power, torch.ones_like(power))


def test_second_order_is_the_first_order_twice() -> None:
    first, second, both, mixed, other = symbols(15, 21)
    for product, symbol in ((first * first, both), (first * second, mixed), (second * second, other)):
        torch.testing.assert_close(product, symbol)


def test_order_zero_is_minus_the_sum_of_two_of_order_two() -> None:
    x = torch.randn(8, 6, dtype=torch.float64)
    x -= x.mean()  # on the canvas of zeros the mean is lost
    _, _, both, _, other = riesz_transforms(x)
    torch.testing.assert_close(both + other, -x)


def test_symbols_are_homogeneous_of_degree_zero() -> None:
    """At twice the frequency the same: what makes a filter one of no scale."""
    some = symbols(41, 41)
    torch.testing.assert_close(some[:, 2:20:2, 2:20:2], some[:, 1:10, 1:10])
    # the control: a gradient is homogeneous of degree one
    frequencies = torch.fft.fftfreq(41)
    assert not torch.allclose(frequencies[2:20:2], frequencies[1:10])


def test_a_turned_picture_has_turned_transforms() -> None:
    """A quarter turn maps axis 2 to minus axis 1 and axis 1 to axis 2."""
    x = torch.randn(7, 7, dtype=torch.float64)
    first, second, both, mixed, other = riesz_transforms(x)
    turned = riesz_transforms(x.rot90())
    expected = torch.stack([-second, first, other, -mixed, both]).rot90(dims=(1, 2))
    torch.testing.assert_close(turned, expected)


def waves(side: int) -> Tensor:
    """Bells under a wave: smooth, in the middle, of mean zero."""
    grid = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    bell = torch.exp(-(grid.view(-1, 1) ** 2 + grid**2) / (2 * 7.0**2))
    wave = torch.cos(0.5 * grid.view(-1, 1) + 0.3 * grid)
    return (bell * (wave - (bell * wave).sum() / bell.sum()))[None, None]


@pytest.mark.parametrize("factor", [0.5, 0.7, 0.9, 1.2])
def test_transforms_commute_with_every_rescaling(factor: float) -> None:
    picture = waves(64)
    moved, after = rescale(riesz_transforms(picture), factor), riesz_transforms(rescale(picture, factor))
    for a, b in zip(moved, after, strict=True):
        assert float((a - b).norm() / a.norm()) ** 2 < 0.003
    # the control: a derivative, without its scale
    slope = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64).view(1, 1, 1, 3)
    a = rescale(functional.conv2d(picture, slope, padding=(0, 1)), factor)
    b = functional.conv2d(rescale(picture, factor), slope, padding=(0, 1))
    assert float((a - b).norm() / a.norm()) ** 2 > 0.008


def test_an_even_canvas_is_refused() -> None:
    with pytest.raises(ValueError, match="sides of the canvas must be odd, not 8×9"):
        symbols(8, 9)
