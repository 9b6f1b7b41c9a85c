"""The fixed basis of rotation-steerable filters: circular harmonics on Gaussian rings.

Source: Weiler, Hamprecht, Storath, "Learning Steerable Filters for Rotation Equivariant CNNs", CVPR 2018,
section 3::

    ψ_jk(r, φ) = τ_j(r) e^{ikφ},      τ_j(r) = exp(−(r − j)²/2σ²),      ρ_θ ψ_jk = e^{−ikθ} ψ_jk

A filter W = Re Σ_jk w_jk ψ_jk with learned complex w_jk is turned by θ in closed form: w_jk becomes e^{−ikθ} w_jk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WIDTH = 0.45  # σ in pixels: of 0.45–0.65 the one whose filters turn best by 45° at sides 5 to 11


@dataclass(frozen=True)
class CircularHarmonics:
    """The real functions whose combinations are the filters Re Σ_jk w_jk ψ_jk, turned by every angle of C_N.

    Attributes
    ----------
    size
        Side K of the grid.
    rings
        The pair (j, k) of each coefficient; a pair with k > 0 occurs twice, for Re w_jk and Im w_jk.
    functions
        float64 (N, b, K, K): at angle 2πn/N and coefficient b, the function that the coefficient multiplies.
    """

    size: int
    rings: tuple[tuple[int, int], ...]
    functions: Array

    @property
    def count(self) -> int:
        """The number b of real coefficients."""
        return len(self.rings)


def highest_frequency(ring: int) -> int:
    """Return the band limit K_j = 2j of the ring of radius j.

    The shortest wave on the ring is then π pixels long. The grid carries two pixels per wave, but few pixels are on a
    ring, at uneven angles: with K_j = 3j (2.1 pixels) filters turned by 45° are two to four times as far off.
    """
    return 2 * ring


def circular_harmonics(size: int, rotations: int, width: float = WIDTH) -> CircularHarmonics:
    """Sample the basis on a K×K grid at the N angles 2πn/N; rings j = 0 … (K − 1)/2, frequencies k = 0 … 2j.

    The angle φ runs counterclockwise as pictures are shown. For k > 0 the centre, which has no angle, is 0, and the
    sum over the grid is made 0, as it is in the plane: on a square grid only cos kφ with k = 4, 8, … has a sum, and
    each ring gives it back in proportion to τ_j. The two parts of ψ_jk are divided by one number that makes their
    mean square norm 1, so that they still turn into one another.

    Parameters
    ----------
    size : int
        Side K in pixels, odd.
    rotations : int
        N ≥ 1.
    width : float
        σ > 0 of the rings, in pixels.

    Raises
    ------
    ValueError
        When the size is even, or rotations or width are not positive.

    Examples
    --------
    >>> [circular_harmonics(size, 8).count for size in (3, 5, 7)]
    [6, 15, 28]
    """
    if size % 2 == 0 or size < 1:
        raise ValueError(f"the kernel size must be odd and positive, not {size}")
    if rotations < 1:
        raise ValueError(f"there must be at least one rotation, not {rotations}")
    if not width > 0:
        raise ValueError(f"the width of the rings must be positive, not {width:g}")
    radius = size // 2
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    distance, angle = np.hypot(rows, columns), np.arctan2(-rows, columns)
    rings: list[tuple[int, int]] = []
    functions: list[Array] = []
    for j in range(radius + 1):
        profile = np.exp(-((distance - j) ** 2) / (2 * width**2))
        for k in range(highest_frequency(j) + 1):
            harmonic = _harmonic(profile, angle, distance, k)
            turned = [
                np.exp(-2j * np.pi * ((k * n) % rotations) / rotations) * harmonic for n in range(rotations)
            ]
            # Re[(a + ib)ψ] = a Re ψ − b Im ψ
            parts = [np.real(turned)] if k == 0 else [np.real(turned), -np.imag(turned)]
            functions += parts
            rings += [(j, k)] * len(parts)
    return CircularHarmonics(size, tuple(rings), np.stack(functions, axis=1))


def _harmonic(profile: Array, angle: Array, distance: Array, k: int) -> NDArray[np.complex128]:
    """Return ψ_jk on the grid, of mean square norm 1 per real function."""
    if k == 0:
        return np.asarray(profile / np.linalg.norm(profile), dtype=np.complex128)
    profile = np.where(distance == 0, 0.0, profile)
    wave = np.exp(1j * k * angle)
    # by the grid's symmetry the imaginary part, sin kφ, sums to zero as it is
    mean = float((profile * wave.real).sum() / profile.sum())
    harmonic = profile * (wave - mean)
    return np.asarray(harmonic * (math.sqrt(2) / np.linalg.norm(harmonic)), dtype=np.complex128)
