"""Proxies: what a unit impulse becomes when its scale changes and the grid does not.

Source: Sosnovik, Moskalev, Smeulders, "DISCO: accurate Discrete Scale Convolutions", BMVC 2021, sections 3 and 4.
A convolution is equivariant to scale when filtering and rescaling commute, for every pair of its scales::

    R_ij(x ⋆ κ_j) = R_ij(x) ⋆ κ_i,      R_ij reads the picture at every (s_j/s_i)-th pixel, s_i < s_j

κ_1 = δ_p is solved by δ_{sp} at an integer scale s, exactly. At other scales there is no exact solution on a
grid, so that the kernels are those for which the difference is least over random pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secli.action.images import SPLINE_MARGIN, axis_matrix

Array = NDArray[np.float64]

Images = Literal["noise", "blurred"]

PICTURE_BLUR = 0.8
"""Standard deviation, in pixels, of the Gaussian that makes smooth pictures of white noise."""

NOISE_MEAN = 3.0
"""Squared mean over variance of white noise uniform in [0, 1): (1/4)/(1/12). It lets the kernels keep sums of 1."""

NOISE_SIDE = 96
"""Side, in pixels, of a picture of noise: it decides how much a pair weighs that shrinks it more."""

KEYS = -0.75
"""a of cubic convolution, as in torch's bicubic interpolation."""

MOST_STEPS = 1000
CONVERGED = 1e-13
"""The change of a tap from step to step below which a sum of norms is least."""
EXACT = 1e-7
"""A norm that is zero up to rounding, per impulse."""

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
    cells = size // 2 + scale * np.arange(-reach, reach + 1)
    if cells[0] < 0:
        raise ValueError(f"{effective_size} taps at scale {scale} do not fit in a kernel of size {size}")
    kernels = np.zeros((effective_size**2, size, size))
    for p, (row, column) in enumerate(itertools.product(cells, cells)):
        kernels[p, row, column] = 1.0
    return kernels


