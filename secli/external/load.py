"""External networks by the user's target: ``torchvision:resnet18``, ``timm:…``, ``file.py:factory``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from secli.errors import InputError
from secli.external.adapt import adapt
from secli.external.field_text import parse_fields
from secli.external.hooked_model import DeclaredModel, ExternalModel
from secli.external.loaded_network import Loaded, Shape, WeightsOrigin
from secli.external.tap_list import ListedTap, list_taps
from secli.external.targets import is_external, load_target, own_name, same_network, suggested_input
from secli.models.entrance import Normalise

__all__ = [
    "DeclaredModel",
    "ExternalModel",
    "ListedTap",
    "is_external",
    "list_taps",
    "load_external",
    "own_name",
    "same_network",
    "suggested_input",
]

Numbers = float | Sequence[float]


def load_external(
    target: str,
    *,
    taps: Sequence[str] | None,
    fields: Sequence[str] = (),
    input_shape: Shape | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    weights: str | None = None,
    state: str | None = None,
    offline: bool = False,
    seed: int = 0,
    check_taps: bool = True,
) -> ExternalModel:
    """Load a network outside the registry, in eval mode, on the CPU, and probe the geometry of its taps.

    Parameters
    ----------
    target : str
        ``torchvision:NAME``, ``timm:NAME``, ``package.module:factory`` or ``path/file.py:factory``; a factory is
        called without arguments and returns a ``torch.nn.Module``.
    taps : sequence of str, optional
        Module names or shell globs (``*`` within a part of a name, ``**`` across), ``name@k`` for the k-th of
        several calls, ``logits``. Default: the modules that a field was declared for, and the outermost ones that
        return feature maps.
    fields : sequence of str
        ``PATTERN=FIELD`` or ``FIELD``; the last one that matches a tap is used. Undeclared maps (N, C, H, W) are
        planes, (N, D) and (N, C, 1, 1) are invariant; a stride or origin that was not declared is probed.
    input_shape, mean, std, state, offline
        As for ``secli.load_model``.
    weights : str, optional
        A file, or the name of published weights (``DEFAULT`` for the usual ones); default: freshly drawn.
    seed : int
        Seed of freshly drawn weights. The state of the process is restored.
    check_taps : bool
        Whether its taps are checked and probed; ``list_taps`` does so for all at once.

    Raises
    ------
    InputError
        When target, taps, fields, shape, normalisation or weights do not fit; one line that names which.
    SecliError
        When a download fails.
    """
    declared = parse_fields(fields)
    target = own_name(target)
    loaded = load_target(target, input_shape, weights, offline, state=state, seed=seed)
    shape = loaded.input_shape
    if shape is None:
        raise InputError(f"{target}: does not say what images it takes; give --input, for example 3x224x224")
    normalise, normalisation = _normalisation(loaded, shape[0], mean, std)
    with loaded.code():
        loaded.network.eval()
    model = adapt(
        loaded.network, normalise, shape, taps, declared, target, code=loaded.code, check_taps=check_taps
    )
    model.description = {
        "target": target,
        **weights_record(loaded.origin),
        "input": list(shape),
        **normalisation,
    }
    return model.eval()


def weights_record(origin: WeightsOrigin | None) -> dict[str, Any]:
    """Return the origin of weights as entries of a record."""
    if origin is None:
        return {"weights": None, "weights_sha256": None}
    more = {
        "weights_state": origin.state,
        "weights_prefix": origin.prefix,
        "weights_left_out": origin.left_out,
    }
    found = {key: list(value) if isinstance(value, tuple) else value for key, value in more.items() if value}
    return {"weights": origin.name, "weights_sha256": origin.digest, **found}


def _normalisation(
    loaded: Loaded, channels: int, mean: Numbers | None, std: Numbers | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the module that normalises pixels and its entries in a record; flags win over the weights' own."""
    values: dict[str, tuple[float, ...]] = {}
    for key, given, own, usual in (("mean", mean, loaded.mean, 0.0), ("std", std, loaded.std, 1.0)):
        chosen: Numbers = given if given is not None else own if own is not None else usual
        numbers = tuple(map(float, chosen)) if isinstance(chosen, Sequence) else (float(chosen),)
        if len(numbers) == 1:
            numbers *= channels
        elif len(numbers) != channels and given is None:
            numbers = (sum(numbers) / len(numbers),) * channels  # published for colour, used in grey
        if len(numbers) != channels:
            raise InputError(
                f"--{key}: {len(numbers)} values for images of {channels} channel{'s' * (channels > 1)}; give "
                + ("1" if channels == 1 else f"1 or {channels}")
            )
        if not all(abs(number) < float("inf") for number in numbers):
            raise InputError(f"--{key}: the values must be finite numbers")
        if key == "std" and min(numbers) <= 0:
            raise InputError("--std: the values must be greater than 0")
        values[key] = numbers
    entries = {key: list(numbers) for key, numbers in values.items()}
    if values == {"mean": (0.0,) * channels, "std": (1.0,) * channels}:
        return nn.Identity(), entries
    return Normalise(channels, values["mean"], values["std"]), entries
