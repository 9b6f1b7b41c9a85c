"""One tap at one factor: images come in batch by batch, one row of the record comes out."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from secli.config import Metric
from secli.equivariance.error import compare, measurable, metric_value, squared_norm
from secli.equivariance.statistics import bootstrap_interval
from secli.fields import Acted, Canvas, Field
from secli.models.contract import Features
from secli.records import CurveRow

SMALLEST_PLANE = 4
"""A shrunk map of fewer cells has no scale that could be compared."""
SMALLEST_SHARE = 0.1
"""When a smaller share of the cells is compared, the value is null."""


class Cell:
    """The error of one tap at one factor.

    Parameters
    ----------
    field : Field
        How L_s acts at the tap.
    factor : float
        Scale factor s.
    metric : str
        Which error.
    """

    def __init__(self, field: Field, factor: float, metric: Metric) -> None:
        self.field = field
        self.factor = factor
        self.metric = metric
        self.reason: str | None = None
        self.acted: Acted | None = None  # of the last batch: levels and lattice are the same for all
        self.errors: list[Float64[Tensor, "n"]] = []
        self.floors: list[Float64[Tensor, "n"]] = []
        self.shares: list[float] = []
        self.dead = 0
        self.broken = 0

    def add(self, raw: Features, base: Features, actual: Features, canvas: Canvas) -> None:
        """Compare one batch.

        Parameters
        ----------
        raw : tensor or list
            Φ(f), for the size of rounding errors.
        base : tensor or list
            Φ(f) with its background taken away.
        actual : tensor or list
            Φ(L_s f) likewise.
        canvas : Canvas
            The pictures.
        """
        plane = self.field.smallest_plane(base)
        cells = None if plane is None else plane * min(1.0, self.factor)
        if cells is not None and cells < SMALLEST_PLANE:
            self.reason = f"the picture covers {cells:.2g} cells of this tap, fewer than {SMALLEST_PLANE}"
            return
        acted = self.field.act(base, self.factor, canvas)
        self.acted = acted._replace(features=[], masks=[])
        if acted.levels_used == 0:
            self.reason = (
                f"no scale level of this tap maps onto another at this factor (0 of {acted.levels_total})"
            )
            return
        comparison = compare(acted, _tensors(actual))
        size = torch.stack([squared_norm(tensor) for tensor in _tensors(raw)]).sum(0)
        finite, alive = measurable(comparison, size, _tensors(raw)[0].dtype)
        self.broken += int((~finite).sum())
        self.dead += int((finite & ~alive).sum())
        kept = finite & alive
        self.errors.append(metric_value(comparison, self.metric)[kept].cpu())
        self.floors.append(self._floor(base, acted, canvas)[kept].cpu())
        self.shares.append(compared_share(acted))

    def _floor(self, base: Features, acted: Acted, canvas: Canvas) -> Float64[Tensor, "n"]:
        """Return the error of two half-steps of the spatial action, over the cells that the whole step knows."""
        halves = self.field.act(base, self.factor, canvas, steps=2)
        return metric_value(compare(acted, halves.features), self.metric)

    def row(self, tap: str, images: int) -> CurveRow:
        """Return the row of the record: the mean with its interval, or null with the reason."""
        errors = torch.cat(self.errors) if self.errors else torch.empty(0, dtype=torch.float64)
        share = sum(self.shares) / len(self.shares) if self.shares else None
        reason = self.reason
        if reason is None and share is not None and share < SMALLEST_SHARE:
            reason = f"only {share:.1%} of the cells can be compared"
        if reason is None and len(errors) == 0:
            reason = (
                f"the features of {self.broken} of {images} images are not finite"
                if self.broken
                else f"dead tap: L_sΦ(f) vanishes for all {images} images"
            )
        mean = median = low = high = floor = None
        if reason is None:
            low, high = bootstrap_interval(errors.numpy())
            mean, median = float(errors.mean()), float(errors.quantile(0.5))
            floor = float(torch.cat(self.floors).mean())
        return CurveRow(
            tap=tap,
            field=self.field.reads_as(),
            factor=self.factor,
            mean=mean,
            low=low,
            high=high,
            median=median,
            floor=floor,
            n=len(errors) if reason is None else 0,
            dropped=self.dead + self.broken,
            levels_used=self.acted.levels_used if self.acted else None,
            levels_total=self.acted.levels_total if self.acted else None,
            on_lattice=self.acted.on_lattice if self.acted else None,
            compared=share,
            reason=reason,
        )


def compared_share(acted: Acted) -> float:
    """Return the share of the tap's cells that are compared, over all levels and channels, 0 to 1."""
    kept = [
        features[0].numel() * (1.0 if mask is None else float(mask.double().mean()))
        for features, mask in zip(acted.features, acted.masks, strict=True)
    ]
    return sum(kept) / sum(features[0].numel() for features in acted.features)


def _tensors(features: Features) -> list[Tensor]:
    return features if isinstance(features, list) else [features]
