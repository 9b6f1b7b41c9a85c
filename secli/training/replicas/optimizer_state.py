"""The state of an optimiser over a stack, taken apart into those of single runs, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[str, Any]


def state_of(optimizer: Optimizer, replica: int) -> State:
    """Return what the optimiser of one replica alone would save.

    Whatever has a parameter's shape is one replica's share of it; all else (Adam's count of steps) is common.
    """
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    return _mapped(optimizer.state_dict(), lambda i, value: _share(value, shapes[i], replica))


def join_states(states: Sequence[State], shapes: Sequence[torch.Size]) -> State:
    """Return the state over a stack of such replicas; ``shapes`` are those of the stacked parameters."""

    def joined(i: int, key: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.shape != shapes[i][1:] or key == "step":
            return value.clone()
        return torch.stack([state["state"][i][key] for state in states])

    first = states[0]
    return {
        **first,
        "state": {
            i: {key: joined(i, key, value) for key, value in entries.items()}
            for i, entries in first["state"].items()
        },
    }


def keep_replicas(optimizer: Optimizer, replicas: Sequence[int]) -> None:
    """Leave the replicas but these out of the state; to be called before the parameters lose them."""
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[key] = value[list(replicas)]


def _share(value: Any, stacked: torch.Size, replica: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value[replica].clone() if value.shape == stacked else value.clone()


def _mapped(state: State, change: Callable[[int, Any], Any]) -> State:
    entries = {i: {key: change(i, value) for key, value in own.items()} for i, own in state["state"].items()}
    return {**state, "state": entries}
