"""Weights and state on disk: whole or not at all, and read without executing anything."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from secli.errors import InputError
from secli.records.schema import ModelInfo
from secli.storage.writing import write_bytes

WEIGHTS_FILE = "model.safetensors"
STATE_FILE = "state/last.pt"
STATE_VERSION = 1

Weights = dict[str, Tensor]


def weights_of(network: nn.Module) -> Weights:
    """Return a copy of a network's parameters and persistent buffers, on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in network.state_dict().items()
    }


def save_weights(path: Path, weights: Mapping[str, Tensor], model: ModelInfo) -> None:
    """Write weights as safetensors, atomically; equal weights of one model give equal bytes.

    The model's name and options are in the header, under the single key ``secli`` (several keys would be written in
    random order).
    """
    described = json.dumps({"model": model.name, "options": model.options}, sort_keys=True)
    write_bytes(path, safetensors.torch.save(dict(weights), metadata={"secli": described}))


def load_weights(path: Path, network: nn.Module, model: ModelInfo) -> None:
    """Load weights into a network, after checking that they are this model's.

    Raises
    ------
    InputError
        When the file is missing, damaged, or holds the weights of another model.
    """
    try:
        weights = safetensors.torch.load_file(path)
        with safe_open(path, framework="pt") as file:
            described = json.loads((file.metadata() or {}).get("secli", "{}"))
        if not isinstance(described, dict):
            raise ValueError("its description is no mapping")
    except FileNotFoundError:
        raise InputError(f"{path}: no weights yet; the run has not ended an epoch") from None
    except Exception:  # a damaged file can fail in any way
        raise InputError(f"{path}: damaged weights (not a whole safetensors file)") from None
    if described.get("model", model.name) != model.name:
        raise InputError(
            f"{path}: weights of model '{described['model']}', but the record says '{model.name}'"
        )
    own = network.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in own or name not in weights:
            verb = "has no" if name in weights else "needs a"
            raise InputError(f"{path}: weights of another model: '{model.name}' {verb} tensor '{name}'")
        if own[name].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
            raise InputError(f"{path}: weights of another model than '{model.name}': '{name}' is {shapes}")
    network.load_state_dict(weights)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write all that resuming needs, atomically."""
    # through memory: a full disk is then an OSError that names its reason, not an error of torch's zip writer
    buffer = io.BytesIO()
    torch.save({"version": STATE_VERSION, **state}, buffer)
    write_bytes(path, buffer.getbuffer())


def load_state(path: Path) -> dict[str, Any] | None:
    """Read a saved state onto the CPU; None when there is none, or it is damaged or of another version."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged zip or pickle can fail in any way; all mean that it cannot be used
        return None
    usable = isinstance(state, dict) and state.get("version") == STATE_VERSION
    return state if usable else None