def fit_proxies(
    size: int,
    scales: Sequence[float],
    effective_size: int,
    images: Images = "noise",
    blur: float = PICTURE_BLUR,
    cells: int = CELLS,
) -> Array:
    """Return the K×K kernels κ_p^s of the impulses at every scale, float64 (scale, e², K, K).

    Minimises Σ_{i<j} ‖R_ij(x ⋆ κ_j) − R_ij(x) ⋆ κ_i‖ over the kernels at non-integer scales, those at integer
    scales held fixed (Sosnovik et al. 2021, section 4).

    Parameters
    ----------
    size : int
        Side K of the kernels, odd.
    scales : sequence of float
        s_k ≥ 1, the first of them 1.
    effective_size : int
        e, odd: the impulses are those of the e×e grid.
    images : "noise" or "blurred"
        noise (as published): x is white noise, its pixels uniform in [0, 1); R_ij reads it by cubic convolution;
        the norms are added up, each over the pixels of a picture of side ``NOISE_SIDE`` shrunk by s_j/s_i, but for
        a margin of K//2 + 1. blurred: x is white noise of mean zero behind a Gaussian; R_ij reads the
        interpolating cubic spline; mean squares are added up.
    blur : float
        Standard deviation of that Gaussian in pixels. The smoother the pictures are, the better a kernel fits
        them, and the less it is determined by fine detail.
    cells : int
        Side of the grid on which second moments are taken.

    Notes
    -----
    The kernels enter linearly, and the mean over all pictures is known in closed form: there is no seed. It is a
    product over the two axes, so that each block of the normal equations is a Kronecker product of two small
    matrices. All free scales are solved for together, because each pair of them is a term. The condition number of
    the matrix grows with the blur (5·10³ for K = 15 at 0.8), far from needing a ridge.

    A sum of norms is least where the sum of squares is, each divided by its own norm (Weiszfeld 1937).
    """
    if images not in ("noise", "blurred"):
        raise ValueError(f"images must be 'noise' or 'blurred', not {images!r}")
    free = [k for k, scale in enumerate(scales) if not is_integer(scale)]
    kernels = np.zeros((len(scales), effective_size**2, size, size))
    for k, scale in enumerate(scales):
        if k not in free:
            kernels[k] = impulses(size, effective_size, round(scale))
    pairs = []
    for i, j in itertools.combinations(range(len(scales)), 2):
        if i not in free and j not in free:
            continue  # nothing to choose
        ratio = scales[j] / scales[i]
        # (x ⋆ κ_j)(y) reads x at y + z; R_ij(x) ⋆ κ_i reads it at y + z·s_j/s_i
        after = _offsets(size, scales[j], effective_size, j in free)
        before = ratio * _offsets(size, scales[i], effective_size, i in free)
        moments = second_moments(
            np.concatenate([after, before]), ratio, blur if images == "blurred" else None, cells
        )
        side = max(1.0, NOISE_SIDE / ratio - 2 * (size // 2 + 1))
        pairs.append(_Pair(i, j, moments, len(after), NOISE_MEAN if images == "noise" else 0.0, side))
    if not pairs:
        return kernels
    problem = _Problem(pairs, {k: n for n, k in enumerate(free)}, size**2, effective_size**2)
    solution = problem.least_norms() if images == "noise" else problem.least_squares([1.0] * len(pairs))
    for k in free:
        kernels[k] = solution[problem.rows(k)].T.reshape(-1, size, size)
    return kernels


class _Pair:
    """One term ‖R_ij(x ⋆ κ_j) − R_ij(x) ⋆ κ_i‖: the second moments of what the taps of its two sides read.

    Attributes
    ----------
    i, j
        Which scales, s_i < s_j.
    after, before, cross
        Moments among the taps of κ_j, among those of κ_i, and between the two.
    side
        Cells that are compared, along one axis.
    """

    def __init__(self, i: int, j: int, line: Array, split: int, mean: float, side: float) -> None:
        first, last, between = line[:split, :split], line[split:, split:], line[:split, split:]
        self.i, self.j, self.side = i, j, side
        # the mean of the pixels is the same at every tap
        self.after, self.before = np.kron(first, first) + mean, np.kron(last, last) + mean
        self.cross = np.kron(between, between) + mean


class _Problem(NamedTuple):
    """The normal equations of all pairs for all free scales.

    Attributes
    ----------
    order
        The index of each free scale among the unknowns.
    taps, impulses
        K² and e².
    """

    pairs: Sequence[_Pair]
    order: Mapping[int, int]
    taps: int
    impulses: int

    def rows(self, k: int) -> slice:
        """Return the rows of a free scale's kernels."""
        return slice(self.taps * self.order[k], self.taps * (self.order[k] + 1))

    def least_squares(self, weights: Sequence[float]) -> Array:
        """Return the kernels (unknown tap, impulse) whose weighted sum of squares is least."""
        normal = np.zeros((self.taps * len(self.order), self.taps * len(self.order)))
        target = np.zeros((self.taps * len(self.order), self.impulses))
        for pair, weight in zip(self.pairs, weights, strict=True):
            i, j, cross = pair.i, pair.j, weight * pair.cross
            if j in self.order:
                normal[self.rows(j), self.rows(j)] += weight * pair.after
            if i in self.order:
                normal[self.rows(i), self.rows(i)] += weight * pair.before
            if i in self.order and j in self.order:
                normal[self.rows(j), self.rows(i)] -= cross
                normal[self.rows(i), self.rows(j)] -= cross.T
            elif j in self.order:
                target[self.rows(j)] += cross
            else:
                target[self.rows(i)] += cross.T
        return np.asarray(np.linalg.solve(normal, target))

    def least_norms(self) -> Array:
        """Return the kernels whose sum of norms is least."""
        solution = self.least_squares([1.0] * len(self.pairs))
        for _ in range(MOST_STEPS):
            norms = self.norms(solution)
            if min(norms) <= EXACT * self.impulses:
                return solution  # a pair that commutes exactly: one with a single impulse, say
            before = solution
            solution = self.least_squares(
                [pair.side**2 / norm for pair, norm in zip(self.pairs, norms, strict=True)]
            )
            if np.abs(solution - before).max() < CONVERGED:
                return solution
        return solution

    def norms(self, solution: Array) -> list[float]:
        """Return the norm of each pair, over its cells and all impulses."""
        found = []
        for pair in self.pairs:
            i, j = (
                solution[self.rows(k)] if k in self.order else np.eye(self.impulses) for k in (pair.i, pair.j)
            )
            square = (j * (pair.after @ j)).sum() + (i * (pair.before @ i)).sum()
            square -= 2 * (j * (pair.cross @ i)).sum()
            found.append(pair.side * float(np.sqrt(max(square, 0.0))))
        return found


def second_moments(offsets: Array, ratio: float, blur: float | None, cells: int) -> Array:
    """Return E[x(u + a) x(u + b)] for all pairs of offsets a, b in pixels, averaged over the positions u that R reads.

    Along one axis, u = ratio·(k − (cells − 1)/2) about the middle of a line x of white noise of variance 1: blurred
    by a Gaussian of standard deviation ``blur`` in pixels and read by the interpolating cubic spline; or, without
    ``blur``, as it is, read by cubic convolution.
    """
    reach = ratio * (cells - 1) / 2 + float(np.abs(offsets).max())
    half = int(np.ceil(reach)) + SPLINE_MARGIN
    pixels = np.arange(2 * half + 1)
    if blur is None:
        middle = half + ratio * (np.arange(cells) - (cells - 1) / 2)
        read = cubic_convolution(middle[:, None] + offsets[:, None, None] - pixels)
        return np.asarray(np.einsum("auv,buv->ab", read, read, optimize=True) / cells)
    # a Gaussian of variance σ² correlated with itself has variance 2σ²
    covariance = np.exp(-((pixels[:, None] - pixels) ** 2) / (4 * blur**2))
    read = np.stack(
        [axis_matrix(len(pixels), cells, ratio, half + offset, (cells - 1) / 2, 0.0) for offset in offsets]
    )
    return np.asarray(np.einsum("auv,buv->ab", read @ covariance, read, optimize=True) / cells)


def cubic_convolution(x: Array) -> Array:
    """Return the weight with which cubic convolution reads a pixel at distance x.

    (a + 2)|x|³ − (a + 3)|x|² + 1 below 1, a|x|³ − 5a|x|² + 8a|x| − 4a from there to 2, a = −0.75 (Keys, "Cubic
    convolution interpolation for digital image processing", 1981).
    """
    a, r = KEYS, np.abs(x)
    near = (a + 2) * r**3 - (a + 3) * r**2 + 1
    far = a * (r**3 - 5 * r**2 + 8 * r - 4)
    return np.where(r < 1, near, np.where(r < 2, far, 0.0))


def is_integer(scale: float) -> bool:
    """Return whether a scale dilates the grid of impulses onto the grid of pixels."""
    return float(scale).is_integer()


def _offsets(size: int, scale: float, effective_size: int, free: bool) -> Array:
    """Return the positions at which the kernels at a scale may be other than zero, along one axis, in pixels."""
    count, step = (size, 1.0) if free else (effective_size, scale)
    return step * (np.arange(count, dtype=np.float64) - count // 2)
