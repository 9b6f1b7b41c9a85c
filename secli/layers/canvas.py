"""Resizing on a canvas that keeps its size, as one matrix per axis.

Resizing n cells to m by bilinear interpolation with aligned corners, and putting the result back in the middle of
n cells (cropped when it is larger), is linear and separable: ``R x Rᵀ``. One matrix holds both steps, so that
what the crop throws away is never computed.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from secli.layers.fast.size_cache import kept_operator

# n·s is rounded in float64: 100 · 0.29 must count as 29, not as just below it
_TINY = 1e-9


def resized(size: int, scale: float) -> int:
    """Return ⌊n·s⌋, the cells of a resized axis; one at least.

    Examples
    --------
    >>> resized(28, 0.45), resized(100, 0.29), resized(2, 0.3)
    (12, 29, 1)
    """
    return max(1, math.floor(size * scale + _TINY))


def canvas_matrix(size: int, cells: int) -> Float[Tensor, "size size"]:
    """Return the matrix that resizes an axis to a number of cells and puts these back in the middle.

    Row i reads at ``(i − o)(n − 1)/(m − 1)``, o = (n − m)//2 rounded down (negative: a crop); rows that lie
    outside the resized axis are zero. A single cell (m = 1) reads the first one, as aligned corners have it.

    Parameters
    ----------
    size : int
        n, the cells of the axis, before and after.
    cells : int
        m, the cells it is resized to.

    Returns
    -------
    Tensor
        float64 (n, n); the exact identity for m = n.

    Examples
    --------
    >>> canvas_matrix(4, 2).tolist()
    [[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    grid = torch.arange(size, dtype=torch.float64)
    place = grid - (size - cells) // 2
    source = place * (size - 1) / max(cells - 1, 1)
    weights = (1 - (source[:, None] - grid[None, :]).abs()).clamp(min=0)
    return weights * ((place >= 0) & (place < cells))[:, None]


def canvas_operator(
    size: int, cells: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "size size"]:
    """Return ``canvas_matrix`` where the features are, kept from one call to the next."""
    return kept_operator(canvas_matrix, size, cells, dtype, device)
