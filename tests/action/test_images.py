"""Laws of L_s on images: identity, composition, inverse, fixed centre, constants; and a slow literal oracle."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float64
from scipy.interpolate import make_interp_spline
from scipy.special import ive
from torch import Tensor

from secli.action.images import axis_matrix, bessel_kernel, blur_variance, rescale

FACTORS = st.floats(0.3, 2.0)
SIZES = st.integers(5, 33)


def blob(n: int, width: float = 0.06, at: tuple[float, float] = (0.03, -0.02)) -> Float64[Tensor, "1 1 n n"]:
    """A Gaussian blob of the given width (in units of the canvas' side), well inside the canvas."""
    axis = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) / n
    row, column = (axis - at[0])[:, None], (axis - at[1])[None, :]
    return torch.exp(-(row**2 + column**2) / (2 * width**2))[None, None]


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def literal_matrix(n: int, factor: float, blur: float) -> Float64[np.ndarray, "n n"]:
    """Column j is what L_s makes of the unit impulse at j: a long explicit sum, then scipy's own spline."""
    margin = 60
    grid = np.arange(-margin, n + margin)
    variance = blur_variance(factor, blur)
    columns = []
    for j in range(n):
        if variance > 0:
            blurred = np.array([ive(abs(int(i) - j), variance) for i in grid])
        else:
            blurred = (grid == j).astype(float)
        spline = make_interp_spline(grid, blurred, k=3)
        centre = (n - 1) / 2
        positions = np.array([(i - centre) / factor + centre for i in range(n)])
        inside = (positions >= grid[0]) & (positions <= grid[-1])
        columns.append(np.where(inside, spline(np.clip(positions, grid[0], grid[-1])), 0.0))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("factor", [0.31, 0.5, 0.8, 1.25, 1.9])
@pytest.mark.parametrize("n", [9, 14])
def test_operator_agrees_with_the_literal_formula(n: int, factor: float) -> None:
    centre = (n - 1) / 2
    fast = axis_matrix(n, n, 1 / factor, centre, centre, blur_variance(factor))
    assert np.abs(fast - literal_matrix(n, factor, 0.5)).max() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(height=SIZES, width=SIZES)
def test_identity_is_exact_to_the_bit(dtype: torch.dtype, height: int, width: int) -> None:
    picture = torch.rand(2, 3, height, width, dtype=dtype)
    assert torch.equal(rescale(picture, 1.0), picture)
    assert np.array_equal(axis_matrix(height, height, 1.0, 2.0, 2.0, 0.0), np.eye(height))


@pytest.mark.parametrize(("s", "t"), [(0.7, 0.8), (0.5, 0.9), (1.25, 0.6), (0.8, 1.5)])
def test_composition_holds_and_its_error_falls_at_least_as_n_to_minus_2(s: float, t: float) -> None:
    errors = {n: distance(rescale(rescale(blob(n), s), t), rescale(blob(n), s * t)) for n in (28, 56, 112)}
    assert all(error <= 0.04 * (28 / n) ** 2 for n, error in errors.items())


@pytest.mark.parametrize("s", [0.5, 0.7, 1.4])
def test_inverse_holds_and_its_error_falls_at_least_as_n_to_minus_2(s: float) -> None:
    errors = {n: distance(rescale(rescale(blob(n), s), 1 / s), blob(n)) for n in (28, 56, 112)}
    assert all(error <= 0.19 * (28 / n) ** 2 for n, error in errors.items())


def test_rounded_interpolation_would_fail_the_composition_law() -> None:
    """The control: resizing to a rounded size and padding, as is common, is far from an action."""

    def rounded(picture: Tensor, factor: float) -> Tensor:
        n = picture.shape[-1]
        m = round(n * factor)
        small = torch.nn.functional.interpolate(picture, size=(m, m), mode="bicubic")
        before = (n - m) // 2
        return torch.nn.functional.pad(small, (before, n - m - before, before, n - m - before))

    picture = blob(28)
    pairs = [(0.7, 0.8), (0.75, 0.75), (0.9, 0.6)]
    ours = max(distance(rescale(rescale(picture, s), t), rescale(picture, s * t)) for s, t in pairs)
    theirs = max(distance(rounded(rounded(picture, s), t), rounded(picture, s * t)) for s, t in pairs)
    assert theirs > 10 * ours


