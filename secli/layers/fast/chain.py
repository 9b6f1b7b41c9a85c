"""Modules in a sequence, in which max-pooling is moved before the ReLU that precedes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from secli.layers.fast.forms import in_use
from secli.layers.pooling import SpatialPool


class Chain(nn.Sequential):
    """Run modules one after the other; a maximum over windows comes before the ReLU that precedes it.

    max_i ReLU(x_i) = ReLU(max_i x_i), and the gradient goes to the same cell: the first of the largest, if above 0.
    ReLU then sees as many cells as there are windows.

    Parameters
    ----------
    modules : Module
        By name, in the order of the formula, which is also that of a checkpoint and of :meth:`children`.

    Attributes
    ----------
    literal : bool
        Whether the order of the formula is kept.

    Examples
    --------
    >>> import torch
    >>> Chain(relu=nn.ReLU(), pool=SpatialPool(2))(torch.rand(2, 8, 4, 28, 28) - 0.5).shape
    torch.Size([2, 8, 4, 14, 14])
    """

    def __init__(self, *args: Any, **modules: nn.Module) -> None:
        super().__init__(*args)  # as for torch.nn.Sequential, which slices itself that way
        self.literal = False
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, features: Any) -> Any:
        """Return what the last module returns."""
        for module in self.in_order():
            features = module(features)
        return features

    def in_order(self) -> Iterator[nn.Module]:
        """Yield the modules in the order in which they run."""
        swap = in_use("pool-first") and not self.literal
        relu: nn.Module | None = None
        for module in self:
            if relu is not None and isinstance(module, SpatialPool) and module.how == "max":
                yield module
                continue
            if relu is not None:
                yield relu
                relu = None
            if swap and type(module) is nn.ReLU:
                relu = module
            else:
                yield module
        if relu is not None:
            yield relu
