"""The fixed bases of scale-equivariant steerable filters: Hermite–Gauss functions at several scales.

Source: Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, sections 4 and A.
With He_n the probabilists' Hermite polynomials and G_σ(x) = exp(−x²/2σ²)/σ::

    ψ_nm^σ(x, y) = G_σ(x) He_n(x/σ) · G_σ(y) He_m(y/σ)

sampled on the integer grid; each function is divided, at all scales, by its L2 norm at the first scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import hermite_e
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Basis:
    """Functions sampled at several scales, each scale on its own support.

    Attributes
    ----------
    size
        Side K of the kernel at the largest scale.
    scales
        The scales σ_k, smallest first, in pixels.
    functions
        One float64 array (b, K_k, K_k) per scale; K_k ≤ K is odd, so the missing border is zero on all sides.
    """

    size: int
    scales: tuple[float, ...]
    functions: tuple[Array, ...]

    @property
    def count(self) -> int:
        """The number b of functions."""
        return int(self.functions[0].shape[0])

    @property
    def sides(self) -> tuple[int, ...]:
        """The side K_k of the support at each scale."""
        return tuple(int(function.shape[-1]) for function in self.functions)

    def padded(self) -> Array:
        """Return all scales zero-padded to the full side, (b, scale, K, K)."""
        full = np.zeros((self.count, len(self.scales), self.size, self.size))
        for k, (function, side) in enumerate(zip(self.functions, self.sides, strict=True)):
            margin = (self.size - side) // 2
            full[:, k, margin : margin + side, margin : margin + side] = function
        return full


def basis_a(size: int, scales: Sequence[float], effective_size: int) -> Basis:
    """Return basis A: all pairs of orders below ``effective_size`` at scale σ.

    Parameters
    ----------
    size : int
        Side K of the largest kernel, odd.
    scales : sequence of float
        Scales σ_k > 0 in increasing order, in pixels.
    effective_size : int
        e; the basis has e² functions, the order along rows running fastest.

    Raises
    ------
    ValueError
        When the size is even, or the scales are not positive and increasing.

    Examples
    --------
    >>> basis_a(7, (0.9, 1.27, 1.79), 3).padded().shape  # functions, scales, rows, columns
    (9, 3, 7, 7)
    """
    orders = [(b % effective_size, b // effective_size) for b in range(effective_size**2)]
    return _sample(size, scales, [(n, m, 1.0) for n, m in orders])


def basis_b(
    size: int, scales: Sequence[float], effective_size: int, mult: float = 2.0, max_order: int = 4
) -> Basis:
    """Return basis B: low orders at σ, then at σ/mult, σ/mult², … until there are e² functions.

    Parameters
    ----------
    size, scales, effective_size
        As for :func:`basis_a`.
    mult : float
        Ratio of the sub-scales, greater than 1.
    max_order : int
        M; the pairs of orders whose sum is at most M are taken, the order along rows running fastest.

    Raises
    ------
    ValueError
        When the size is even, the scales are not positive and increasing, or ``mult`` is not above 1.

    Examples
    --------
    >>> basis = basis_b(13, (1.5, 2.6, 4.5), 7, mult=1.5)
    >>> basis.count, basis.sides  # the smaller scales need fewer cells
    (49, (5, 7, 13))
    """
    if not mult > 1:
        raise ValueError(f"mult must be greater than 1, not {mult:g}")
    pairs = [(n, m) for m in range(max_order + 1) for n in range(max_order + 1) if n + m <= max_order]
    functions = []
    for b in range(effective_size**2):
        sub_scale, pair = divmod(b, len(pairs))
        functions.append((*pairs[pair], mult**-sub_scale))
    return _sample(size, scales, functions)


def support(size: int, scale: float, largest: float) -> int:
    """Return the odd side K_k = 2⌊⌊K σ_k/σ_max⌋/2⌋ + 1 of the grid on which scale σ_k is sampled."""
    return min(int(size * (scale / largest)) // 2 * 2 + 1, size)


def _sample(size: int, scales: Sequence[float], functions: Sequence[tuple[int, int, float]]) -> Basis:
    """Sample ψ for each (order along rows, order along columns, factor on σ) at every scale."""
    if size % 2 == 0 or size < 1:
        raise ValueError(f"the kernel size must be odd and positive, not {size}")
    if not scales or min(scales) <= 0 or list(scales) != sorted(set(scales)):
        raise ValueError(f"the scales must be positive and increasing, not {tuple(scales)}")
    sampled = []
    for scale in scales:
        side = support(size, scale, scales[-1])
        grid = np.arange(side) - side // 2
        lines = [
            (_hermite_gauss(grid, scale * shrink, n), _hermite_gauss(grid, scale * shrink, m))
            for n, m, shrink in functions
        ]
        sampled.append(np.stack([np.outer(rows, columns) for rows, columns in lines]))
    norms = np.sqrt((sampled[0] ** 2).sum(axis=(1, 2), keepdims=True))
    # a function that vanishes on the first grid (odd order on a single pixel) stays what it is
    norms[norms == 0] = 1.0
    return Basis(size, tuple(float(scale) for scale in scales), tuple(f / norms for f in sampled))


def _hermite_gauss(x: NDArray[np.int64], sigma: float, order: int) -> Array:
    """Return G_σ(x) He_n(x/σ)."""
    u = x / sigma
    polynomial = hermite_e.hermeval(u, [0.0] * order + [1.0])
    return np.asarray(np.exp(-(u**2) / 2) / sigma * polynomial, dtype=np.float64)
