"""L_s on images: the one definition of the scale action (L_s f)(x) = f(x/s) on a grid.

On a grid of n cells L_s is linear and separable, ``L_s x = A_s x A_sᵀ``. ``A_s`` blurs by the discrete Gaussian
(Lindeberg, *Scale-space for discrete signals*, 1990), an exact semigroup, then reads the interpolating cubic
spline (Unser, *Splines: a perfect fit*, 1999) at ``(x − c)/s + c``. Both work on a grid extended by zeros, so
that nothing is cut between the two. Nothing is clamped, rounded or quantised.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from scipy.linalg import solve_banded
from scipy.special import ive
from torch import Tensor

SAMPLING_BLUR = 0.5
"""σ₀: the blur of a sampled picture, in pixels; a shrunk picture keeps it."""

# The inverse of the cubic B-spline filter decays as (2 − √3)^k: 24 cells leave 2e-14.
SPLINE_MARGIN = 24
_GAUSSIAN_TAIL = 1e-16
# Up to so many cells one product with A_s ⊗ A_s is faster than two for every plane (six times on 7 × 7).
_SMALL_PLANE = 100


def blur_variance(factor: float, blur: float = SAMPLING_BLUR) -> float:
    """Return the variance t = σ²(1/s² − 1) that keeps a picture of blur σ at blur σ when it shrinks by s.

    In squared cells, σ in cells; 0 for s ≥ 1, where nothing has to be removed.
    """
    return blur**2 * (1 / factor**2 - 1) if factor < 1 else 0.0


def bessel_kernel(variance: float, radius: int) -> Float64[np.ndarray, "taps"]:
    """Return the discrete Gaussian T(k, t) = e^{−t} I_k(t) for k = −radius … radius (Lindeberg 1990, eq. 19).

    ``I_k`` is the modified Bessel function, t the variance in squared cells (0: the unit impulse). Unlike a sampled
    Gaussian, T(·, t) ⋆ T(·, u) = T(·, t + u) exactly.
    """
    return np.asarray(ive(np.abs(np.arange(-radius, radius + 1)), variance), dtype=np.float64)


def axis_matrix(
    n_in: int, n_out: int, step: float, centre_in: float, centre_out: float, variance: float
) -> Float64[np.ndarray, "n_out n_in"]:
    """Return the matrix that blurs one axis and reads its cubic spline on a new grid.

    Row i holds the weights of the reading at ``centre_in + (i − centre_out) · step``.

    Parameters
    ----------
    step : float
        Distance between two readings, in cells of the input (1/s for a rescaling by s).
    centre_in, centre_out : float
        The point of the input grid that goes to which point of the output grid, in cells.
    variance : float
        Variance t of the discrete Gaussian applied first, in squared cells of the input.

    Returns
    -------
    array
        float64; the exact identity when nothing moves.
    """
    if step == 1 and variance == 0 and centre_in == centre_out and n_in == n_out:
        return np.eye(n_in)
    radius = _gaussian_radius(variance)
    margin = radius + SPLINE_MARGIN
    kernel = bessel_kernel(variance, n_in + 2 * margin)
    extended = np.arange(-margin, n_in + margin)
    blurred = kernel[extended[:, None] - np.arange(n_in)[None, :] + n_in + 2 * margin]
    bands = np.repeat(np.array([[1.0], [4.0], [1.0]]) / 6, len(extended), axis=1)
    coefficients = solve_banded((1, 1), bands, blurred)
    positions = centre_in + (np.arange(n_out) - centre_out) * step
    return np.asarray(_cubic_b_spline(positions[:, None] - extended[None, :]) @ coefficients)


def _gaussian_radius(variance: float) -> int:
    if variance == 0:
        return 0
    radius = 4 + int(np.ceil(9 * np.sqrt(variance)))
    while ive(radius, variance) > _GAUSSIAN_TAIL:
        radius += 4
    return radius


def _cubic_b_spline(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Evaluate the centred cubic B-spline β³ (support −2 … 2)."""
    distance = np.abs(x)
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.asarray(np.where(distance < 1, inner, outer))


class Axis(NamedTuple):
    """What ``axis_matrix`` does to one axis, and how often (``power``).

    By ``edge`` pixels the input is continued with its outermost ones: a photograph does not end in black.
    """

    n_in: int
    n_out: int
    step: float
    centre_in: float
    centre_out: float
    variance: float
    power: int = 1
    edge: int = 0

    def matrix(self) -> Float64[np.ndarray, "n_out n_in"]:
        """Return ``axis_matrix`` to this power."""
        n, edge = self.n_in, self.edge
        matrix = axis_matrix(
            n + 2 * edge, self.n_out, self.step, self.centre_in + edge, self.centre_out, self.variance
        )
        if edge:
            matrix[:, edge] += matrix[:, :edge].sum(1)
            matrix[:, edge + n - 1] += matrix[:, edge + n :].sum(1)
            matrix = matrix[:, edge : edge + n]
        return np.linalg.matrix_power(matrix, self.power) if self.power > 1 else matrix


