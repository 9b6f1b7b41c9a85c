"""The memory layout of a scale space's levels: one after the other, each a batch of whole planes.

The axes stay (N, C, S, H, W). Stored as (S, N, C, H, W), a level needs no copy for a convolution, a pooling window or
a batch norm; stored in the order of the axes, it has to be gathered from all channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from secli.layers.fast.forms import in_use


def stack_levels(levels: Iterable[Float[Tensor, "n c h w"]]) -> Float[Tensor, "n c s h w"]:
    """Join levels to a scale space."""
    if in_use("levels-first"):
        return torch.stack(list(levels)).movedim(0, 2)
    return torch.stack(list(levels), dim=2)


def levels_first(x: Tensor) -> bool:
    """Whether this is a scale space stored level by level."""
    return x.dim() == 5 and x.shape[2] > 1 and x.movedim(2, 0).is_contiguous()


def as_planes(x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "m c h w"]:
    """Return all levels as one batch, M = S · N; a view where :func:`levels_first`."""
    return x.movedim(2, 0).flatten(0, 1)


def as_space(planes: Float[Tensor, "m c h w"], levels: int) -> Float[Tensor, "n c s h w"]:
    """Return a batch of S · N planes as a scale space: the inverse of :func:`as_planes`."""
    return planes.reshape(levels, -1, *planes.shape[1:]).movedim(0, 2)
