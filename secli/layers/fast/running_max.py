"""The maximum of neighbours along an axis, taken one after the other.

torch's own maximum over an axis and its max-pooling keep a 64-bit index per cell, and on a CPU they do not use its
vector units. Here::

    m ← x_0;   for k = 1 … c − 1:   won_k = (x_k > m),   m ← max(m, x_k)
    backward:  g_k = g · won_k,  g ← g − g_k,  from the last k to the first; g_0 = g

which costs two passes over the cells and keeps one byte per comparison. Values are the same bit for bit; of equal
neighbours the first takes the gradient, as in torch. Levels of a convolution need not be stacked first:
:func:`largest`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from secli.action.images import memory_order
from secli.layers.fast.forms import in_use, on_cpu
from secli.layers.fast.transforms import transformed


def neighbour_max(x: Float[Tensor, "..."], axis: int, count: int) -> Float[Tensor, "..."]:
    """Return the maximum of each ``count`` neighbours along an axis, which ``count`` must divide."""
    if count == 1:
        return x
    if _needs_no_gradient(x):
        return _maximum(iter(_parts(x, axis, count)))
    result: Tensor = _NeighbourMax.apply(x, axis, count)
    return result


def largest(responses: Iterable[Float[Tensor, "..."]]) -> Float[Tensor, "..."]:
    """Return the maximum of tensors of one shape, which may be computed one after the other.

    They are not stacked, and without gradients each is freed as soon as it is compared. With gradients where this form
    does not run they are stacked: torch's maximum over a stack keeps one index per cell.
    """
    others = iter(responses)
    best = next(others)
    if not runs_here(best):
        if torch.is_grad_enabled():
            return torch.stack([best, *others]).max(dim=0).values
        return functools.reduce(torch.maximum, others, best)
    if _needs_no_gradient(best):
        return _maximum(itertools.chain([best], others))
    for response in others:
        best = _Larger.apply(best, response)
    return best


def _needs_no_gradient(x: Tensor) -> bool:
    """Whether neither a gradient nor a forward-mode derivative will be computed."""
    recorded = torch.is_grad_enabled() and x.requires_grad
    return not recorded and forward_ad.unpack_dual(x).tangent is None  # type: ignore[no-untyped-call]


def _maximum(parts: Iterator[Tensor]) -> Tensor:
    best = next(parts)
    for count, part in enumerate(parts):
        # the first one is not ours to write on
        best = torch.maximum(best, part, out=best) if count else torch.maximum(best, part)
    return best


def runs_here(x: Tensor) -> bool:
    """Whether this form is the faster one: on a CPU, not under a compiler, which fuses by itself, nor under
    torch.vmap.
    """
    if not in_use("running-max"):
        return False
    return on_cpu(x) and not torch.compiler.is_compiling() and not transformed()


def _dense(x: Tensor) -> tuple[int, ...]:
    """Return strides that order the axes as in memory, with no gaps."""
    strides, step = [0] * x.dim(), 1
    for axis in reversed(memory_order(x.stride())):
        strides[axis], step = step, step * x.shape[axis]
    return tuple(strides)


def _parts(x: Tensor, axis: int, count: int) -> tuple[Tensor, ...]:
    """Return views of the first, second, … of each group of neighbours."""
    grouped = x.view(*x.shape[:axis], x.shape[axis] // count, count, *x.shape[axis + 1 :])
    return grouped.unbind(axis + 1)


class _NeighbourMax(torch.autograd.Function):
    """The maximum, its gradient, and its forward-mode derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int, count: int) -> Tensor:
        best, *others = _parts(x, axis, count)
        won = []
        for part in others:
            won.append(part > best)
            best = torch.maximum(best, part)
        ctx.save_for_backward(*won)
        ctx.save_for_forward(*won)
        ctx.shape, ctx.strides, ctx.axis, ctx.count = x.shape, _dense(x), axis, count
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        result = gradient.new_empty_strided(ctx.shape, ctx.strides)
        first, *others = _parts(result, ctx.axis, ctx.count)
        rest = gradient
        for part, won in zip(reversed(others), reversed(ctx.saved_tensors), strict=True):
            torch.mul(rest, won, out=part)
            rest = rest - part
        first.copy_(rest)
        return result, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        best, *others = _parts(tangent, ctx.axis, ctx.count)
        for part, won in zip(others, ctx.saved_tensors, strict=True):
            best = torch.where(won, part, best)
        return best


class _Larger(torch.autograd.Function):
    """The larger of two tensors, cell by cell."""

    @staticmethod
    def forward(ctx: Any, best: Tensor, x: Tensor) -> Tensor:
        won = x > best
        ctx.save_for_backward(won)
        ctx.save_for_forward(won)
        return torch.maximum(best, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (won,) = ctx.saved_tensors
        to_x = gradient * won
        return gradient - to_x, to_x

    @staticmethod
    def jvp(ctx: Any, to_best: Tensor, to_x: Tensor) -> Tensor:
        (won,) = ctx.saved_tensors
        return torch.where(won, to_x, to_best)
