"""Networks of torchvision and timm, by their names there."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from secli.errors import InputError, SecliError, UnknownNameError, one_line
from secli.external.foreign_code import ForeignCode
from secli.external.loaded_network import Loaded, Shape, WeightsOrigin
from secli.external.weights import fetch, load_foreign_weights
from secli.provenance import sha256_file


def known_input(library: str, name: str, published: str | None) -> Shape | None:
    """Return the image shape that a network's published weights, by default its usual ones, were made for.

    Nothing is built or downloaded; None where the library has no such information.

    Raises
    ------
    InputError
        When there is no such network or no such weights.
    """
    if library == "torchvision":
        weights = _torchvision_weights(name, published or "DEFAULT") if published else _usual_weights(name)
        return None if weights is None else _torchvision_preset(weights)[0]
    config = _timm_config(name, published)
    return None if config is None else _shape(config.input_size)


def _usual_weights(name: str) -> Any:
    """Return the default weights of a torchvision network; None where it has none."""
    import torchvision.models as zoo

    _check_torchvision(name)
    try:
        return getattr(zoo.get_model_weights(name), "DEFAULT", None)
    except ValueError:
        return None


def from_torchvision(name: str, published: str | None, offline: bool, code: ForeignCode) -> Loaded:
    """Build a network of torchvision, with published weights where requested."""
    import torchvision.models as zoo

    _check_torchvision(name)
    builder = zoo.get_model_builder(name)
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None  # otherwise a backbone is downloaded
    chosen = None if published is None else _torchvision_weights(name, published)
    if chosen is not None and (classes := chosen.meta.get("categories")) is not None:
        options["num_classes"] = len(classes)
    with code(), _silent():
        network = builder(**options)
    if chosen is None:
        return Loaded(network, code)
    path = fetch(chosen.url, offline)
    load_foreign_weights(network, path, option=f"--weights {published} ({path})")
    shape, mean, std = _torchvision_preset(chosen)
    return Loaded(network, code, shape, mean, std, WeightsOrigin(chosen.name, sha256_file(path)))


def _check_torchvision(name: str) -> None:
    import torchvision.models as zoo

    known = zoo.list_models()
    if name.lower() not in known:
        raise UnknownNameError("torchvision model", name, known)


def _torchvision_weights(name: str, published: str) -> Any:
    import torchvision.models as zoo

    _check_torchvision(name)
    known = zoo.get_model_weights(name)
    if published not in known.__members__:
        raise UnknownNameError(f"weights of torchvision:{name}", published, known.__members__)
    return known[published]


def _torchvision_preset(
    weights: Any,
) -> tuple[Shape | None, tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the shape, mean and deviation of the images that weights were made for."""
    preset = weights.transforms()
    size = getattr(preset, "crop_size", None) or getattr(preset, "resize_size", None)
    mean, std = getattr(preset, "mean", None), getattr(preset, "std", None)
    shape = None
    if size:
        sides = [int(side) for side in size] if isinstance(size, (list, tuple)) else [int(size)]
        shape = (3, sides[0], sides[-1])
    return shape, None if mean is None else tuple(mean), None if std is None else tuple(std)


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise InputError("timm: is not installed; install it with 'pip install secli[timm]'") from None


def _timm_name(name: str, published: str | None) -> str:
    """Return the name with the tag of its weights, after checking both."""
    timm = _timm()
    base, _, tag = name.partition(".")
    if name.startswith(("hf-hub:", "hf_hub:")):
        return name
    if not timm.is_model(base):
        raise UnknownNameError("timm model", name, timm.list_models())
    tag = published if published not in (None, "DEFAULT") else tag
    if tag:
        tags = [full.partition(".")[2] for full in timm.list_models(f"{base}.*", pretrained=True)]
        if tag not in tags:
            raise UnknownNameError(f"weights of timm:{base}", tag, [*filter(None, tags), "DEFAULT"])
        return f"{base}.{tag}"
    if published is not None and not timm.list_models(base, pretrained=True):
        raise InputError(f"--weights {published}: timm has no weights for {base}")
    return base


def _timm_config(name: str, published: str | None) -> Any:
    full = _timm_name(name, published)
    return _timm().models.get_pretrained_cfg(full.removeprefix("hf-hub:"), allow_unregistered=True)


def from_timm(
    name: str, shape: Shape | None, published: str | None, offline: bool, code: ForeignCode
) -> Loaded:
    """Build a network of timm, with published weights where requested."""
    timm = _timm()
    full = _timm_name(name, published)
    options: dict[str, Any] = {"pretrained": published is not None}
    if shape is not None:
        if shape[0] != 3:
            options["in_chans"] = shape[0]
        config = None if full.startswith("hf") else _timm_config(name, published)
        if config is not None and config.fixed_input_size:
            options["img_size"] = shape[1:]
    with code(), _hub_offline(offline), _silent():
        try:
            network = timm.create_model(full, **options)
        except Exception as error:
            if published is None:
                size = "" if shape is None else f" for images of {_times(shape)}"
                raise InputError(f"timm:{name}: cannot be built{size}: {one_line(error)}") from None
            raise _timm_failure(name, full, offline, error) from None
    if published is None:
        return Loaded(network, code)
    config = network.pretrained_cfg
    own = _shape(config["input_size"]) if shape is None else shape
    tag = config.get("tag") or published
    return Loaded(network, code, own, tuple(config["mean"]), tuple(config["std"]), WeightsOrigin(tag))


def _timm_failure(name: str, full: str, offline: bool, error: Exception) -> SecliError:
    config = _timm().models.get_pretrained_cfg(full.removeprefix("hf-hub:"), allow_unregistered=True)
    origin = (getattr(config, "hf_hub_id", None) or getattr(config, "url", None) or full) if config else full
    if offline:
        return InputError(
            f"--weights: {full} is not in the cache of timm ({origin}); leave --offline out, or give a FILE with its "
            "weights"
        )
    return SecliError(
        f"--weights: cannot get {full} from {origin} ({one_line(error)}); download its weights by hand and give "
        f"them as timm:{name} --weights FILE"
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence the libraries' remarks on initialisation and on retried downloads."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _hub_offline(offline: bool) -> Iterator[None]:
    """Keep timm's download library off the network."""
    if not offline:
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _shape(size: Any) -> Shape:
    channels, height, width = (int(length) for length in size)
    return channels, height, width


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))
