"""A basis of Fourier–Bessel functions: the eigenfunctions of the Laplacian on a disc, at several radii.

Source: Zhu, Qiu, Calderbank, Sapiro, Cheng, "Scaling-Translation-Equivariant Networks with Decomposed Convolutional
Filters", JMLR 2022. With R_mq the q-th positive zero of the Bessel function J_m, on the unit disc (zero beyond it)::

    ψ_mq(r, θ) = J_m(R_mq r)/(√π |J_{m+1}(R_mq)|) · {1, √2 cos mθ, √2 sin mθ}        (1: m = 0)

orthonormal, and taken in the order of R_mq, so that the first ones are the smoothest. At scale α a filter is
Σ a_k 2^{−2α} ψ_k(2^{−α} u): its integral stays, and a response moves from one level to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import jn_zeros, jv

from secli.layers.hermite import Basis

Array = NDArray[np.float64]


class Mode(NamedTuple):
    """One function: angular order m, radial frequency R_mq, and whether it is the sine."""

    order: int
    frequency: float
    sine: bool


def smoothest_modes(count: int) -> tuple[Mode, ...]:
    """Return the functions of the smallest frequencies; of one frequency the cosine first.

    Raises
    ------
    ValueError
        When the count is below 1.

    Examples
    --------
    >>> [(mode.order, round(mode.frequency, 3)) for mode in smoothest_modes(6)]
    [(0, 2.405), (1, 3.832), (1, 3.832), (2, 5.136), (2, 5.136), (0, 5.52)]
    """
    if count < 1:
        raise ValueError(f"a basis needs at least one function, not {count}")
    # the q-th zero of J_m lies above m + q, so that `count` of each are enough
    modes = [
        Mode(order, float(frequency), sine)
        for order in range(count)
        for frequency in jn_zeros(order, count)
        for sine in (False, True)[: 2 if order else 1]
    ]
    return tuple(sorted(modes, key=lambda mode: (mode.frequency, mode.order, mode.sine))[:count])


def fourier_bessel(mode: Mode, y: Array, x: Array) -> Array:
    """Return a function at points of the plane, in units of the disc's radius; θ = atan2(y, x)."""
    r, theta = np.hypot(y, x), np.arctan2(y, x)
    radial = jv(mode.order, mode.frequency * r) / abs(jv(mode.order + 1, mode.frequency))
    turn = np.sin(mode.order * theta) if mode.sine else np.cos(mode.order * theta)
    amplitude = np.sqrt((2.0 if mode.order else 1.0) / np.pi)
    return np.asarray(np.where(r < 1, amplitude * radial * turn, 0.0))


def basis_fourier_bessel(radii: Sequence[float], count: int) -> Basis:
    """Return Fourier–Bessel functions sampled at several radii ρ_k: ρ_0/ρ_k² · ψ(u/ρ_k).

    With ρ_k = ρ_0 2^{α_k} this is 2^{−2α} ψ(2^{−α} u/ρ_0)/ρ_0, whose norm at the first radius is nearly one.

    Parameters
    ----------
    radii : sequence of float
        ρ_k above 1, increasing, in cells.
    count : int
        How many functions, the smoothest ones.

    Raises
    ------
    ValueError
        When the radii are not above 1 and increasing, or the count is below 1.

    Examples
    --------
    >>> basis = basis_fourier_bessel((2.5, 4.33, 7.5), 10)
    >>> basis.count, basis.sides
    (10, (5, 9, 15))
    """
    if not radii or min(radii) <= 1 or list(radii) != sorted(set(radii)):
        raise ValueError(f"the radii must be above 1 and increasing, not {tuple(radii)}")
    modes, functions = smoothest_modes(count), []
    for radius in radii:
        reach = int(np.ceil(radius)) - 1  # the last cell within the disc
        grid = np.arange(-reach, reach + 1) / radius
        y, x = np.meshgrid(grid, grid, indexing="ij")
        functions.append(np.stack([radii[0] / radius**2 * fourier_bessel(mode, y, x) for mode in modes]))
    return Basis(functions[-1].shape[-1], tuple(float(radius) for radius in radii), tuple(functions))
