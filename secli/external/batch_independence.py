"""Whether a foreign network's features of a picture depend on the other pictures of its batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from secli.external.missing_taps import COARSE
from secli.models.contract import Features
from secli.records.notes import Note

MIXED = 1e-3
"""Allowed change of a picture's features with its neighbours: float32 rounds differently in other batches."""
MIXED_COARSELY = 0.05
"""The same where features are computed in half precision."""

ROUNDED = 1e-6
"""A change below this share of the largest tap's norm is one of rounding: large terms may cancel."""

FEW = 0.005
"""The share of numbers below which a change is one of rounding."""


class Mixing(NamedTuple):
    """How a picture's features at a tap change with the other pictures of its batch."""

    tap: str
    change: float

    def __str__(self) -> str:
        return (
            f"tap '{self.tap}' of a picture changes by {self.change:.1%} with the other pictures of its batch"
        )


def mixing(
    alone: Mapping[str, Features], among: Mapping[str, Features], coarse: bool = False
) -> Mixing | None:
    """Return how a picture's features depend on the others of its batch; None when they do not.

    Parameters
    ----------
    alone, among : mapping
        The features by tap of one picture alone, and of a batch in which it is the last.
    """
    negligible = ROUNDED * max(
        (float(_finite(part).norm()) for one in alone.values() for part in _list(one)), default=0.0
    )
    for tap, features in alone.items():
        if tap not in among:
            continue
        pairs = zip(_list(features), _list(among[tap]), strict=True)
        change = max(_change(one[-1], many[-1], negligible) for one, many in pairs)
        if change > (MIXED_COARSELY if coarse else MIXED):
            return Mixing(tap, change)
    return None


def shape_with_batch(one: Tensor | None, two: Tensor | None) -> Note | None:
    """Return how the shape of features depends on the number of pictures; None when the first axis counts them.

    The features are those of one picture and of two; None where the pass did not call the module.
    """
    if one is None or two is None:
        return Note.of("not-called-for-one" if one is None else "not-called-for-two")
    if one.ndim and two.ndim and one.shape[1:] == two.shape[1:] and (len(one), len(two)) == (1, 2):
        return None
    return Note.of("shape-with-batch", one=tuple(one.shape), two=tuple(two.shape))


def is_coarse(tensor: Tensor) -> bool:
    """Return whether numbers are in half precision."""
    return tensor.dtype in COARSE


def _list(features: Features) -> list[Tensor]:
    return features if isinstance(features, list) else [features]


def _finite(tensor: Tensor) -> Tensor:
    return torch.nan_to_num(tensor.double(), posinf=0.0, neginf=0.0)


def _size(tensor: Tensor) -> float:
    """Return the root of the mean square."""
    return float(_finite(tensor).norm()) / math.sqrt(max(1, tensor.numel()))


def _change(one: Tensor, other: Tensor, negligible: float) -> float:
    """Return ‖a − b‖ / max(‖a‖, ‖b‖); values that are not finite are left to the measurement.

    1 where the shapes differ. 0 where hardly any number changes: a maximum over almost equal directions may turn with
    the rounding.
    """
    if one.shape != other.shape:
        return 1.0
    a, b = _finite(one), _finite(other)
    size = float(torch.maximum(a.norm(), b.norm()))
    if size == 0 or _size(a - b) <= negligible:
        return 0.0
    gap = (a - b).abs()
    changed = float((gap > MIXED * size / gap.numel() ** 0.5).double().mean())
    return float(gap.norm()) / size if changed > FEW else 0.0
