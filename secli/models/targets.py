"""Networks that are not of the registry, by what the user calls them: torchvision, timm, or a factory in Python."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from secli.errors import InputError, SecliError, UnknownNameError
from secli.models.weights import fetch, load_weights, names_a_file, read_state_dict
from secli.provenance import sha256_file

Shape = tuple[int, int, int]
TARGET = re.compile(r"(?P<place>.+?):(?P<name>[^:].*)")


class Loaded(NamedTuple):
    """A network as its maker gives it.

    Attributes
    ----------
    network
        The network, in training mode.
    input_shape
        Channels, height and width that its weights were made for, or that it insists on; None: it does not say.
    mean, std
        The normalisation that its weights were made for; None: it does not say.
    weights
        Where its weights come from, in words; None: freshly drawn.
    weights_digest
        sha256 of the file with the weights; None where there is none.
    """

    network: nn.Module
    input_shape: Shape | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    weights: str | None = None
    weights_digest: str | None = None


def is_external(target: str) -> bool:
    """Say whether a target names a network outside the registry: ``WHERE:NAME``, and no directory of that name.

    Examples
    --------
    >>> is_external("torchvision:resnet18"), is_external("nets/mine.py:small"), is_external("runs/cnn/digits-r0-s0")
    (True, True, False)
    """
    return TARGET.fullmatch(target) is not None and not Path(target).is_dir()


def load_target(target: str, shape: Shape | None, weights: str | None, offline: bool) -> Loaded:
    """Build a network outside the registry, with weights where they are asked for.

    Raises
    ------
    InputError
        When there is no such network, its code fails, or the weights do not fit; one line.
    SecliError
        When a download fails.
    """
    match = TARGET.fullmatch(target)
    if match is None:
        raise InputError(
            f"'{target}': expected torchvision:NAME, timm:NAME, package.module:factory or file.py:factory"
        )
    place, name = match["place"], match["name"]
    published = None if weights is None or names_a_file(weights) else weights
    if place == "torchvision":
        loaded = _from_torchvision(name, published, offline)
    elif place == "timm":
        loaded = _from_timm(name, shape, published, offline)
    else:
        if published is not None:
            raise InputError(
                f"--weights {published}: no such file; published weights are known only of torchvision: and timm:"
            )
        loaded = Loaded(_from_factory(target, place, name))
    if weights is None or published is not None:
        return loaded
    path = Path(weights)
    load_weights(loaded.network, read_state_dict(path), f"--weights {path}")
    return loaded._replace(weights=str(path), weights_digest=sha256_file(path))


def suggested_input(target: str, weights: str | None = None) -> Shape | None:
    """Return the image shape that published weights were made for, or that the network insists on; else None.

    Nothing is built or downloaded. A measure resizes its pictures to it when the user asks for no other.

    Raises
    ------
    InputError
        When there is no such network or no such weights.
    """
    place, _, name = target.partition(":")
    published = None if weights is None or names_a_file(weights) else weights
    if place == "torchvision" and published is not None:
        return _torchvision_preset(_torchvision_weights(name, published))[0]
    if place == "timm":
        config = _timm_config(name, published)
        if published is not None or weights is not None or config.fixed_input_size:
            return _shape(config.input_size)
    return None


def _from_torchvision(name: str, published: str | None, offline: bool) -> Loaded:
    import torchvision.models as zoo

    _check_torchvision(name)
    builder = zoo.get_model_builder(name)
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None  # otherwise a backbone is downloaded
    chosen = None if published is None else _torchvision_weights(name, published)
    if chosen is not None and (classes := chosen.meta.get("categories")) is not None:
        options["num_classes"] = len(classes)
    with _silent():
        network = builder(**options)
    if chosen is None:
        return Loaded(network)
    path = fetch(chosen.url, offline)
    load_weights(network, read_state_dict(path), f"--weights {published} ({path})")
    shape, mean, std = _torchvision_preset(chosen)
    return Loaded(network, shape, mean, std, f"torchvision {name} {chosen.name}", sha256_file(path))


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
    config = _timm().models.get_pretrained_cfg(full.removeprefix("hf-hub:"), allow_unregistered=True)
    if config is None:
        raise InputError(f"timm:{name}: says nothing about its images; give --input")
    return config


def _from_timm(name: str, shape: Shape | None, published: str | None, offline: bool) -> Loaded:
    timm = _timm()
    full = _timm_name(name, published)
    options: dict[str, Any] = {"pretrained": published is not None}
    if shape is not None:
        if shape[0] != 3:
            options["in_chans"] = shape[0]
        if not full.startswith("hf") and _timm_config(name, published).fixed_input_size:
            options["img_size"] = shape[1:]
    with _hub_offline(offline), _silent():
        try:
            network = timm.create_model(full, **options)
        except Exception as error:
            if published is None:
                size = "" if shape is None else f" for images of {_times(shape)}"
                raise InputError(f"timm:{name}: cannot be built{size}: {one_line(error)}") from None
            raise _timm_failure(name, full, offline, error) from None
    if published is None:
        return Loaded(network)
    config = network.pretrained_cfg
    own = _shape(config["input_size"]) if shape is None else shape
    return Loaded(network, own, tuple(config["mean"]), tuple(config["std"]), f"timm {full}")


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
    """Keep libraries from remarks (on initialisation, on retried downloads) that nobody here can heed."""
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
    """Keep the library that timm downloads with from the network."""
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


def _from_factory(target: str, place: str, name: str) -> nn.Module:
    """Call a factory of the user's own code."""
    with _importable(place), telling_where(target):
        module = _file_module(target, place) if place.endswith(".py") else _package_module(target, place)
        factory = _attribute(target, module, name)
        if isinstance(factory, nn.Module) or not callable(factory):
            what = (
                "a network that is built already"
                if isinstance(factory, nn.Module)
                else type(factory).__name__
            )
            raise InputError(f"{target}: is {what}; name a function without arguments that returns a network")
        if missing := _required(factory):
            raise InputError(
                f"{target}: needs the argument '{missing[0]}'; name a function without arguments that returns a network"
            )
        network = factory()
    if not isinstance(network, nn.Module):
        raise InputError(f"{target}: returned {type(network).__name__}, not a torch.nn.Module")
    return network


