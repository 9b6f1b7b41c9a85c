"""Small fixed matrices of layers that take any input size: built once for each size, cached on the features' device."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

Matrix = Callable[[int, int], Tensor]
"""Builds the float64 matrix of two sizes."""


def computes_at_once() -> bool:
    """Whether a new tensor holds numbers: inside a compiler or a fake mode it would be a fake tensor."""
    return not torch.compiler.is_compiling() and type(torch.empty(0)) is Tensor


def cached_operator(
    matrix: Matrix, first: int, second: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "rows columns"]:
    """Return ``matrix(first, second)`` in this dtype on this device, cached."""
    if not computes_at_once():  # a fake tensor may not outlive its trace
        return matrix(first, second).to(device=device, dtype=dtype)
    return _cached(matrix, first, second, dtype, device)


@lru_cache(maxsize=1024)
def _cached(matrix: Matrix, first: int, second: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # built outside inference mode, because a cached operator may later meet features that need gradients, on the CPU
    # whatever device is the default, and unseen by modes that count operations: a second pass would not build it again
    with _disable_current_modes(), torch.inference_mode(False), torch.device("cpu"):
        return matrix(first, second).to(device=device, dtype=dtype)
