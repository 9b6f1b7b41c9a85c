"""Proxies: what a unit impulse becomes when its scale changes and the grid does not.

Source: Sosnovik, Moskalev, Smeulders, "DISCO: accurate Discrete Scale Convolutions", BMVC 2021, sections 3 and 4.
A convolution is equivariant to scale when filtering and rescaling commute, for every pair of its scales::

    R_ij(x ⋆ κ_j) = R_ij(x) ⋆ κ_i,      R_ij reads the picture at every (s_j/s_i)-th pixel, s_i < s_j

κ_1 = δ_p is solved by δ_{sp} at an integer scale s, exactly. At other scales there is no exact solution on a
grid, so that the kernels are those of least mean square over smooth random pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secli.scaling import SPLINE_MARGIN, axis_matrix

Array = NDArray[np.float64]

PICTURE_BLUR = 0.8
"""Standard deviation, in pixels, of the Gaussian that makes smooth pictures of white noise."""

CELLS = 64
"""Side of the grid on which R_ij(x) is compared; the more cells, the more phases between the two grids."""


def impulses(size: int, effective_size: int, scale: int) -> Array:
    """Return the e² unit impulses of the e×e grid dilated by an integer scale, (e², K, K); rows slowest.

    Raises
    ------
    ValueError
        When the dilated grid is wider than the kernel.
    """
    reach = effective_size // 2
    places = size // 2 + scale * np.arange(-reach, reach + 1)
    if places[0] < 0:
        raise ValueError(f"{effective_size} taps at scale {scale} do not fit in a kernel of size {size}")
    kernels = np.zeros((effective_size**2, size, size))
    for p, (row, column) in enumerate(itertools.product(places, places)):
        kernels[p, row, column] = 1.0
    return kernels


def fit_proxies(
    size: int,
    scales: Sequence[float],
    effective_size: int,
    blur: float = PICTURE_BLUR,
    cells: int = CELLS,
) -> Array:
    """Return the K×K kernels κ_p^s that stand for the impulses at every scale.

    Minimises Σ_{i<j} E‖R_ij(x ⋆ κ_j) − R_ij(x) ⋆ κ_i‖² over the kernels at non-integer scales, those at integer
    scales held fixed (Sosnovik et al. 2021, section 4). R_ij reads the interpolating cubic spline, x is white noise
    blurred by a Gaussian.

    Parameters
    ----------
    size : int
        Side K of the kernels, odd.
    scales : sequence of float
        s_k ≥ 1, the first of them 1.
    effective_size : int
        e, odd: the impulses are those of the e×e grid.
    blur : float
        Standard deviation of the pictures' blur in pixels. The smoother they are, the better a kernel can do
        on them, and the less they say about the fine detail that others have.
    cells : int
        Side of the grid on which the two sides are compared.

    Returns
    -------
    array (scale, e², K, K)
        float64.

    Notes
    -----
    The kernels enter linearly, and the mean over all pictures, which a sample of random ones would only
    approach, is known in closed form: there is no seed. It is a product over the two axes, so that each
    block of the normal equations is a Kronecker product of two small matrices. All free scales are solved for
    together, because each pair of them is a term. The condition number of the matrix grows with the blur
    (5·10³ for K = 15 at 0.8), far from needing a ridge.
    """
    free = [k for k, scale in enumerate(scales) if not is_integer(scale)]
    kernels = np.zeros((len(scales), effective_size**2, size, size))
    for k, scale in enumerate(scales):
        if k not in free:
            kernels[k] = impulses(size, effective_size, round(scale))
    if not free:
        return kernels
    taps = size**2
    place = {k: slice(taps * n, taps * (n + 1)) for n, k in enumerate(free)}
    normal = np.zeros((taps * len(free), taps * len(free)))
    target = np.zeros((taps * len(free), effective_size**2))
    for i, j in itertools.combinations(range(len(scales)), 2):
        if i not in place and j not in place:
            continue  # nothing to choose
        ratio = scales[j] / scales[i]
        # (x ⋆ κ_j)(y) reads x at y + z; R_ij(x) ⋆ κ_i reads it at y + z·s_j/s_i
        after = _offsets(size, scales[j], effective_size, j in place)
        before = ratio * _offsets(size, scales[i], effective_size, i in place)
        moments = second_moments(np.concatenate([after, before]), ratio, blur, cells)
        split = len(after)
        cross = np.kron(moments[:split, split:], moments[:split, split:])
        if j in place:
            normal[place[j], place[j]] += np.kron(moments[:split, :split], moments[:split, :split])
        if i in place:
            normal[place[i], place[i]] += np.kron(moments[split:, split:], moments[split:, split:])
        if i in place and j in place:
            normal[place[j], place[i]] -= cross
            normal[place[i], place[j]] -= cross.T
        elif j in place:
            target[place[j]] += cross
        else:
            target[place[i]] += cross.T
    solution = np.linalg.solve(normal, target)
    for k in free:
        kernels[k] = solution[place[k]].T.reshape(-1, size, size)
    return kernels


def second_moments(offsets: Array, ratio: float, blur: float, cells: int) -> Array:
    """Return E[x(u + a) x(u + b)] for all pairs of offsets, averaged over the positions u that R reads.

    Along one axis: x is a line of white noise blurred by a Gaussian, between its pixels the interpolating cubic
    spline; u = ratio·(k − (cells − 1)/2) about its middle.

    Parameters
    ----------
    offsets : array
        a, b in pixels.
    ratio : float
        Pixels between two positions.
    blur : float
        Standard deviation of the Gaussian in pixels.
    cells : int
        Number of positions.
    """
    reach = ratio * (cells - 1) / 2 + float(np.abs(offsets).max())
    half = int(np.ceil(reach)) + SPLINE_MARGIN
    pixels = np.arange(2 * half + 1)
    # a Gaussian of variance σ² correlated with itself has variance 2σ²
    covariance = np.exp(-((pixels[:, None] - pixels) ** 2) / (4 * blur**2))
    read = np.stack(
        [axis_matrix(len(pixels), cells, ratio, half + offset, (cells - 1) / 2, 0.0) for offset in offsets]
    )
    return np.asarray(np.einsum("auv,buv->ab", read @ covariance, read, optimize=True) / cells)


def is_integer(scale: float) -> bool:
    """Say whether a scale dilates the grid of impulses onto the grid of pixels."""
    return float(scale).is_integer()


def _offsets(size: int, scale: float, effective_size: int, free: bool) -> Array:
    """Return where the kernels at a scale may be other than zero, along one axis, in pixels."""
    count, step = (size, 1.0) if free else (effective_size, scale)
    return step * (np.arange(count, dtype=np.float64) - count // 2)
