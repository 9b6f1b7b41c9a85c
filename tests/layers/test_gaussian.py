from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from secli.layers.gaussian import ScaleSpaceLift, discrete_gaussian, lift_variances

Golden = Callable[[str], Mapping[str, np.ndarray]]
Difference = Callable[[Any, Any], float]


def literal_kernel(t: float) -> list[float]:
    """e^{−t} I_n(t) by the Bessel function's own integral, (1/π) ∫ e^{t cos θ} cos nθ dθ over [0, π]."""
    radius, steps = 4 * math.ceil(math.sqrt(t)), 4000
    angles = (np.arange(steps) + 0.5) * math.pi / steps
    values = [
        float(np.mean(np.exp(t * (np.cos(angles) - 1)) * np.cos(n * angles)))
        for n in range(-radius, radius + 1)
    ]
    return [value / sum(values) for value in values]


def literal_lift(x: Tensor, base: float, z: float, levels: int) -> Tensor:
    """Each level by explicit sums over the shifted picture, zeros outside."""
    height, width = x.shape[-2:]
    stack = []
    for k in range(levels):
        kernel = [1.0] if k == 0 else literal_kernel(z**2 * (base ** (2 * k) - 1))
        reach = len(kernel) // 2
        padded = torch.nn.functional.pad(x, (reach, reach, reach, reach))
        level = torch.zeros_like(x)
        for i, down in enumerate(kernel):
            for j, right in enumerate(kernel):
                level += down * right * padded[..., i : i + height, j : j + width]
        stack.append(level)
    return torch.stack(stack, dim=2)


@pytest.mark.parametrize("t", [0.1875, 0.9375, 3.9375, 20.0])
def test_the_discrete_gaussian_is_bessels(t: float) -> None:
    np.testing.assert_allclose(discrete_gaussian(t), literal_kernel(t), rtol=1e-6, atol=1e-12)


@given(t=st.floats(0, 30))
def test_the_discrete_gaussian_has_its_moments(t: float) -> None:
    kernel = discrete_gaussian(t)
    n = np.arange(len(kernel)) - len(kernel) // 2
    assert np.isclose(kernel.sum(), 1)
    assert np.isclose((kernel * n).sum(), 0)
    assert np.isclose((kernel * n**2).sum(), t, rtol=0.02)
    assert (kernel >= 0).all()


@given(t=st.floats(0.5, 9), u=st.floats(0.5, 9))
def test_the_discrete_gaussian_is_a_semigroup(t: float, u: float) -> None:
    twice = np.convolve(discrete_gaussian(t), discrete_gaussian(u))
    once = discrete_gaussian(t + u)
    margin = (len(twice) - len(once)) // 2
    once = np.pad(once, margin) if margin >= 0 else once[-margin:margin]
    assert np.abs(twice - once).max() < 1e-3 * once.max()


def test_a_sampled_gaussian_is_no_semigroup() -> None:
    """The control of the test above: at small variances the sampled Gaussian breaks the law."""

    def sampled(t: float) -> np.ndarray:
        kernel = np.exp(-(np.arange(-20, 21) ** 2) / (2 * t))
        return np.asarray(kernel / kernel.sum())

    twice, once = np.convolve(sampled(0.1), sampled(0.1))[20:-20], sampled(0.2)
    assert np.abs(twice - once).max() > 0.05 * once.max()


@pytest.mark.parametrize("key", ["lift_a", "lift_b"])
def test_the_lift_agrees_with_the_golden_vectors(golden: Golden, difference: Difference, key: str) -> None:
    z = golden("dss")
    base, zero, levels = float(z[f"{key}_base"]), float(z[f"{key}_zero_scale"]), int(z[f"{key}_num_scales"])
    np.testing.assert_allclose(lift_variances(base, zero, levels)[1:], z[f"{key}_t"])
    lift = ScaleSpaceLift(base, zero, levels)
    for k in range(1, levels):
        assert difference(lift.get_buffer(f"kernel{k}"), z[f"{key}_kernel{k}"]) < 1e-5
    x = torch.from_numpy(z[f"{key}_x"])
    assert difference(lift(x), z[f"{key}_y"]) < 1e-5
    # the check can fail: another blur is another lift
    assert difference(ScaleSpaceLift(base, 2 * zero, levels)(x), z[f"{key}_y"]) > 0.01


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    base=st.floats(1.2, 2.5),
    z=st.floats(0.2, 1),
    levels=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_lift_is_the_formula(
    shape: tuple[int, ...], base: float, z: float, levels: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype)
    lift = ScaleSpaceLift(base, z, levels, dtype=dtype)
    tolerance = 2e-5 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(lift(x), literal_lift(x, base, z, levels), rtol=tolerance, atol=tolerance)


def test_a_constant_stays_constant_in_the_interior() -> None:
    lift = ScaleSpaceLift(2.0, 0.25, 4)
    y = lift(torch.full((1, 1, 40, 40), 0.7))
    torch.testing.assert_close(y[..., 8:-8, 8:-8], torch.full((1, 1, 4, 24, 24), 0.7))
    assert (y[:, :, 1:, 0, 0] < 0.7).all()


def test_level_zero_is_the_image() -> None:
    x = torch.rand(2, 3, 9, 9)
    assert torch.equal(ScaleSpaceLift(2.0, 0.5, 3)(x)[:, :, 0], x)


def test_nothing_is_learned_or_kept() -> None:
    lift = ScaleSpaceLift(2.0, 0.5, 3)
    assert not list(lift.parameters())
    assert not lift.state_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 0.5, 2), "base must be greater than 1"),
        ((2.0, 0.0, 2), "blur z must be greater than 0"),
        ((2.0, 0.5, 0), "at least one level"),
        ((math.nan, 0.5, 2), "base must be greater than 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[float, float, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleSpaceLift(*arguments)


@pytest.mark.parametrize("variance", [-1.0, math.nan, math.inf])
def test_bad_variances_are_refused(variance: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        discrete_gaussian(variance)
