"""Facts of a run that follow from others: the size of what the network sees, the system behind a model's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from secli.catalogue import MODELS

PLAIN, AUGMENTED = "plain", "p"
# A dataset with other parameters than its protocol's standard ones carries their hash.
_HASHED = re.compile(r"^(.+)-[0-9a-f]{6,}$")


def base_dataset(name: str) -> str:
    """Return the protocol behind a dataset's name: the name without the hash of other sizes, factors or side.

    Examples
    --------
    >>> base_dataset("mnist-scale-901a1f98"), base_dataset("mnist-scale")
    ('mnist-scale', 'mnist-scale')
    """
    match = _HASHED.match(name)
    return match[1] if match else name


def size(name: str, options: Mapping[str, Any]) -> int | None:
    """Return the side in pixels that the network sees, enlargement included; None where nothing tells it.

    Examples
    --------
    >>> size("mnist_cnn_56", {"image_size": 28, "upsampling": 2})
    56
    """
    side, times = options.get("image_size"), options.get("upsampling", 1)
    if isinstance(side, int) and isinstance(times, int):
        return side * times
    return MODELS[name].side if name in MODELS.own else None


def system(name: str) -> str:
    """Return the name that a network shares with its variants of another size or for another training.

    Examples
    --------
    >>> system("mnist_ses_scalar_28p"), system("dss_v1")
    ('mnist_ses_scalar', 'dss_v1')
    """
    return MODELS[name].system if name in MODELS.own else name


def net(name: str) -> str:
    """Return ``p`` for a net made for augmented training, else ``plain``."""
    return AUGMENTED if name in MODELS.own and MODELS[name].augmented else PLAIN


def published_crossing(name: str, augment: str | None) -> bool:
    """Say whether net and augmentation belong together as published.

    A p net belongs to augmented training, its twin to plain training; a net without such a twin belongs to both.
    """
    if net(name) == AUGMENTED:
        return augment == "scale"
    return augment != "scale" or not _has_twin(name)


def _has_twin(name: str) -> bool:
    """Say whether a net has a variant of its size for augmented training."""
    here = (system(name), MODELS[name].side if name in MODELS.own else None)
    return any(
        (MODELS[other].system, MODELS[other].side) == here and MODELS[other].augmented for other in MODELS.own
    )
