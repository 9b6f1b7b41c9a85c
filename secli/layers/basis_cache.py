"""Fixed arrays that are costly to compute: cached on disk under a hash of their parameters."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secli.sources.files import cache_directory
from secli.storage.writing import write_bytes

Array = NDArray[np.float64]


def cached_array(name: str, parameters: Mapping[str, Any], compute: Callable[[], Array]) -> Array:
    """Return the array of ``compute``, read from the cache when an earlier call left it there whole.

    The file holds the SHA-256 of its parameters and content, then the array. One that is damaged, or of other
    parameters, is computed anew; a cache that cannot be read or written changes nothing but the time.

    Parameters
    ----------
    name : str
        Folder in the cache (``SECLI_CACHE``, else the user's).
    parameters : mapping
        All that the array depends on, including a version of the computation; JSON types.
    compute : callable
        Returns the array, float64.
    """
    text = json.dumps(parameters, sort_keys=True)
    kept = _kept(name, text)
    if kept is not None:
        return kept
    array = compute()
    # another process may have been quicker: all go on with one array, to the last bit
    kept = _kept(name, text)
    if kept is not None:
        return kept
    with contextlib.suppress(OSError, RuntimeError):
        _write(_path(name, text), text, array)
    return array


def is_cached(name: str, parameters: Mapping[str, Any]) -> bool:
    """Return whether :func:`cached_array` would read its array and not compute it."""
    return _kept(name, json.dumps(parameters, sort_keys=True)) is not None


def _path(name: str, parameters: str) -> Path:
    return cache_directory() / name / f"{hashlib.sha256(parameters.encode()).hexdigest()[:16]}.npy"


def _kept(name: str, parameters: str) -> Array | None:
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home folder
        return _read(_path(name, parameters), parameters)
    return None


def _read(path: Path, parameters: str) -> Array | None:
    """Return the array of a file, or None when there is none of these parameters."""
    if not path.is_file():
        return None
    digest, _, content = path.read_bytes().partition(b"\n")
    if digest != _digest(parameters, content):
        return None
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False), dtype=np.float64)


def _write(path: Path, parameters: str, array: Array) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    content = buffer.getvalue()
    write_bytes(path, _digest(parameters, content) + b"\n" + content)


def _digest(parameters: str, content: bytes) -> bytes:
    return hashlib.sha256(parameters.encode() + b"\n" + content).hexdigest().encode()
