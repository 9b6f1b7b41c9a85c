from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ive
from torch import Tensor

from secli.action.fields import Canvas, ScaleSpace
from secli.action.images import rescale
from secli.layers.gaussian import discrete_gaussian
from secli.layers.gaussian_derivative import JET, GaussianDerivativeConv, derivative_kernels

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12}
SCALES = (0.7, 1.0, 1.7)


def smoothed(x: np.ndarray, sigma: float) -> np.ndarray:
    """The discrete Gaussian of a plane with two more cells around it, one tap at a time."""
    radius = 4 * math.ceil(sigma)
    taps = [float(ive(abs(i), sigma**2)) for i in range(-radius, radius + 1)]
    total = sum(taps)
    height, width = x.shape
    rows = np.zeros((height + 4, width))
    for i in range(-2, height + 2):
        for n in range(-radius, radius + 1):
            if 0 <= i - n < height:
                rows[i + 2] += taps[n + radius] / total * x[i - n]
    whole = np.zeros((height + 4, width + 4))
    for j in range(-2, width + 2):
        for n in range(-radius, radius + 1):
            if 0 <= j - n < width:
                whole[:, j + 2] += taps[n + radius] / total * rows[:, j - n]
    return whole


def literal_jet(x: np.ndarray, sigma: float) -> list[np.ndarray]:
    """L, L_η, L_ξ, L_ηη, L_ξη, L_ξξ by central differences of the smoothed plane; ξ along rows' index."""
    whole = smoothed(x, sigma)
    here = whole[2:-2, 2:-2]
    up, down, left, right = whole[1:-3, 2:-2], whole[3:-1, 2:-2], whole[2:-2, 1:-3], whole[2:-2, 3:-1]
    corners = whole[3:-1, 3:-1] - whole[3:-1, 1:-3] - whole[1:-3, 3:-1] + whole[1:-3, 1:-3]
    return [
        here,
        sigma * (right - left) / 2,
        sigma * (down - up) / 2,
        sigma**2 * (right - 2 * here + left),
        sigma**2 * corners / 4,
        sigma**2 * (down - 2 * here + up),
    ]


@pytest.mark.parametrize("dtype", list(DTYPES))
@given(
    plane=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    lifts=st.booleans(),
    residual=st.booleans(),
    bias=st.booleans(),
)
def test_the_layer_is_the_formula(
    dtype: torch.dtype, plane: tuple[int, int], lifts: bool, residual: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = GaussianDerivativeConv(2, 3, SCALES, residual, bias, dtype=dtype)
    x = torch.randn(1, 2, *plane, dtype=dtype) if lifts else torch.randn(1, 2, 3, *plane, dtype=dtype)
    y = layer(x)
    weight = layer.mix.weight.detach().double().reshape(3, 6, 2)
    for k, sigma in enumerate(SCALES):
        level = (x if lifts else x[:, :, k]).double().numpy()[0]
        jets = [literal_jet(channel, sigma) for channel in level]
        for o in range(3):
            expected = np.zeros(plane)
            for c in range(2):
                for d in range(6):
                    expected += float(weight[o, d, c]) * jets[c][d]
            if layer.mix.bias is not None:
                expected += float(layer.mix.bias[o].detach())
            if residual and not lifts and o < 2:
                expected += level[o]
            np.testing.assert_allclose(
                y[0, o, k].detach().double().numpy(), expected, rtol=0, atol=10 * DTYPES[dtype]
            )


@given(sigma=st.floats(0.4, 3.0))
def test_derivatives_of_a_quadratic_are_exact(sigma: float) -> None:
    """Of c₀ + c₁x + c₂x²: L_ξ = σ(c₁ + 2c₂x) and L_ξξ = 2σ²c₂, wherever the filter meets no edge."""
    kernels = derivative_kernels(sigma)
    n = np.arange(kernels.shape[1]) - kernels.shape[1] // 2
    assert kernels.sum(1) == pytest.approx([1, 0, 0], abs=1e-12)
    assert (kernels[1] * -n).sum() == pytest.approx(sigma, rel=1e-9)
    assert (kernels[1] * n**2).sum() == pytest.approx(0, abs=1e-9)
    assert (kernels[2] * n**2).sum() == pytest.approx(2 * sigma**2, rel=1e-9)


def test_a_coarser_scale_is_a_finer_one_smoothed() -> None:
    """σ^{−a} of order a at σ₂ is that at σ₁ under T(·, σ₂² − σ₁²): the semigroup, on the grid."""
    fine, coarse, between = derivative_kernels(1.0), derivative_kernels(2.0), discrete_gaussian(3.0)
    for order in range(3):
        smoothed_ = np.convolve(fine[order], between)
        margin = (len(smoothed_) - coarse.shape[1]) // 2
        expected = np.pad(coarse[order] / 2.0**order, margin)
        assert np.abs(smoothed_ - expected).max() < 2e-3 * np.abs(expected).max()


def blobs(side: int) -> Tensor:
    grid = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    first, second = (
        amount * torch.exp(-((grid - y).view(-1, 1) ** 2 + (grid - x) ** 2) / (2 * width**2))
        for amount, y, x, width in ((1.0, 3.0, -4.0, 3.0), (-0.7, -5.0, 2.0, 2.5))
    )
    return (first + second)[None, None]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_shrunk_picture_moves_down_the_levels_for_every_derivative(steps: int) -> None:
    torch.manual_seed(0)
    scales = tuple(1.2 * 2 ** (k / 2) for k in range(4))
    layer = GaussianDerivativeConv(1, len(JET), scales, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.mix.weight.copy_(torch.eye(len(JET)).view(len(JET), len(JET), 1, 1))
    picture, factor = blobs(48), 2 ** (-steps / 2)
    with torch.no_grad():
        actual = layer(rescale(picture, factor))
        acted = ScaleSpace(scales).act(layer(picture), factor, Canvas(48, 48))
    assert acted.levels_used == 4 - steps
    expected = acted.features[0]
    known = slice(0, 4 - steps)
    for d, orders in enumerate(JET):

        def off(amount: float, d: int = d) -> float:
            return float((actual[:, d, known] * amount - expected[:, d, known]).norm()) / float(
                expected[:, d, known].norm()
            )

        assert off(1.0) ** 2 < 0.01, orders
        # the control: a derivative that is not normalised by its scale
        if sum(orders):
            assert off(factor ** -sum(orders)) ** 2 > 0.1, orders


@pytest.mark.parametrize("scales", [(), (0.0, 1.0), (2.0, 1.0), (1.0, 1.0)])
def test_bad_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scales must be positive and increasing"):
        GaussianDerivativeConv(1, 1, scales)


def test_other_levels_and_narrow_residuals_are_refused() -> None:
    with pytest.raises(ValueError, match="the layer has 3 scales, its input 2 levels"):
        GaussianDerivativeConv(1, 1, SCALES)(torch.rand(1, 1, 2, 8, 8))
    with pytest.raises(ValueError, match="fewer outputs than inputs, 2 of 3"):
        GaussianDerivativeConv(3, 2, SCALES, residual=True)
