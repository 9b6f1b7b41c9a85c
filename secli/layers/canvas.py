"""Resizing on a canvas that keeps its size, as one matrix per axis.

Resizing n cells to m by bilinear interpolation with aligned corners, and placing the result in the middle of n cells
(cropped when it is larger), is linear and separable: ``R x Rᵀ``. One matrix does both, so that what the crop removes
is never computed.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from secli.layers.fast.size_cache import cached_operator

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
    """Return the matrix (n, n) that resizes an axis of n cells to m and places these in the middle of the axis.

    Row i reads at ``(i − o)(n − 1)/(m − 1)``, o = (n − m)//2 rounded down (negative: a crop); rows outside the resized
    axis are zero. A single cell (m = 1) reads the first one, as aligned corners do. float64; the exact identity for
    m = n.

    Examples
    --------
    >>> canvas_matrix(4, 2).tolist()
    [[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    grid = torch.arange(size, dtype=torch.float64)
    index = grid - (size - cells) // 2
    source = index * (size - 1) / max(cells - 1, 1)
    weights = (1 - (source[:, None] - grid[None, :]).abs()).clamp(min=0)
    return weights * ((index >= 0) & (index < cells))[:, None]


def canvas_operator(
    size: int, cells: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "size size"]:
    """Return ``canvas_matrix`` on the features' device, cached."""
    return cached_operator(canvas_matrix, size, cells, dtype, device)
