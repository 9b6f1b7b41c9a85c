"""Taps that a network has and that cannot be measured: each has a reason, which its null rows carry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

UNPLACED = "unknown"
"""What a null row says of the field of a tap that has none."""
COARSE = (torch.float16, torch.bfloat16)
"""What autocast and mixed precision compute in: read as float32, rounded as it is."""


def missing_taps(model: Any, names: Sequence[str] | None = None) -> dict[str, str]:
    """Return the taps of a model that cannot be measured, with the reasons; of the named ones where any are named.

    Parameters
    ----------
    model : Model
        A network; only one from outside the registry has such taps.
    names : sequence of str, optional
        Names, or shell globs.
    """
    missing: dict[str, str] = dict(getattr(model, "missing", {}))
    if names is None:
        return missing
    return {tap: why for tap, why in missing.items() if any(fnmatchcase(tap, name) for name in names)}


def tap_remarks(model: Any) -> dict[str, str]:
    """Return what a reader of the numbers of some taps must know, by tap."""
    return dict(getattr(model, "remarks", {}))


def in_order(model: Any, *groups: Iterable[str]) -> list[str]:
    """Return the taps of all groups in the order of the forward pass, as far as the model knows it."""
    names = [tap for group in groups for tap in group]
    order = {tap: k for k, tap in enumerate(getattr(model, "order", ()))}
    return sorted(dict.fromkeys(names), key=lambda tap: order.get(tap, len(order)))


def unreadable(tensor: Tensor) -> str | None:
    """Say why numbers of a type cannot be measured; None when they can."""
    if tensor.is_floating_point():
        return None
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_complex():
        return (
            f"its features are complex ({name}): which of modulus, phase or parts is meant is not known; "
            "tap a module that returns real numbers"
        )
    return f"its features are {name}, not real numbers"


def readable(tensor: Tensor) -> Tensor:
    """Return features in a type that norms can be taken in: half precision as float32."""
    return tensor.float() if tensor.dtype in COARSE else tensor