@given(factor=FACTORS, n=SIZES)
def test_centre_stays_fixed_on_even_and_odd_grids(factor: float, n: int) -> None:
    # a picture that is symmetric about the centre stays so
    picture = torch.rand(1, 1, n, n, dtype=torch.float64)
    picture = picture + picture.flip(-1)
    picture = picture + picture.flip(-2)
    scaled = rescale(picture, factor)
    assert torch.allclose(scaled, scaled.flip(-1), atol=1e-9)
    assert torch.allclose(scaled, scaled.flip(-2), atol=1e-9)


@given(factor=FACTORS)
def test_a_constant_stays_constant_in_the_interior(factor: float) -> None:
    n = 60
    scaled = rescale(torch.ones(1, 1, n, n, dtype=torch.float64), factor)
    reach = max(2, int(min(1.0, factor) * n / 2) - 10)
    middle = scaled[..., n // 2 - reach : n // 2 + reach, n // 2 - reach : n // 2 + reach]
    # the spline's ringing behind the canvas' edge dies out as 0.268 per cell
    assert torch.allclose(middle, torch.ones_like(middle), atol=1e-4)


@given(factor=FACTORS, height=SIZES, width=SIZES)
def test_planes_need_not_be_square(factor: float, height: int, width: int) -> None:
    picture = torch.rand(1, 1, height, width, dtype=torch.float64)
    assert torch.allclose(rescale(picture, factor).mT, rescale(picture.mT, factor), atol=1e-12)


@given(variance=st.floats(0.01, 4.0), other=st.floats(0.01, 4.0))
def test_discrete_gaussian_is_a_semigroup_of_the_stated_variance(variance: float, other: float) -> None:
    kernel = bessel_kernel(variance, 40)
    assert math.isclose(kernel.sum(), 1.0, rel_tol=1e-12)
    assert math.isclose(float((np.arange(-40, 41) ** 2) @ kernel), variance, rel_tol=1e-9)
    both = np.convolve(kernel, bessel_kernel(other, 40))
    assert np.allclose(both, bessel_kernel(variance + other, 80), atol=1e-14)


def test_float32_agrees_with_float64() -> None:
    picture = blob(28)
    assert distance(rescale(picture.float(), 0.6).double(), rescale(picture, 0.6)) < 1e-6


def test_gradients_flow_even_after_the_operator_was_first_built_in_inference_mode() -> None:
    with torch.inference_mode():
        rescale(torch.rand(1, 1, 17, 17), 0.77)
    picture = torch.rand(1, 1, 17, 17, requires_grad=True)
    (gradient,) = torch.autograd.grad(rescale(picture, 0.77).sum(), picture)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("factor", "blur", "variance"), [(0.5, 0.5, 0.75), (0.25, 1.0, 15.0), (0.8, 2.0, 2.25)]
)
def test_the_blur_has_the_variance_that_keeps_a_sampled_picture_sampled(
    factor: float, blur: float, variance: float
) -> None:
    """σ²(1/s² − 1), computed by hand."""
    assert blur_variance(factor, blur) == pytest.approx(variance)
    assert blur_variance(factor) > 0
    assert blur_variance(1 / factor, blur) == blur_variance(1.0, blur) == 0


@pytest.mark.parametrize(("factor", "period"), [(0.5, 4), (0.7, 5)])
def test_a_wave_that_shrinks_loses_what_the_blur_takes(factor: float, period: int) -> None:
    """The discrete Gaussian of variance t damps cos ωx by exp(t(cos ω − 1)); t = 0.25 (1/s² − 1)."""
    n, frequency = 81, 2 * math.pi / period
    place = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    picture = torch.cos(frequency * place)[None, None, None, :].expand(1, 1, n, n)
    row = rescale(picture, factor)[0, 0, n // 2]
    damped = math.exp(0.25 * (1 / factor**2 - 1) * (math.cos(frequency) - 1))
    assert float(row[n // 2]) == pytest.approx(damped, rel=0.02)
    assert damped < 0.9
