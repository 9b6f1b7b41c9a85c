"""Weights from a file, opened without executing anything, and fitted onto a network only when they fit."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secli.errors import InputError, SecliError
from secli.storage.writing import scratch_folder, sync_file, sync_folder

WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")
"""Keys under which training scripts put a state dict."""
PREFIXES = ("module.", "_orig_mod.")
"""What data parallelism and compilation put before each name."""
SHOWN = 3
SUFFIXES = frozenset((".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl"))


def names_a_file(weights: str) -> bool:
    """Say whether ``--weights`` names a file rather than published weights."""
    return Path(weights).suffix.lower() in SUFFIXES or "/" in weights or Path(weights).is_file()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file or a checkpoint, without executing what a pickle may hold.

    A checkpoint may wrap it (``{"state_dict": …}``, ``{"model": …}``) and prefix its names (``module.``).

    Raises
    ------
    InputError
        When the file is missing, damaged, holds no state dict, or wants to execute code; one line names it.
    """
    if path.is_dir():
        raise InputError(f"--weights {path}: is a directory; give a .safetensors or .pth file")
    if not path.is_file():
        raise InputError(f"--weights {path}: no such file")
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_checkpoint(path)
    return _without_prefix(_unwrapped(path, content))


def load_weights(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Put weights into a network; nothing is changed unless all of them fit.

    Parameters
    ----------
    network : nn.Module
        Where they go.
    state : mapping
        Tensors by name.
    origin : str
        What an error message calls them.

    Raises
    ------
    InputError
        When keys are missing or left over, or a shape differs; the first few are named.
    """
    expected = network.state_dict()
    missing = [
        key for key in expected if key not in state and not key.endswith("num_batches_tracked")
    ]  # old checkpoints lack the counter, which evaluation does not use
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} {_shape(value)} instead of {_shape(expected[key])}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    problems = [
        f"{len(keys)} {what} ({_few(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if problems:
        raise InputError(f"{origin}: does not fit the network: {'; '.join(problems)}")
    network.load_state_dict(dict(state), strict=False)


def fetch(url: str, offline: bool) -> Path:
    """Return the file at an address from PyTorch's own cache, downloading it first unless forbidden.

    Raises
    ------
    InputError
        When the file is not in the cache and may not be downloaded.
    SecliError
        When the download fails; the message says what, from where, and where to put it.
    """
    from http.client import HTTPException

    from torch.hub import download_url_to_file, get_dir

    name = url.rsplit("/", 1)[-1]
    place = Path(get_dir()) / "checkpoints" / name
    if place.is_file():
        return place
    if offline:
        raise InputError(f"--weights: {place} is missing; put {url} there, or leave --offline out")
    match = re.search(
        r"-([a-f0-9]{8,})\.", name
    )  # torch.hub's convention: the name carries its sha256's start
    try:
        with scratch_folder(place) as folder:
            download_url_to_file(url, str(folder / name), match[1] if match else None, progress=False)
            sync_file(folder / name)
            (folder / name).replace(place)
            sync_folder(place.parent)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:  # RuntimeError: another checksum
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SecliError(
            f"--weights: cannot download {name} from {url} ({reason}); put it at {place}"
        ) from None
    return place


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--weights {path}: not a whole safetensors file ({reason})") from None


def _read_checkpoint(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles of newer protocols, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error)) or re.search(
            r"(?:class|global) ([\w.]+)", str(error)
        )
        if "eights only load failed" in str(error) and _is_pickle(path):
            what = f"opening it would execute '{wanted[1]}'" if wanted else "opening it may execute code"
            raise InputError(
                f"--weights {path}: refused: {what}; save the state dict alone, best as safetensors"
            ) from None
        raise InputError(
            f"--weights {path}: damaged, or neither safetensors nor a PyTorch checkpoint"
        ) from None
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise InputError(
                f"--weights {path}: refused: a TorchScript archive holds code; save its state dict instead"
            ) from None
        raise InputError(f"--weights {path}: damaged or truncated checkpoint") from None
    except Exception:  # a damaged pickle can raise anything
        raise InputError(
            f"--weights {path}: damaged, or neither safetensors nor a PyTorch checkpoint"
        ) from None


def _is_pickle(path: Path) -> bool:
    """Say whether a file is a pickle or an archive that holds one."""
    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint."""
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                return _unwrapped(path, content[key])
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(key): value for key, value in content.items()}
        keys = _few([str(key) for key in content]) or "nothing"
        raise InputError(f"--weights {path}: holds no state dict (found {keys})")
    raise InputError(f"--weights {path}: holds no state dict, but {type(content).__name__}")


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _without_prefix({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def _few(keys: Iterable[str]) -> str:
    names = list(keys)
    return ", ".join(names[:SHOWN]) + ", …" * (len(names) > SHOWN)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
