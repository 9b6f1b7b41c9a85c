"""The fixed filters of scale-steerable convolutions: log-radial harmonics times bumps over the angle.

Source: Ghosh, Gupta, "Scale Steerable Filters for Locally Scale-Invariant Convolutional Neural Networks", 2019,
section 3. On a K×K grid with r the distance to the centre and φ the angle::

    S_kj(r, φ) = 1/r · exp(−d(φ, φ_j)²/2σ_φ²) · exp(i(k' ln r + β)),        k' = 2πk / ln r_max

where d is the angular distance mod π. Magnifying by s is a turn of the phase, S_kj(r/s, φ) ∝ e^{−ik' ln s} S_kj,
so that one set of filters gives the kernel at every scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]


def log_radial_filters(
    size: int,
    orders: Sequence[float] = (0.5, 1.0, 2.0),
    angles: int = 9,
    sigma_phi: float = math.pi / 16,
    phase: float = -math.pi / 4,
) -> ComplexArray:
    """Return the filters S_kj sampled on a K×K grid, complex128 (order, angle, K, K).

    The centre, where r = 0, counts as r = 1 and φ = 0; φ = atan2(−(column − centre), row − centre). Nothing is
    beyond the radius (K − 1)/2. Real and imaginary part are each divided by their own L2 norm, as published; since
    those norms differ (by up to 16 % on 13×13), a turn of the phase is then a magnification only nearly.

    Parameters
    ----------
    size : int
        Side K of the grid in pixels, odd, at least 3.
    orders : sequence of float
        k, in periods from the centre to the corner of the grid.
    angles : int
        Number of angles φ_j, equally spaced in [0, π], both ends included: the first and the last are one
        direction, as published.
    sigma_phi : float
        σ_φ > 0 in radians.
    phase : float
        β in radians.

    Raises
    ------
    ValueError
        When the size is even or below 3, there are no orders or no angles, or σ_φ is not positive.

    Examples
    --------
    >>> log_radial_filters(7, orders=(1.0,), angles=9).shape
    (1, 9, 7, 7)
    """
    if size % 2 == 0 or size < 3:
        raise ValueError(f"the size of log-radial filters must be odd and at least 3, not {size}")
    if not orders:
        raise ValueError("give at least one order")
    if angles < 1:
        raise ValueError(f"the number of angles must be at least 1, not {angles}")
    if not sigma_phi > 0:
        raise ValueError(f"sigma_phi must be positive, not {sigma_phi:g}")
    offset = np.arange(size) - size // 2
    down, right = np.meshgrid(offset, offset, indexing="ij")
    distance = np.hypot(down, right)
    log_r = np.log(np.where(distance == 0, 1.0, distance))
    directions = np.linspace(0, math.pi, angles).reshape(-1, 1, 1)
    away = np.remainder(np.arctan2(-right, down) - directions + math.pi / 2, math.pi) - math.pi / 2
    # 1/r = e^{−ln r}
    bumps = np.exp(-(away**2) / (2 * sigma_phi**2) - log_r) * (distance <= size // 2)
    turns = np.array(radial_frequencies(size, orders)).reshape(-1, 1, 1, 1) * log_r + phase
    return _unit(bumps * np.cos(turns)) + 1j * _unit(bumps * np.sin(turns))


def radial_frequencies(size: int, orders: Sequence[float]) -> tuple[float, ...]:
    """Return k' = 2πk / ln r_max of each order, r_max the distance from the centre of the K×K grid to its corner."""
    largest = math.log(math.hypot(size // 2, size // 2))
    return tuple(2 * math.pi * order / largest for order in orders)


def turned_filters(
    filters: ComplexArray, frequencies: Sequence[float], size: int, scale: float
) -> ComplexArray:
    """Return the filters for one scale s: e^{−ik' ln s} S_kj, cropped to size×size pixels, not renormalised.

    Examples
    --------
    >>> filters = log_radial_filters(13, orders=(0.5, 1, 2))
    >>> turned_filters(filters, radial_frequencies(13, (0.5, 1, 2)), size=5, scale=5 / 11).shape
    (3, 9, 5, 5)
    """
    turn = np.exp(-1j * math.log(scale) * np.array(frequencies)).reshape(-1, 1, 1, 1)
    margin = (filters.shape[-1] - size) // 2
    inner = slice(margin, margin + size)
    return np.asarray(turn * filters[..., inner, inner])


def _unit(filters: Array) -> Array:
    """Divide each filter by its L2 norm; one that vanishes on this grid stays zero."""
    norms = np.sqrt((filters**2).sum(axis=(-2, -1), keepdims=True))
    # sin(k' ln r + β) at β = 0 vanishes on the 3×3 grid, up to rounding never elsewhere
    return np.asarray(filters / np.where(norms == 0, 1.0, norms), dtype=np.float64)