@contextlib.contextmanager
def _importable(place: str) -> Iterator[None]:
    """Let user code import its neighbours: those of the file, or of the current directory."""
    directory = str(Path(place).resolve().parent) if place.endswith(".py") else str(Path.cwd())
    sys.path.insert(0, directory)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(directory)


def _file_module(target: str, place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise InputError(f"{target}: no such file: {place}")
    name = f"secli_user_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _package_module(target: str, place: str) -> ModuleType:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", place):
        raise InputError(f"{target}: '{place}' is neither torchvision, timm, a Python module nor a .py file")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise InputError(
                f"{target}: no module named '{error.name}'; for a file write path/file.py:name"
            ) from None
        raise


def _attribute(target: str, module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            functions = [
                key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
            ]
            raise UnknownNameError(f"factory in '{target}',", part, functions)
        found = getattr(found, part)
    return found


def _required(factory: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a factory cannot do without."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in kinds]


@contextlib.contextmanager
def telling_where(target: str) -> Iterator[None]:
    """Turn an error in foreign code into one line with its file and line number."""
    try:
        yield
    except SecliError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{target}: {where(error)}: {type(error).__name__}: {one_line(error)}") from None


def where(error: BaseException) -> str:
    """Return ``file:line`` of the innermost frame of an error that is not of an installed library, else of any."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")
    ]
    here = str(Path(__file__).parent)
    own = [
        frame
        for frame in frames
        if "site-packages" not in frame.filename
        and not frame.filename.startswith((here, str(Path(contextlib.__file__).parent)))
    ]
    chosen = (own or frames)[-1:]
    return f"{_short(chosen[0].filename)}:{chosen[0].lineno}" if chosen else "unknown place"


def _short(filename: str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(filename).relative_to(Path.cwd()))
    return filename


def one_line(error: BaseException) -> str:
    """Return an error's message in one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}…"


def _shape(size: Any) -> Shape:
    channels, height, width = (int(length) for length in size)
    return channels, height, width


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))