@lru_cache(maxsize=1024)
def axis_operator(axis: Axis, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n_out n_in"]:
    """Return an axis's matrix as a tensor; built in float64 and cached."""
    return _cacheable(axis.matrix(), dtype, device)


@lru_cache(maxsize=256)
def plane_operator(
    rows: Axis, columns: Axis, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "cells_out cells_in"]:
    """Return the matrix that acts on both axes of a plane at once, its cells row by row; cached."""
    return _cacheable(np.kron(rows.matrix(), columns.matrix()), dtype, device)


def _cacheable(matrix: Float64[np.ndarray, "m n"], dtype: torch.dtype, device: torch.device) -> Tensor:
    # built outside inference mode, because a cached operator may later meet one that needs gradients
    with torch.inference_mode(False):
        return torch.from_numpy(matrix).to(device=device, dtype=dtype)


def resample(
    x: Float[Tensor, "*batch h w"], rows: Axis, columns: Axis
) -> Float[Tensor, "*batch h_out w_out"]:
    """Return ``rows · x · columnsᵀ`` on the last two axes.

    Small planes are read as vectors and take one matrix: the same sums, rounded in another order. The planes are taken
    in their order in memory, so that none is copied first, and the result has that order.
    """
    order = memory_order(x.stride()[:-2])
    back = [order.index(axis) for axis in range(len(order))]
    moved = _resampled(x.permute(*order, -2, -1), rows, columns)
    return moved.permute(*back, -2, -1)


def _resampled(x: Float[Tensor, "*batch h w"], rows: Axis, columns: Axis) -> Tensor:
    if max(rows.n_in * columns.n_in, rows.n_out * columns.n_out) <= _SMALL_PLANE:
        matrix = plane_operator(rows, columns, x.dtype, x.device)
        return (x.flatten(-2) @ matrix.mT).reshape(*x.shape[:-2], rows.n_out, columns.n_out)
    return apply_axes(axis_operator(rows, x.dtype, x.device), x, axis_operator(columns, x.dtype, x.device))


def memory_order(strides: Sequence[int]) -> list[int]:
    """Return the axes in the order that they have in memory, the one of the longest steps first."""
    return sorted(range(len(strides)), key=lambda axis: (-strides[axis], axis))


def apply_axes(
    rows: Float[Tensor, "h_out h"], x: Float[Tensor, "*batch h w"], columns: Float[Tensor, "w_out w"]
) -> Float[Tensor, "*batch h_out w_out"]:
    """Return ``rows · x · columnsᵀ`` on the last two axes."""
    return rows @ (x @ columns.mT)


def rescale(
    images: Float[Tensor, "*batch h w"], factor: float, blur: float = SAMPLING_BLUR
) -> Float[Tensor, "*batch h w"]:
    r"""Apply L_s to pictures: (L_s f)(x) = f(x/s) about the image centre, zeros outside.

    Parameters
    ----------
    factor : float
        Scale factor s > 0; s < 1 shrinks the picture on an unchanged canvas.
    blur : float
        The pictures' own blur σ in pixels; a shrunk picture keeps it.

    Returns
    -------
    tensor (…, H, W)
        The rescaled pictures, unclamped. For s = 1 the input, to the bit.

    Examples
    --------
    >>> import torch
    >>> picture = torch.rand(1, 1, 9, 9)
    >>> torch.equal(rescale(picture, 1.0), picture)
    True
    """
    if factor == 1:
        return images
    height, width = images.shape[-2:]
    return resample(images, image_axis(height, factor, blur), image_axis(width, factor, blur))


def image_axis(n: int, factor: float, blur: float) -> Axis:
    """Return what A_s does to an axis of n pixels, about the image centre (n − 1)/2."""
    centre = (n - 1) / 2
    return Axis(n, n, 1 / factor, centre, centre, blur_variance(factor, blur))


def centre_crop(
    images: Float[Tensor, "*batch h w"] | UInt8[Tensor, "*batch h w"], size: Sequence[int]
) -> Float[Tensor, "*batch h_out w_out"] | UInt8[Tensor, "*batch h_out w_out"]:
    """Return the pixels about the image centre, a view.

    Raises
    ------
    ValueError
        When the pictures are smaller, or their centre is not the window's (one side even, the other odd).
    """
    starts = []
    for pixels, kept in zip(images.shape[-2:], size, strict=True):
        if kept > pixels or (pixels - kept) % 2:
            raise ValueError(f"no centred window of {kept} in {pixels} pixels")
        starts.append((pixels - kept) // 2)
    return images[..., starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]]


def window(
    photographs: Float[Tensor, "*batch h w"], size: Sequence[int], factor: float, blur: float = SAMPLING_BLUR
) -> Float[Tensor, "*batch h_out w_out"]:
    r"""Apply L_s to photographs and read a window about their centre: (L_s f)(x) = f(x/s) for x in the window.

    A shrunk window shows more of the photograph and no frame. Beyond the photograph its outermost pixels go on.

    Parameters
    ----------
    photographs : tensor (…, H, W)
        At least as large as the window, its sides even or odd as the window's are.
    size : pair
        Height and width of the window, in pixels.
    factor : float
        Scale factor s > 0.
    blur : float
        The photographs' own blur σ in pixels; a shrunk one keeps it.

    Returns
    -------
    tensor (…, h, w)
        Unclamped. For s = 1 the photograph's own pixels, to the bit.

    Raises
    ------
    ValueError
        When there is no such window.

    Examples
    --------
    >>> import torch
    >>> photograph = torch.rand(3, 40, 30)
    >>> torch.equal(window(photograph, (20, 20), 1.0), photograph[:, 10:30, 5:25])
    True
    """
    crop = centre_crop(photographs, size)
    if factor == 1:
        return crop
    variance = blur_variance(factor, blur)
    reach = _gaussian_radius(variance) + SPLINE_MARGIN
    axes, kept = [], []
    for pixels, n in zip(photographs.shape[-2:], size, strict=True):
        # what the window reads, and no more: the operator's cost grows with it
        n_in = min(pixels, n + 2 * int(np.ceil(max(0.0, n / factor - n) / 2 + reach)))
        axes.append(Axis(n_in, n, 1 / factor, (n_in - 1) / 2, (n - 1) / 2, variance, edge=reach))
        kept.append(n_in)
    return resample(centre_crop(photographs, kept), axes[0], axes[1])
