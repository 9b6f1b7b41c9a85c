"""A filter of one axis as a matrix: a wide separable filter of small planes is two products, whatever its width."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def toeplitz(kernel: Float[Tensor, "taps"], rows: Tensor, columns: Tensor) -> Float[Tensor, "m n"]:
    """Return the matrix kernel(rows − columns) of a kernel with its centre in the middle, zero beyond its ends.

    Examples
    --------
    >>> toeplitz(torch.tensor([1.0, 2.0, 3.0]), torch.arange(3), torch.arange(3)).tolist()
    [[2.0, 1.0, 0.0], [3.0, 2.0, 1.0], [0.0, 3.0, 2.0]]
    """
    radius = kernel.shape[0] // 2
    apart = rows[:, None] - columns[None, :]
    return torch.where(apart.abs() <= radius, kernel[apart.clamp(-radius, radius) + radius], 0.0)


def filter_matrix(kernel: Float[Tensor, "taps"], size: int) -> Float[Tensor, "size size"]:
    """Return the matrix that convolves an axis with a kernel, zeros outside: y(i) = Σ_j kernel(i − j) x(j)."""
    cells = torch.arange(size, device=kernel.device)
    return toeplitz(kernel, cells, cells)
