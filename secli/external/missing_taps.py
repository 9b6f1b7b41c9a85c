"""Taps of a network that cannot be measured, and their reasons, which null rows carry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from secli.records.notes import Note

UNKNOWN_FIELD = "unknown"
"""The field in a null row of a tap that has none."""
COARSE = (torch.float16, torch.bfloat16)
"""The types of autocast and mixed precision: read as float32, rounded as they are."""


def missing_taps(model: Any, names: Sequence[str] | None = None) -> dict[str, Note]:
    """Return the taps of an external model that cannot be measured, with the reasons; only those named (globs), if any.

    A model of the registry has none.
    """
    missing: dict[str, Note] = dict(getattr(model, "missing", {}))
    if names is None:
        return missing
    return {tap: why for tap, why in missing.items() if any(fnmatchcase(tap, name) for name in names)}


def tap_remarks(model: Any) -> dict[str, Note]:
    """Return the remarks on the numbers of some taps."""
    return dict(getattr(model, "remarks", {}))


def in_order(model: Any, *groups: Iterable[str]) -> list[str]:
    """Return the taps of all groups in the order of the forward pass, as far as the model knows it."""
    names = [tap for group in groups for tap in group]
    order = {tap: k for k, tap in enumerate(getattr(model, "order", ()))}
    return sorted(dict.fromkeys(names), key=lambda tap: order.get(tap, len(order)))


def unmeasurable(tensor: Tensor) -> Note | None:
    """Return why numbers of a type cannot be measured; None when they can."""
    if tensor.is_floating_point():
        return None
    name = str(tensor.dtype).removeprefix("torch.")
    return Note.of("complex-numbers" if tensor.is_complex() else "not-real-numbers", dtype=name)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return features in a type fine enough for norms: half precision as float32."""
    return tensor.float() if tensor.dtype in COARSE else tensor
