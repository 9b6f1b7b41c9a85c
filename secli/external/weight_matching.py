"""Whether weights fit a network: their names, shapes and kinds of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from secli.errors import InputError
from secli.external.checkpoints import Entries, few

COUNTER = "num_batches_tracked"
"""Old checkpoints lack it, and evaluation does not use it."""


class Slots(NamedTuple):
    """A network's own weights by name, and by name all names of the same tensor."""

    own: dict[str, Any]
    tied: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, network: nn.Module) -> Slots:
        """Return those of a network in its present mode."""
        own = dict(network.state_dict(keep_vars=True))
        groups: dict[Any, list[str]] = {}
        for key, value in own.items():
            groups.setdefault(_identity(value), []).append(key)
        return cls(own, {key: tuple(group) for group in groups.values() for key in group})


class WeightMatch(NamedTuple):
    """How the entries of a state dict fit a network.

    Attributes
    ----------
    state
        By the network's names.
    prefix
        Stripped from the front of every name.
    left_out
        Entries that are no weights: numbers, and counters that the network does not have.
    problems
        Misfits, in words; empty when all fits.
    matching
        How many names are the network's.
    """

    state: dict[str, Any]
    prefix: str
    left_out: tuple[str, ...]
    problems: tuple[str, ...]
    matching: int


def fit(entries: Entries, slots: Slots) -> WeightMatch:
    """Return how a state dict fits, stripped of the shortest common prefix with which it does, if any."""
    left_out = tuple(
        key
        for key, value in entries.items()
        if key not in slots.own and not key.endswith("_extra_state") and not _is_weight(key, value)
    )
    state = {key: value for key, value in entries.items() if key not in left_out}
    fits = [_fit(state, prefix, left_out, slots) for prefix in _prefixes(list(state))]
    return next((each for each in fits if not each.problems), max(fits, key=lambda each: each.matching))


def _fit(state: Mapping[str, Any], prefix: str, left_out: tuple[str, ...], slots: Slots) -> WeightMatch:
    renamed = {key.removeprefix(prefix): value for key, value in state.items()}
    missing = [
        key
        for key in slots.own
        if not key.endswith(COUNTER) and not any(other in renamed for other in slots.tied[key])
    ]
    unexpected = [key for key in renamed if key not in slots.own]
    shapes = [
        f"{key} {_shape(value)} instead of {_shape(own)}"
        for key, value in renamed.items()
        if isinstance(value, Tensor)
        and isinstance(own := slots.own.get(key), Tensor)
        and own.shape != value.shape
    ]
    problems = tuple(
        f"{len(keys)} {what} ({few(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    )
    return WeightMatch(renamed, prefix, left_out, problems, len(renamed) - len(unexpected))


def _prefixes(keys: list[str]) -> list[str]:
    """Return the prefixes that all names share, part by part, shortest first.

    Examples
    --------
    >>> _prefixes(["module.net.0.weight", "module.net.0.bias"])
    ['', 'module.', 'module.net.', 'module.net.0.']
    """
    parts = [key.split(".")[:-1] for key in keys]
    prefixes = [""]
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        prefixes.append(f"{prefixes[-1]}{level[0]}.")
    return prefixes


def _is_weight(key: str, value: Any) -> bool:
    """Return whether an entry can be a weight: a tensor, and not a single whole number that counts updates."""
    if not isinstance(value, Tensor):
        return False
    return "." in key or value.numel() != 1 or value.is_floating_point() or value.is_complex()


def converted(state: Mapping[str, Any], slots: Slots, option: str) -> dict[str, Any]:
    """Return weights in the network's own types; no value may be lost.

    Raises
    ------
    InputError
        When they are codes of quantised weights, of another kind of number, not finite, or two values of one tensor.
    """
    found = {key: _converted(key, value, slots.own[key], option) for key, value in state.items()}
    endless = [
        key
        for key, value in found.items()
        if isinstance(value, Tensor) and not _is_finite(value, slots.own[key])
    ]
    if endless:
        raise InputError(f"{option}: {len(endless)} tensors hold NaN or infinity ({few(endless)})")
    for key, value in found.items():
        for other in slots.tied[key]:
            if (
                other != key
                and other in found
                and isinstance(value, Tensor)
                and not torch.equal(found[other], value)
            ):
                raise InputError(
                    f"{option}: {key} and {other} are one tensor in the network, but two different ones in the file"
                )
    return found


def _converted(key: str, value: Any, own: Any, option: str) -> Any:
    if not isinstance(value, Tensor) or not isinstance(own, Tensor):
        return value
    types = f"{option}: {key} is {_type(value)} in the file and {_type(own)} in the network"
    if value.is_quantized:
        raise InputError(f"{types}: quantised; save the weights before quantisation")
    if value.layout != torch.strided:
        value = value.to_dense()
    kinds = _kind(value), _kind(own)
    if kinds[0] == kinds[1]:
        changed = value.to(own.dtype)
        if kinds[0] == "float" and not torch.equal(changed.isfinite(), value.isfinite()):
            raise InputError(f"{types}, which its values exceed")
        if kinds[0] != "integer" or torch.equal(changed.to(value.dtype), value):
            return changed
    elif kinds == ("float", "integer"):  # averages of weights count in float, too
        changed = value.to(own.dtype)
        if torch.equal(changed.to(value.dtype), value):
            return changed
    raise InputError(f"{types}: {_LOST.get(kinds, 'its values would change')}")


_LOST = {
    ("integer", "float"): "whole numbers are codes, not weights; save the weights before quantisation",
    ("complex", "float"): "the imaginary parts would be lost",
}


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "float" if tensor.is_floating_point() else "integer"


def _is_finite(value: Tensor, own: Tensor) -> bool:
    """Return whether values are finite, except those that the network itself sets to infinity, such as masks."""
    if _kind(value) == "integer" or bool(value.isfinite().all()):
        return True
    return not own.is_meta and bool((value.isfinite() | (value == own.detach().to(value.device))).all())


def _identity(value: Any) -> Any:
    """Return a key that all names of one tensor share."""
    if isinstance(value, Tensor) and not value.is_meta and value.layout == torch.strided and value.data_ptr():
        return value.data_ptr(), tuple(value.shape), value.stride(), value.dtype
    return id(value)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
