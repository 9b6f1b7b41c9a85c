"""The classes of a network by name: the categories of published weights, and ImageNet's names and wnids."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence

IMAGENET = 1000
"""Classes of ImageNet-1k: a network with so many outputs is taken to order them as ImageNet does."""
WNID = re.compile(r"n\d{8}")


def class_names(target: str, published: str | None, outputs: int) -> dict[str, int]:
    """Return the class of each name that a network's classes are known by; empty where none is.

    Names are those of torchvision's weights, or of ImageNet where the network has 1000 outputs, there with the wnids
    where timm is installed, which alone lists them. A name that two classes share is left out.

    Parameters
    ----------
    target : str
        The network, as ``torchvision:resnet18``.
    published : str, optional
        The name of its published weights.
    outputs : int
        How many classes it tells apart.
    """
    own = _categories(target, published)
    if len(own) != outputs:
        own = _imagenet() if outputs == IMAGENET else []
    names = [plain_name(name) for name in own]
    known = {name: index for index, name in enumerate(names) if names.count(name) == 1}
    wnids = _wnids() if outputs == IMAGENET else []
    return {**known, **{wnid: index for index, wnid in enumerate(wnids)}}


def plain_name(name: str) -> str:
    """Return a name without what writers of folders change: case, and underscores for blanks.

    Examples
    --------
    >>> plain_name("Great_White Shark")
    'great white shark'
    """
    return " ".join(name.casefold().replace("_", " ").split())


def matched(folders: Sequence[str], known: Mapping[str, int]) -> list[int] | str:
    """Return the class of each folder, or the first folder that is none.

    Examples
    --------
    >>> matched(["Tench", "great_white_shark"], {"tench": 0, "great white shark": 2})
    [0, 2]
    >>> matched(["tench", "holiday"], {"tench": 0})
    'holiday'
    """
    lost = next((folder for folder in folders if plain_name(folder) not in known), None)
    return [known[plain_name(folder)] for folder in folders] if lost is None else lost


def _categories(target: str, published: str | None) -> list[str]:
    library, _, name = target.partition(":")
    if library != "torchvision" or published is None:
        return []
    import torchvision.models as zoo

    weights = zoo.get_model_weights(name).__members__.get(published)
    return [] if weights is None else list(weights.meta.get("categories", ()))


def _imagenet() -> list[str]:
    from torchvision.models import ResNet18_Weights

    return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def _wnids() -> list[str]:
    """Return ImageNet's wnids in the order of its classes; empty without timm."""
    try:
        data = importlib.import_module("timm.data")
    except ImportError:
        return []
    return list(data.ImageNetInfo().label_names())
