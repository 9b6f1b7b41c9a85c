from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from secli.action.images import rescale
from secli.layers.log_radial import log_radial_filters, radial_frequencies, turned_filters
from secli.layers.scale_steerable import ScaleSteerableConv

Golden = Callable[[str], Mapping[str, np.ndarray]]
Difference = Callable[[Any, Any], float]

Settings = tuple[tuple[float, ...], int, float, float]

DTYPES = {torch.float32: 5e-5, torch.float64: 1e-12}
ORDERS = (0.5, 1.0, 2.0)
SIZES = (5, 7, 9, 11, 13)


def literal_filter(size: int, order: float, angle: float, sigma_phi: float, phase: float) -> np.ndarray:
    """S_kj one pixel at a time, the real and the imaginary part each divided by its norm."""
    radius = size // 2
    turns = 2 * math.pi * order / math.log(math.sqrt(2) * radius)
    values = np.zeros((size, size), dtype=complex)
    for row in range(size):
        for column in range(size):
            down, right = row - radius, column - radius
            r = math.sqrt(down**2 + right**2) or 1.0
            phi = math.atan2(-right, down) if (down, right) != (0, 0) else 0.0
            # two opposite directions are one: the nearest of the angles φ + mπ counts
            d = min(abs(phi - angle + m * math.pi) for m in (-2, -1, 0, 1, 2))
            if math.hypot(down, right) <= radius:
                bump = math.exp(-(d**2) / (2 * sigma_phi**2)) / r
                values[row, column] = bump * cmath.exp(1j * (turns * math.log(r) + phase))
    real, imag = (part / (np.linalg.norm(part) or 1.0) for part in (values.real, values.imag))
    return np.asarray(real + 1j * imag)


