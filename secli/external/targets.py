"""Networks that are not of the registry, by what the user calls them: torchvision, timm, or a factory in Python."""

from __future__ import annotations

import os
import re
from pathlib import Path

from secli.errors import InputError
from secli.external.factories import code_of_factory, from_factory
from secli.external.foreign_code import ForeignCode
from secli.external.loaded_network import Loaded, Shape, WeightsOrigin
from secli.external.materialise import check_values, complete
from secli.external.torchvision_timm import from_timm, from_torchvision, known_input
from secli.external.weights import STATE_ALONE, load_weights
from secli.provenance import names_a_file

__all__ = [
    "Loaded",
    "Shape",
    "WeightsOrigin",
    "is_external",
    "load_target",
    "own_name",
    "same_network",
    "suggested_input",
]

TARGET = re.compile(r"(?P<place>.+?):(?P<name>[^:].*)")
LIBRARIES = ("torchvision", "timm")


def is_external(target: str) -> bool:
    """Say whether a target names a network outside the registry: ``WHERE:NAME``, and no directory of that name.

    Examples
    --------
    >>> is_external("torchvision:resnet18"), is_external("nets/mine.py:small"), is_external("runs/cnn/digits-r0-s0")
    (True, True, False)
    """
    return TARGET.fullmatch(target) is not None and not Path(target).is_dir()


def own_name(target: str) -> str:
    """Return the one name of a network that can be called by several: a file's path is written the short way.

    Examples
    --------
    >>> own_name("./nets/../mine.py:small"), own_name("timm:vit_tiny_patch16_224")
    ('mine.py:small', 'timm:vit_tiny_patch16_224')
    """
    match = TARGET.fullmatch(target)
    if match is None or not match["place"].endswith(".py"):
        return target
    return f"{os.path.normpath(match['place'])}:{match['name']}"


def same_network(target: str) -> str:
    """Return what two names of one network have in common: its file or its run directory, wherever it is seen from."""
    if Path(target).is_dir():
        return str(Path(target).resolve())
    match = TARGET.fullmatch(target)
    if match is None or not match["place"].endswith(".py"):
        return target
    return f"{Path(match['place']).resolve()}:{match['name']}"


def load_target(
    target: str,
    shape: Shape | None,
    weights: str | None,
    offline: bool,
    *,
    state: str | None = None,
    seed: int = 0,
) -> Loaded:
    """Build a network outside the registry, with weights where they are asked for.

    Parameters
    ----------
    target : str
        What the user calls it.
    shape : tuple, optional
        Channels, height and width of the images, where the user says so.
    weights : str, optional
        A file, or the name of published weights.
    offline : bool
        Never download.
    state : str, optional
        Which of several state dicts in the file.
    seed : int
        Of freshly drawn weights.

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
    if state is not None and (weights is None or published is not None):
        raise InputError(STATE_ALONE.format(state))
    if place in LIBRARIES:
        code = ForeignCode(target, seed=seed)
        if place == "torchvision":
            loaded = from_torchvision(name, published, offline, code)
        else:
            loaded = from_timm(name, shape, published, offline, code)
    else:
        if published is not None:
            raise InputError(
                f"--weights {published}: no such file; published weights are known only of torchvision: and timm:"
            )
        code = code_of_factory(target, place, seed)
        with code():
            loaded = Loaded(from_factory(target, place, name), code)
    known = shape or loaded.input_shape or suggested_input(target, weights)
    with code():
        complete(loaded.network, known, target)
        if weights is not None and published is None:
            path = Path(weights)
            loaded = loaded._replace(origin=load_weights(loaded.network, path, state))
        check_values(loaded.network, target)
    return loaded._replace(input_shape=known)


def suggested_input(target: str, weights: str | None = None) -> Shape | None:
    """Return the image shape that published weights, by default the usual ones, were made for; None: nobody says.

    Nothing is built or downloaded. A measure resizes its pictures to it when the user asks for no other.

    Raises
    ------
    InputError
        When there is no such network or no such weights.
    """
    place, _, name = target.partition(":")
    published = None if weights is None or names_a_file(weights) else weights
    return known_input(place, name, published) if place in LIBRARIES else None
