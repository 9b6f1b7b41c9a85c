"""What a protocol does to each picture, by a number drawn for it and stored in ``-factors.npy``.

A new transform is one file with its function, and its entry here.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secli.registry import Registry

if TYPE_CHECKING:
    import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True)
class Transform:
    """One way to change pictures.

    Attributes
    ----------
    draw
        From Python's generator, seeded with the realisation, and the protocol's range to the number of one picture.
    check
        Raises ``ValueError`` on a range that means nothing, beyond its order.
    function
        ``"module:function"``, (images uint8, numbers float64) to images of the same shape: as text, so that worker
        processes find it and nothing is imported before it is needed.
    """

    name: str
    summary: str
    draw: Callable[[random.Random, Range], float]
    function: str
    check: Callable[[Range], object] = lambda _: None


def apply(function: str, images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Change pictures by the function of a transform."""
    module, name = function.split(":")
    changed: np.ndarray = getattr(importlib.import_module(module), name)(images, numbers)
    return changed


def _published(generator: random.Random, factors: Range) -> float:
    generator.uniform(0, 0)  # the angle, which the published recipe draws and leaves at zero
    return generator.uniform(*factors)


def _check_scale_factors(factors: Range) -> None:
    from secli.config import check_factors  # brings pydantic, which 'secli --help' must not wait for

    check_factors(factors)


TRANSFORMS: Registry[Transform] = Registry(
    "transform",
    [
        Transform(
            "scale",
            "rescaled on its canvas by a factor U[low, high], as published",
            _published,
            "secli.datasets.published_rescaling:rescale_as_published",
            _check_scale_factors,
        ),
    ],
)
