"""The part of torchmetrics' ``Metric`` that the measure needs, for where torchmetrics is not installed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class PlainMetric:
    """States that are lists of tensors, emptied by ``reset``, and gathered from all processes by ``dist_reduce``."""

    def __init__(self, **options: Any) -> None:
        if options:
            raise TypeError(
                f"unknown option '{next(iter(options))}'; those of torchmetrics need torchmetrics"
            )
        self._states: list[str] = []

    def add_state(self, name: str, default: list[Tensor], dist_reduce_fx: str = "cat") -> None:
        """Declare a state; it is a list of tensors that belong one after the other."""
        self._states.append(name)
        setattr(self, name, list(default))

    def reset(self) -> None:
        """Forget everything that was added."""
        for name in self._states:
            setattr(self, name, [])

    def dist_reduce(self) -> dict[str, list[Tensor]]:
        """Return the states of all processes of ``torch.distributed`` together; of one process its own."""
        own = {name: getattr(self, name) for name in self._states}
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return own
        moved = {name: [tensor.cpu() for tensor in some] for name, some in own.items()}
        every: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(every, moved)
        return {name: [tensor for one in every for tensor in one[name]] for name in own}
