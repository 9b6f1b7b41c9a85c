"""The error of a network after some epochs of its training, as a part of the epoch's line in ``metrics.jsonl``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int64, UInt8
from torch import Tensor

from secli.config import MeasureSettings
from secli.equivariance.curves import measure_curves
from secli.external.restoring import device_of, random_states_kept
from secli.models.contract import StagedModel
from secli.records.epochs import EpochAccuracy, EpochReading, EpochRow

IMAGES = 300
"""Images that are measured after an epoch, unless others are asked for."""
FACTORS = (0.8, 0.65, 0.5)
"""Factors at which they are, likewise: each costs a pass over the images."""


@dataclass(frozen=True)
class EpochMeasure:
    """Δ and accuracy over scale factors after every ``every``-th epoch; the training goes on as if nothing had been.

    Attributes
    ----------
    images, labels
        Pictures at their own scale, uint8, and their classes; those of the validation split, say.
    settings
        Of the curves.
    """

    every: int
    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"]
    settings: MeasureSettings

    def after(self, epoch: int, network: StagedModel) -> dict[str, Any] | None:
        """Return an :class:`secli.records.epochs.EpochReading` as JSON after an epoch (from 1); None if none is due."""
        if epoch % self.every:
            return None
        began = time.perf_counter()
        with random_states_kept(network):
            curves = measure_curves(
                network,
                self.images,
                self.settings,
                labels=self.labels,
                device=device_of(network),
                means_alone=True,
            )
        reading = EpochReading(
            images=min(len(self.images), self.settings.images),
            seconds=time.perf_counter() - began,
            rows=[
                EpochRow(tap=row.tap, factor=row.factor, mean=row.mean, reason=row.reason)
                for row in curves.rows
            ],
            accuracy=[EpochAccuracy(factor=row.factor, accuracy=row.accuracy) for row in curves.accuracy],
        )
        return reading.model_dump(mode="json")
