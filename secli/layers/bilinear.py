"""Bilinear resizing with corners not aligned, as one small matrix per axis.

Resizing n cells to m reads output cell i at (i + ½)n/m − ½ between its two neighbours, the edge cell where that
is outside. It is linear and separable, ``R x Rᵀ``, and its gradient is deterministic on every device, unlike that
of a GPU's own resampler.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from secli.layers.fast.size_cache import cached_operator


def bilinear_matrix(cells_in: int, cells_out: int) -> Float[Tensor, "cells_out cells_in"]:
    """Return the matrix (m, n) that resizes an axis of n cells to m, corners not aligned, without antialiasing.

    float64; rows sum to 1; the exact identity for m = n.

    Examples
    --------
    >>> bilinear_matrix(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    position = (torch.arange(cells_out, dtype=torch.float64) + 0.5) * (cells_in / cells_out) - 0.5
    source = position.clamp(0, cells_in - 1)
    grid = torch.arange(cells_in, dtype=torch.float64)
    return (1 - (source[:, None] - grid[None, :]).abs()).clamp(min=0)


def bilinear_operator(
    cells_in: int, cells_out: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "cells_out cells_in"]:
    """Return ``bilinear_matrix`` on the features' device, cached."""
    return cached_operator(bilinear_matrix, cells_in, cells_out, dtype, device)
