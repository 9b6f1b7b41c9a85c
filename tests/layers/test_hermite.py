from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secli.layers.hermite import Basis, basis_a, basis_b, support

Golden = Callable[[str], Mapping[str, np.ndarray]]
Difference = Callable[[Any, Any], float]


def he(order: int, x: float) -> float:
    """The probabilists' Hermite polynomial by its recurrence."""
    below, here = 0.0, 1.0
    for n in range(order):
        below, here = here, x * here - n * below
    return here


def psi(n: int, m: int, sigma: float, row: float, column: float) -> float:
    return (
        math.exp(-(row**2) / (2 * sigma**2)) / sigma * he(n, row / sigma)
        * math.exp(-(column**2) / (2 * sigma**2)) / sigma * he(m, column / sigma)
    )  # fmt: skip


def literal(size: int, scales: tuple[float, ...], functions: list[tuple[int, int, float]]) -> np.ndarray:
    """Every function at every scale, cell by cell, on the full grid."""
    full = np.zeros((len(functions), len(scales), size, size))
    for b, (n, m, divisor) in enumerate(functions):
        for k, sigma in enumerate(scales):
            side = math.floor(size * (sigma / scales[-1])) // 2 * 2 + 1
            reach = side // 2
            for i in range(-reach, reach + 1):
                for j in range(-reach, reach + 1):
                    full[b, k, size // 2 + i, size // 2 + j] = psi(n, m, sigma / divisor, i, j)
        full[b] /= math.sqrt((full[b, 0] ** 2).sum())
    return full


def test_basis_a_is_the_formula() -> None:
    scales = (0.9, 1.269, 1.789)
    expected = literal(7, scales, [(b % 3, b // 3, 1.0) for b in range(9)])
    np.testing.assert_allclose(basis_a(7, scales, 3).padded(), expected, rtol=1e-12, atol=1e-14)


def test_basis_b_is_the_formula() -> None:
    scales = (1.5, 2.6, 4.5)
    pairs = [(n, m) for m in range(5) for n in range(5) if n + m <= 4]
    functions = [(*pair, 1.5**i) for i in range(4) for pair in pairs][:49]
    np.testing.assert_allclose(
        basis_b(13, scales, 7, 1.5, 4).padded(), literal(13, scales, functions), rtol=1e-11, atol=1e-14
    )


@pytest.mark.parametrize("key", ["A", "B1", "B2"])
def test_bases_agree_with_the_golden_vectors(golden: Golden, difference: Difference, key: str) -> None:
    z = golden("ses_basis")
    size, scales, e = int(z[f"{key}_size"]), z[f"{key}_scales"].tolist(), int(z[f"{key}_effective_size"])
    if key == "A":
        basis = basis_a(size, scales, e)
    else:
        basis = basis_b(size, scales, e, float(z[f"{key}_mult"]), int(z[f"{key}_max_order"]))
    assert difference(basis.padded(), z[f"{key}_basis"]) < 1e-5
    # the check can fail: rows and columns exchanged are another basis
    assert difference(basis.padded().swapaxes(-1, -2), z[f"{key}_basis"]) > 0.1


@given(
    size=st.integers(1, 12).map(lambda i: 2 * i + 1),
    scales=st.lists(st.floats(0.5, 6), min_size=1, max_size=4, unique=True).map(sorted),
)
def test_supports_are_odd_and_cropping_loses_nothing(size: int, scales: list[float]) -> None:
    basis = basis_b(size, scales, 3, 1.5, 2)
    assert basis.count == 9
    assert basis.sides[-1] == size
    assert all(side % 2 == 1 and side <= size for side in basis.sides)
    assert sorted(basis.sides) == list(basis.sides)
    full = basis.padded()
    assert full.shape == (9, len(scales), size, size)
    for k, function in enumerate(basis.functions):
        assert np.isclose(np.abs(full[:, k]).sum(), np.abs(function).sum())


def test_functions_have_unit_norm_at_the_first_scale_only() -> None:
    basis = basis_a(15, (2.0, 4.0), 3)
    norms = [np.sqrt((f**2).sum(axis=(1, 2))) for f in basis.functions]
    np.testing.assert_allclose(norms[0], 1)
    assert (norms[1] < 0.9).all()


def test_a_function_that_vanishes_on_one_pixel_stays_finite() -> None:
    basis = basis_a(3, (0.1, 1.0), 2)
    assert basis.sides == (1, 3)
    assert all(np.isfinite(f).all() for f in basis.functions)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: basis_a(6, (1.0,), 3), "the kernel size must be odd and positive, not 6"),
        (lambda: basis_a(7, (2.0, 1.0), 3), "the scales must be positive and increasing"),
        (lambda: basis_a(7, (0.0, 1.0), 3), "the scales must be positive and increasing"),
        (lambda: basis_a(7, (), 3), "the scales must be positive and increasing"),
        (lambda: basis_b(7, (1.0,), 3, mult=1.0), "mult must be greater than 1, not 1"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], Basis], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_support_of_the_published_scales() -> None:
    assert [support(15, s, 5.1) for s in (1.7, 2.45, 3.54, 5.1)] == [5, 7, 11, 15]
