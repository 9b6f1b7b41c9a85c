"""Bilinear resizing with corners not aligned, as one small matrix per axis.

Resizing n cells to m reads output cell i at (i + ½)n/m − ½ between its two neighbours, the edge cell where that
lies outside. It is linear and separable: ``R x Rᵀ``, whose gradient is deterministic on every device, which that of
a GPU's own resampler is not.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from secli.layers.fast.size_cache import kept_operator


def bilinear_matrix(cells_in: int, cells_out: int) -> Float[Tensor, "cells_out cells_in"]:
    """Return the matrix that resizes an axis, corners not aligned, without antialiasing.

    Parameters
    ----------
    cells_in, cells_out : int
        n ≥ 1 and m ≥ 1.

    Returns
    -------
    Tensor
        float64 (m, n); rows sum to 1; the exact identity for m = n.

    Examples
    --------
    >>> bilinear_matrix(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    place = (torch.arange(cells_out, dtype=torch.float64) + 0.5) * (cells_in / cells_out) - 0.5
    source = place.clamp(0, cells_in - 1)
    grid = torch.arange(cells_in, dtype=torch.float64)
    return (1 - (source[:, None] - grid[None, :]).abs()).clamp(min=0)


def bilinear_operator(
    cells_in: int, cells_out: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "cells_out cells_in"]:
    """Return ``bilinear_matrix`` where the features are, kept from one call to the next."""
    return kept_operator(bilinear_matrix, cells_in, cells_out, dtype, device)
