"""What the callbacks share: a metric, its pictures, and the names under which its values are logged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from secli.equivariance.borders import fade_to_black
from secli.equivariance.measure import checked_pixels
from secli.equivariance.scale_metric import ScaleEquivariance
from secli.errors import InputError

PREFIX = "scale_equivariance/"
BATCH = 32


class MeasuredPictures:
    """Pictures on which a network is measured whenever it is evaluated.

    Parameters
    ----------
    images : tensor (N, C, H, W)
        Pixels in [0, 1] or uint8, some tens to hundreds.
    every : int
        Measure at every so many evaluations.
    options
        Those of :class:`secli.ScaleEquivariance`: ``factors``, ``taps``, ``fields``, ``normalise``, …

    Raises
    ------
    InputError
        On pixels outside of [0, 1], no pictures, or ``every`` below 1.
    """

    def __init__(
        self, images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"], every: int = 1, **options: Any
    ) -> None:
        self.images = checked_pixels(images)
        if len(images) == 0:
            raise InputError("images: there are none to measure on")
        if every < 1:
            raise InputError(f"every: a number of evaluations from 1, not {every}")
        self.every, self.evaluations = every, 0
        # of all pictures together: a border must not depend on how they fall into batches
        self.metric = ScaleEquivariance(**{"on_black": fade_to_black(self.images), **options})

    def due(self) -> bool:
        """Count one evaluation, and say whether it is one to measure at."""
        self.evaluations += 1
        return self.evaluations % self.every == 0

    def values(self, model: nn.Module, rank: int = 0, processes: int = 1) -> dict[str, float]:
        """Return the errors of a network by name, without those that could not be measured.

        Each of several processes measures its share of the pictures; the metric gathers them.

        Raises
        ------
        InputError
            When there are fewer pictures than processes.
        """
        if len(self.images) < processes:
            raise InputError(f"images: {len(self.images)} pictures are too few for {processes} processes")
        self.metric.reset()
        own = self.images[rank::processes]
        for batch in (own[start : start + BATCH] for start in range(0, len(own), BATCH)):
            self.metric.update(model, batch)
        compute: Callable[[], dict[str, Tensor]] = self.metric.compute
        found = {name: float(value) for name, value in compute().items()}
        return {PREFIX + name: value for name, value in found.items() if not math.isnan(value)}
