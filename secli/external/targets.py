"""Networks outside the registry, by the user's target: torchvision, timm, or a factory in Python."""

from __future__ import annotations

import os
import re
from pathlib import Path

from secli.errors import InputError
from secli.external.factories import code_of_factory, from_factory
from secli.external.foreign_code import ForeignCode
from secli.external.loaded_network import Loaded, Shape
from secli.external.materialise import check_values, complete
from secli.external.torchvision_timm import from_timm, from_torchvision, known_input
from secli.external.weights import STATE_ALONE, load_foreign_weights
from secli.provenance import names_a_file

TARGET = re.compile(r"(?P<location>.+?):(?P<name>[^:].*)")
LIBRARIES = ("torchvision", "timm")


def is_external(target: str) -> bool:
    """Return whether a target names a network outside the registry: ``WHERE:NAME``, and no directory of that name.

    Examples
    --------
    >>> is_external("torchvision:resnet18"), is_external("nets/mine.py:small"), is_external("runs/cnn/digits-r0-s0")
    (True, True, False)
    """
    return TARGET.fullmatch(target) is not None and not Path(target).is_dir()


def own_name(target: str) -> str:
    """Return the canonical name of a network: a file's path is written the short way.

    Examples
    --------
    >>> own_name("./nets/../mine.py:small"), own_name("timm:vit_tiny_patch16_224")
    ('mine.py:small', 'timm:vit_tiny_patch16_224')
    """
    match = TARGET.fullmatch(target)
    if match is None or not match["location"].endswith(".py"):
        return target
    return f"{os.path.normpath(match['location'])}:{match['name']}"


def same_network(target: str) -> str:
    """Return an identity shared by all names of one network: its absolute file or run directory."""
    if Path(target).is_dir():
        return str(Path(target).resolve())
    match = TARGET.fullmatch(target)
    if match is None or not match["location"].endswith(".py"):
        return target
    return f"{Path(match['location']).resolve()}:{match['name']}"


def load_target(
    target: str,
    shape: Shape | None,
    weights: str | None,
    offline: bool,
    *,
    state: str | None = None,
    seed: int = 0,
) -> Loaded:
    """Build a network outside the registry, with weights of a file or published ones where requested.

    ``shape`` is that of the images, where the user gives it; ``state`` chooses among several state dicts of a file.

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
    location, name = match["location"], match["name"]
    published = None if weights is None or names_a_file(weights) else weights
    if state is not None and (weights is None or published is not None):
        raise InputError(STATE_ALONE.format(state))
    if location in LIBRARIES:
        code = ForeignCode(target, seed=seed)
        if location == "torchvision":
            loaded = from_torchvision(name, published, offline, code)
        else:
            loaded = from_timm(name, shape, published, offline, code)
    else:
        if published is not None:
            raise InputError(
                f"--weights {published}: no such file; published weights are known only of torchvision: and timm:"
            )
        code = code_of_factory(target, location, seed)
        with code():
            loaded = Loaded(from_factory(target, location, name), code)
    known = shape or loaded.input_shape or suggested_input(target, weights)
    with code():
        complete(loaded.network, known, target)
        if weights is not None and published is None:
            path = Path(weights)
            loaded = loaded._replace(origin=load_foreign_weights(loaded.network, path, state))
        check_values(loaded.network, target)
    return loaded._replace(input_shape=known)


def suggested_input(target: str, weights: str | None = None) -> Shape | None:
    """Return the image shape that published weights, by default the usual ones, were made for; None: unknown.

    Nothing is built or downloaded. A measure resizes its pictures to it unless the user gives another.

    Raises
    ------
    InputError
        When there is no such network or no such weights.
    """
    location, _, name = target.partition(":")
    published = None if weights is None or names_a_file(weights) else weights
    return known_input(location, name, published) if location in LIBRARIES else None
