"""Weights from a file, opened without executing anything, and loaded into a network only when they fit."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from secli.errors import InputError, SecliError, one_line
from secli.external.checkpoints import TOP, Entries, chosen, few, read_content, state_dicts, under
from secli.external.foreign_code import one_line_errors
from secli.external.loaded_network import WeightsOrigin
from secli.external.weight_matching import Slots, WeightMatch, converted, fit
from secli.provenance import sha256_file
from secli.storage.writing import scratch_folder, sync_file, sync_folder

STATE_ALONE = "--state {}: chooses among the state dicts of a file; give the file by --weights FILE"


def load_foreign_weights(
    network: nn.Module, path: Path, state: str | None = None, *, option: str | None = None
) -> WeightsOrigin:
    """Load the weights of a file (safetensors or a PyTorch checkpoint); nothing is changed unless all of them fit.

    Of several state dicts in a file the one that fits is taken; where several do, ``state`` has to choose. A prefix
    that all names share is stripped where the network does not have it. Buffers that the network has only in eval
    mode are loaded in eval mode; the mode stays. ``option`` is the file's name in errors.

    Raises
    ------
    InputError
        When the file cannot be read, names are missing or left over, a shape differs, or a conversion would lose
        something; names are listed.
    """
    option = f"--weights {path}" if option is None else option
    found = state_dicts(path, read_content(path))
    candidates = dict([chosen(path, found, state)]) if state is not None else found
    training = network.training
    try:
        fits = _fits(network, candidates)
        if not fits.good:
            fits = _fits(network.train(not training), candidates, fits)
        name = _only_fit(fits, candidates, option)
        taken = fits.each[name]
        weights = converted(taken.state, fits.slots, option)
        _load(network, weights, fits.slots, _versions(candidates[name], taken.prefix, network), option)
    finally:
        if network.training is not training:
            network.train(training)
    alone = state is None and all(other in (name, TOP) for other in found)
    among = None if alone else name
    return WeightsOrigin(str(path), sha256_file(path), among, taken.prefix, taken.left_out, file=True)


class _Fits:
    """How each of several state dicts fits a network in its present mode."""

    def __init__(self, slots: Slots, each: dict[str, WeightMatch]) -> None:
        self.slots, self.each = slots, each
        self.good = [name for name, one in each.items() if not one.problems]


def _fits(network: nn.Module, candidates: Mapping[str, Entries], otherwise: _Fits | None = None) -> _Fits:
    """Return how state dicts fit; ``otherwise`` where none does."""
    slots = Slots.of(network)
    fits = _Fits(slots, {name: fit(entries, slots) for name, entries in candidates.items()})
    return fits if fits.good or otherwise is None else otherwise


def _only_fit(fits: _Fits, candidates: Mapping[str, Entries], option: str) -> str:
    """Return the name of the one state dict that fits; InputError when none does, or several."""
    if len(fits.good) == 1:
        return fits.good[0]
    if fits.good:
        raise InputError(
            f"{option}: holds {len(fits.good)} state dicts that fit ({few(fits.good)}); choose with --state KEY"
        )
    groups = [
        front
        for entries in candidates.values()
        for front in dict.fromkeys(key.partition(".")[0] for key in entries if "." in key)
        if not fit(under(entries, front), fits.slots).problems
    ]
    if groups:
        raise InputError(
            f"{option}: only its tensors under {few(groups)} fit the network; choose with --state KEY"
        )
    best = max(fits.each, key=lambda name: fits.each[name].matching)
    which = f": its state dict '{best}'" if len(candidates) > 1 else ""
    raise InputError(f"{option}{which}: does not fit the network: {'; '.join(fits.each[best].problems)}")


def _load(
    network: nn.Module, weights: dict[str, Any], slots: Slots, versions: dict[str, Any], option: str
) -> None:
    """Load weights that fit; a network without values on the meta device takes the tensors themselves."""
    empty = any(isinstance(own, Tensor) and own.is_meta for own in slots.own.values())
    state: OrderedDict[str, Any] = OrderedDict(weights)
    for key in slots.own if empty else ():
        same = [other for other in slots.tied[key] if other in weights]
        if same:
            state.setdefault(key, weights[same[0]])
    state._metadata = versions  # type: ignore[attr-defined]
    with one_line_errors(option):
        network.load_state_dict(state, strict=False, assign=empty)


def _versions(entries: Entries, prefix: str, network: nn.Module) -> dict[str, Any]:
    """Return the versions of the modules that wrote a state dict; of the present ones where it has none."""
    written: dict[str, Any] | None = getattr(entries, "_metadata", None)
    if written is None:
        own: dict[str, Any] = getattr(network.state_dict(), "_metadata", {})
        return own
    front = prefix.removesuffix(".")
    return {
        key.removeprefix(front).removeprefix("."): value
        for key, value in written.items()
        if key == front or key.startswith(prefix)
    }


def fetch(url: str, offline: bool) -> Path:
    """Return the file at an address from PyTorch's own cache, downloading it first unless forbidden.

    Raises
    ------
    InputError
        When the file is not in the cache and may not be downloaded.
    SecliError
        When the download fails; the message names the file, its address and its folder.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError

    from torch.hub import download_url_to_file, get_dir

    name = url.rsplit("/", 1)[-1]
    path = Path(get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    if offline:
        raise InputError(f"--weights: {path} is missing; put {url} there, or leave --offline out")
    match = re.search(r"-([a-f0-9]{8,})\.", name)  # torch.hub's convention: the name has its sha256's start
    try:
        with scratch_folder(path) as folder:
            download_url_to_file(url, str(folder / name), match[1] if match else None, progress=False)
            sync_file(folder / name)
            (folder / name).replace(path)
            sync_folder(path.parent)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:  # RuntimeError: another checksum
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        reason = one_line(error)
        raise SecliError(
            f"--weights: cannot download {name} from {url} ({reason}); put it at {path}"
        ) from None
    return path
