"""The state of an optimiser over a stack, split into those of single runs, and joined again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[str, Any]


def state_of(optimizer: Optimizer, replica: int) -> State:
    """Return the state of one replica's own optimiser.

    Tensors of a parameter's shape are split; all else (Adam's count of steps) is common.
    """
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]

    def share(i: int, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value[replica].clone() if value.shape == shapes[i] else value.clone()

    state = optimizer.state_dict()
    return {
        **state,
        "state": {
            i: {key: share(i, value) for key, value in entries.items()}
            for i, entries in state["state"].items()
        },
    }


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
    """Drop all replicas but these from the state; to be called before the parameters lose them."""
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[key] = value[list(replicas)]
