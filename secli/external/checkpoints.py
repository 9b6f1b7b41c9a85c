"""The content of a file of weights: safetensors or a PyTorch checkpoint, recognised without executing anything."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secli.errors import InputError, one_line, suggestion

SHOWN = 10
"""Names listed by an error, at most."""
TOP = "."
"""Name in ``--state`` of the state dict that is the file itself, where it holds others, too."""
LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header, at most."""

Entries = Mapping[str, Any]


def read_content(path: Path) -> Any:
    """Read a safetensors file or a PyTorch checkpoint, whatever its suffix, without executing code of a pickle.

    Raises
    ------
    InputError
        When the file is missing, damaged, of another format, or would execute code; one line names it.
    """
    if path.is_dir():
        raise InputError(f"--weights {path}: is a directory; give a .safetensors or .pth file")
    if not path.is_file():
        raise InputError(f"--weights {path}: no such file")
    return _read_safetensors(path) if _is_safetensors(path) else _read_checkpoint(path)


def state_dicts(path: Path, content: Any) -> dict[str, Entries]:
    """Return the state dicts in a file by their keys (``model``, ``ema.module``); the file itself is ``.``.

    A mapping is one when it holds tensors by name; an optimiser's state is none.

    Raises
    ------
    InputError
        When there is none.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"--weights {path}: holds no state dict, but {type(content).__name__}")
    found: dict[str, Entries] = {}
    _collect(content, "", found)
    if not found:
        keys = few([str(key) for key in content]) or "nothing"
        raise InputError(f"--weights {path}: holds no state dict (found {keys})")
    return found


def _collect(entries: Mapping[Any, Any], name: str, found: dict[str, Entries]) -> None:
    if not all(isinstance(key, str) for key in entries) or "param_groups" in entries:
        return
    if any(isinstance(value, Tensor) for value in entries.values()):
        found[name or TOP] = entries
    for key, value in entries.items():
        if isinstance(value, Mapping):
            _collect(value, f"{name}.{key}" if name else key, found)


def chosen(path: Path, found: Mapping[str, Entries], state: str) -> tuple[str, Entries]:
    """Return the state dict that ``--state`` names, and its full key.

    It is named by its key, by the last part of it where that is enough, or, inside one state dict, by a prefix of
    tensor names.

    Raises
    ------
    InputError
        When the file holds no such state dict, or several.
    """
    if state in found:
        return state, found[state]
    ends = [name for name in found if name.endswith(f".{state}")]
    groups = [
        (f"{name}.{state}" if name != TOP else state, group)
        for name, entries in found.items()
        if (group := under(entries, state if name == TOP else state.removeprefix(f"{name}.")))
    ]
    hits = [(name, found[name]) for name in ends] or groups
    if len(hits) == 1:
        return hits[0]
    names = [name for name, _ in hits] or list(found)
    if hits:
        raise InputError(f"--state {state}: {path} holds several of these: {few(names)}; give the whole key")
    raise InputError(f"--state {state}: {path} holds no such state dict{suggestion(state, names)}")


def under(entries: Entries, front: str) -> dict[str, Any]:
    """Return the tensors whose names begin with ``front.``, without it; empty where there are none."""
    start = f"{front}."
    return {
        key.removeprefix(start): value
        for key, value in entries.items()
        if key.startswith(start) and isinstance(value, Tensor)
    }


def few(keys: Iterable[str]) -> str:
    """Return the first names of a list, in one line.

    Examples
    --------
    >>> few(["a", "b"]), few(map(str, range(12)))
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …')
    """
    names = list(keys)
    return ", ".join(names[:SHOWN]) + ", …" * (len(names) > SHOWN)


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins like safetensors: the length of a header in JSON, eight bytes, and the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = one_line(error)
        raise InputError(f"--weights {path}: not a whole safetensors file ({reason})") from None


def _read_checkpoint(path: Path) -> Any:
    try:
        # as an open file: of a path torch would trust the suffix
        with path.open("rb") as file, warnings.catch_warnings(), _with_plain_values():
            warnings.simplefilter("ignore")  # on pickles of newer protocols, which are refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"--weights {path}: {_why_not(path, str(error))}") from None


def _with_plain_values() -> AbstractContextManager[object]:
    """Allow values of training scripts that execute nothing: options of ``argparse``, paths, single numbers
    of numpy.
    """
    allow = getattr(torch.serialization, "safe_globals", None)  # torch 2.5
    if allow is None:
        return contextlib.nullcontext()
    scalar = np.float64(0).__reduce__()[0]  # numpy's name for it has changed
    kinds = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]
    plain: list[Any] = [argparse.Namespace, pathlib.PosixPath, scalar, np.dtype, *kinds]
    if torch.__version__ >= (2, 7):  # type: ignore[operator]
        plain += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    allowed: AbstractContextManager[object] = allow(plain)
    return allowed


def _refusal(path: Path, message: str) -> InputError:
    """Return the error for a pickle that cannot be opened without executing code, or at all."""
    if "eights only load failed" not in message or not _is_pickle(path):
        return InputError(f"--weights {path}: damaged, or neither safetensors nor a PyTorch checkpoint")
    code = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"(?:class|global) ([\w.]+)", message)
    what = f"opening it would execute '{code[1]}'" if code else "opening it may execute code"
    return InputError(f"--weights {path}: refused: {what}; save the state dict alone, best as safetensors")


def _why_not(path: Path, message: str) -> str:
    if "TorchScript" in message:
        return "refused: a TorchScript archive holds code; save its state dict instead"
    if "legacy .tar" in message:
        return "refused: opening this oldest format of PyTorch may execute code; save the state dict as safetensors"
    if zipfile.is_zipfile(path):
        return "a zip archive, but damaged or no PyTorch checkpoint"
    return "damaged, or neither safetensors nor a PyTorch checkpoint"


def _is_pickle(path: Path) -> bool:
    """Return whether a file is a pickle or an archive that holds one."""
    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        return file.read(1) == b"\x80"