def literal(x: Tensor, layer: ScaleSteerableConv, reference: int, settings: Settings) -> Tensor:
    """max_K x ⋆ Re Σ c e^{−ik' ln s} S: one coefficient, one kernel, one size at a time."""
    orders, angles, sigma_phi, phase = settings
    largest = layer.sizes[-1]
    _, outputs, inputs, _ = layer.real.shape
    responses = []
    for size in layer.sizes:
        kernel = np.zeros((outputs, inputs, size, size))
        margin = (largest - size) // 2
        for k, order in enumerate(orders):
            turns = 2 * math.pi * order / math.log(math.sqrt(2) * (largest // 2))
            turn = cmath.exp(-1j * turns * math.log(size / reference))
            for j in range(angles):
                angle = j * math.pi / (angles - 1) if angles > 1 else 0.0
                full = literal_filter(largest, order, angle, sigma_phi, phase)
                inner = turn * full[margin : margin + size, margin : margin + size]
                for o in range(outputs):
                    for c in range(inputs):
                        coefficient = complex(layer.real[k, o, c, j].item(), layer.imag[k, o, c, j].item())
                        kernel[o, c] += (coefficient * inner).real
        whole = functional.pad(torch.from_numpy(kernel), (margin,) * 4).to(x)
        responses.append(functional.conv2d(x, whole, stride=layer.stride, padding=layer.padding))
    return torch.stack(responses, dim=2)


@given(
    size=st.sampled_from([3, 5, 7, 13]),
    orders=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.3]), min_size=1, max_size=3),
    angles=st.integers(1, 9),
    sigma_phi=st.sampled_from([math.pi / 16, 0.5, 2.0]),
    phase=st.sampled_from([-math.pi / 4, 0.0, 1.0]),
)
def test_filters_are_the_formula(
    size: int, orders: list[float], angles: int, sigma_phi: float, phase: float
) -> None:
    ours = log_radial_filters(size, orders, angles, sigma_phi, phase)
    assert ours.shape == (len(orders), angles, size, size)
    for k, order in enumerate(orders):
        for j in range(angles):
            angle = j * math.pi / (angles - 1) if angles > 1 else 0.0
            expected = literal_filter(size, order, angle, sigma_phi, phase)
            np.testing.assert_allclose(ours[k, j], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", list(DTYPES))
@given(
    plane=st.tuples(st.integers(9, 12), st.integers(9, 12)),
    sizes=st.sampled_from([(3,), (3, 5, 7), (5, 9)]),
    settings=st.sampled_from([((1.0,), 9, 0.2, -0.8), ((0.5, 2.0), 4, 0.5, 0.3)]),
    reference=st.sampled_from([3, 11]),
    stride=st.integers(1, 2),
    padding=st.sampled_from([None, 0, 1, 4]),
    relu=st.booleans(),
)
def test_scale_steerable_convolution_is_the_formula(
    dtype: torch.dtype,
    plane: tuple[int, int],
    sizes: tuple[int, ...],
    settings: Settings,
    reference: int,
    stride: int,
    padding: int | None,
    relu: bool,
) -> None:
    torch.manual_seed(0)
    build = partial(ScaleSteerableConv, 2, 2, sizes, *settings, reference, stride, padding)
    layer, axis = build(True, relu, dtype=dtype), build(False, relu, dtype=dtype)
    axis.load_state_dict(layer.state_dict())
    x = torch.randn(1, 2, *plane, dtype=dtype)
    expected = literal(x, layer, reference, settings)
    expected = expected.relu() if relu else expected
    close = partial(torch.testing.assert_close, rtol=DTYPES[dtype], atol=DTYPES[dtype])
    close(axis(x), expected)
    close(layer(x), expected.amax(2))
    with torch.no_grad():
        # a running maximum there: the same numbers to the bit
        assert torch.equal(layer(x), axis(x).amax(2))


def test_agrees_with_the_golden_vectors(golden: Golden, difference: Difference) -> None:
    z = golden("scale_steerable")
    filters = log_radial_filters(13, ORDERS, 9, float(z["sigma_phi"]), float(z["phase"]))
    assert difference(np.moveaxis(filters.real, 1, -1).copy(), z["filter_real"]) < 1e-5
    assert difference(np.moveaxis(filters.imag, 1, -1).copy(), z["filter_imag"]) < 1e-5
    assert radial_frequencies(13, ORDERS) == pytest.approx(z["effective_k"].tolist())
    weights = {"real": torch.from_numpy(z["coef_real"]), "imag": torch.from_numpy(z["coef_imag"])}
    layer = ScaleSteerableConv(2, 3, z["kernel_sizes"].tolist(), relu=True)
    layer.load_state_dict(weights)
    for i, kernel in enumerate(layer.kernels()):
        assert difference(kernel, z[f"kernel{i}"]) < 1e-5
    x = torch.from_numpy(z["x"])
    assert difference(layer(x), z["y"]) < 1e-5
    # the check can fail: another reference size turns the phases
    other = ScaleSteerableConv(2, 3, SIZES, reference_size=9, relu=True)
    other.load_state_dict(weights)
    assert difference(other(x), z["y"]) > 0.1


def test_the_published_number_of_coefficients_is_used() -> None:
    layer = ScaleSteerableConv(4, 6, SIZES)
    assert layer.real.shape == layer.imag.shape == (3, 6, 4, 9)
    assert set(layer.state_dict()) == {"real", "imag"}
    layer(torch.randn(2, 4, 16, 16)).square().sum().backward()
    for part in (layer.real, layer.imag):
        assert part.grad is not None
        assert (part.grad != 0).all()


@given(scale=st.floats(0.2, 4), ratio=st.sampled_from([2, 3]))
def test_a_turned_phase_is_a_magnified_filter(scale: float, ratio: int) -> None:
    """κ at scale p·s, read at p·x, is κ at scale s divided by p, but in the centre, where r counts as 1.

    Exactly so for the harmonics themselves; the published norms of their real and imaginary parts differ.
    """
    frequencies = radial_frequencies(19, ORDERS)
    filters = log_radial_filters(19, ORDERS)
    harmonics = filters.real + 1j * norm_ratio(filters, frequencies) * filters.imag
    small = turned_filters(harmonics, frequencies, 7, scale)
    large = turned_filters(harmonics, frequencies, 6 * ratio + 1, ratio * scale)[..., ::ratio, ::ratio]
    distance = np.hypot(*np.mgrid[-3:4, -3:4])
    # beyond its disk the grid is empty
    known = (distance > 0) & (distance * ratio <= 9)
    np.testing.assert_allclose(large[..., known] * ratio, small[..., known], atol=1e-12)


def norm_ratio(filters: np.ndarray, frequencies: tuple[float, ...]) -> np.ndarray:
    """‖Im S‖/‖Re S‖ before each was divided by its norm, read off one pixel: there Im/Re = tan(k' ln 2 + β)."""
    row, column = filters.shape[-2] // 2, filters.shape[-1] // 2 + 2
    tangent = np.tan(np.array(frequencies) * math.log(2) - math.pi / 4).reshape(-1, 1)
    ratio = tangent * filters.real[..., row, column] / filters.imag[..., row, column]
    return np.asarray(ratio)[..., None, None]


def test_the_published_norms_of_the_two_parts_differ() -> None:
    ratio = norm_ratio(log_radial_filters(13, ORDERS), radial_frequencies(13, ORDERS))[:, 4, 0, 0]
    np.testing.assert_allclose(ratio, (0.971, 1.084, 0.841), atol=1e-3)


def test_filters_are_even_and_opposite_ends_are_one_direction() -> None:
    filters = log_radial_filters(13, ORDERS)
    np.testing.assert_allclose(filters, filters[..., ::-1, ::-1], atol=1e-12)
    np.testing.assert_allclose(filters[:, 0], filters[:, -1], atol=1e-12)


def test_the_smallest_grid_knows_two_shapes_only() -> None:
    """On 3×3 all pixels in the disk have ln r = 0: a vertical line of three, and the two pixels beside it."""
    filters = log_radial_filters(3, (1.0,))
    both = np.concatenate([filters.real, filters.imag]).reshape(18, 9)
    assert np.linalg.matrix_rank(both) == 2
    cropped = log_radial_filters(7, (1.0,))[..., 2:5, 2:5]
    assert np.linalg.matrix_rank(np.concatenate([cropped.real, cropped.imag]).reshape(18, 9)) == 4


def digits(side: int, count: int) -> Tensor:
    """Handwritten digits, enlarged smoothly."""
    small = torch.from_numpy(load_digits().images[:count]).float().unsqueeze(1) / 16
    return functional.interpolate(small, size=(side, side), mode="bicubic")


class Largest(nn.Module):
    """The level of the largest kernel alone."""

    def __init__(self, layer: ScaleSteerableConv) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y[:, :, -1]


def error(layer: Callable[[Tensor], Tensor], pictures: Tensor, factor: float) -> float:
    """The mean of ‖L_sΦ(f) − Φ(L_sf)‖²/‖L_sΦ(f)‖²."""
    with torch.no_grad():
        moved, after = rescale(layer(pictures), factor), layer(rescale(pictures, factor))
    return float(((moved - after).square().sum((1, 2, 3)) / moved.square().sum((1, 2, 3))).mean())


@pytest.mark.parametrize("factor", [0.8, 0.65, 0.5, 1.25])
def test_a_rescaled_pattern_changes_less_than_behind_a_plain_convolution(factor: float) -> None:
    pictures = digits(28, 20)
    readings, plains = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        layer = ScaleSteerableConv(1, 16, SIZES)
        axis = ScaleSteerableConv(1, 16, SIZES, maximum=False)
        axis.load_state_dict(layer.state_dict())
        readings.append(error(layer, pictures, factor))
        plains.append(error(nn.Conv2d(1, 16, 7, padding=3, bias=False), pictures, factor))
        # the control: the same coefficients at their largest size alone
        assert readings[-1] < 0.92 * error(Largest(axis), pictures, factor)
        assert readings[-1] < plains[-1]
    assert np.mean(readings) < 0.85 * np.mean(plains)


def test_levels_obey_the_law_as_the_grid_is_refined() -> None:
    """Φ_K(L_sf) → s · L_s Φ_{K/s}(f): rescaled, moved by a level, and multiplied by s.

    The third size is there to keep the disk in which the filters live away from the two that are compared.
    """
    readings = []
    for side, sizes in ((28, (7, 13, 19)), (56, (13, 25, 37))):
        pictures, factor = digits(side, 6), sizes[0] / sizes[1]
        layer = ScaleSteerableConv(1, 32, sizes, maximum=False)
        with torch.no_grad():
            whole, small = rescale(layer(pictures), factor), layer(rescale(pictures, factor))
        target = factor * whole[:, :, 1]

        def off(y: Tensor, target: Tensor = target) -> float:
            return float((y - target).square().sum() / target.square().sum())

        readings.append(off(small[:, :, 0]))
        # the controls: without the factor s, without the move
        assert readings[-1] < 0.4 * off(small[:, :, 0] / factor)
        assert readings[-1] < 0.6 * off(small[:, :, 1])
    assert readings[1] < 0.5 * readings[0]


@given(inputs=st.integers(1, 40), sizes=st.sampled_from([SIZES, (3,)]), double=st.booleans())
def test_coefficients_start_uniformly(inputs: int, sizes: tuple[int, ...], double: bool) -> None:
    """In ±√(2/(9 · in · out)), whatever the sizes and the type."""
    torch.manual_seed(0)
    outputs = 3000 // inputs
    layer = ScaleSteerableConv(inputs, outputs, sizes, dtype=torch.float64 if double else torch.float32)
    bound = math.sqrt(2 / (9 * inputs * outputs))
    for part in (layer.real, layer.imag):
        assert part.abs().max().item() == pytest.approx(bound, rel=1e-3)
        assert part.abs().max().item() <= bound * (1 + 1e-6)
        assert part.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((5, 6),), r"sizes must be odd, at least 3 and increasing, not \(5, 6\)"),
        (((1, 3),), r"sizes must be odd, at least 3 and increasing, not \(1, 3\)"),
        (((7, 5),), r"sizes must be odd, at least 3 and increasing, not \(7, 5\)"),
        (((5, 5),), r"sizes must be odd, at least 3 and increasing, not \(5, 5\)"),
        (((),), r"sizes must be odd, at least 3 and increasing, not \(\)"),
        ((SIZES, ()), "give at least one order"),
        ((SIZES, ORDERS, 0), "number of angles must be at least 1, not 0"),
        ((SIZES, ORDERS, 9, 0.0), "sigma_phi must be positive, not 0"),
        ((SIZES, ORDERS, 9, 0.2, 0.0, 0), "reference size must be positive, not 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleSteerableConv(1, 1, *arguments)


def test_filters_need_a_grid() -> None:
    with pytest.raises(ValueError, match="size of log-radial filters must be odd and at least 3, not 4"):
        log_radial_filters(4)
