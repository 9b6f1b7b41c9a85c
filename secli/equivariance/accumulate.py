"""One tap at one factor: images come in batch by batch, rows of the record come out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from secli.config import Metric
from secli.equivariance.error import compare, measurable, metric_value, squared_norm
from secli.equivariance.features import tensors
from secli.equivariance.selection import ALL, Per, Selection, selections
from secli.equivariance.statistics import bootstrap_interval
from secli.fields import Acted, Canvas, Field, small_levels, without_levels
from secli.models.contract import Features
from secli.records import CurveRow

SMALLEST_PLANE = 4
"""A shrunk map of fewer cells has no scale that could be compared."""
FLOORED = 200
"""Images after which the floor is known well enough: it is a property of the grid, and costs as much as Δ."""
SMALLEST_SHARE = 0.1
"""When a smaller share of the cells is compared, the value is null."""


class Reading:
    """The error of one part of a tap, image by image.

    Parameters
    ----------
    metric : str
        Which error.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.errors: list[Float64[Tensor, "n"]] = []
        self.floors: list[Float64[Tensor, "n"]] = []
        self.shares: list[float] = []
        self.dead = 0
        self.broken = 0

    def add(
        self, raw: Sequence[Tensor], acted: Acted, actual: Sequence[Tensor], halves: Sequence[Tensor] | None
    ) -> None:
        """Compare one batch.

        Parameters
        ----------
        raw : sequence of tensors
            Φ(f), for the size of rounding errors.
        acted : Acted
            L_sΦ(f), its background taken away.
        actual : sequence of tensors
            Φ(L_s f) likewise.
        halves : sequence of tensors
            L_√s L_√s Φ(f) likewise, compared over the cells that the whole step knows; None once the floor is known.
        """
        share = compared_share(acted)
        self.shares.append(share)
        if share == 0:
            return
        comparison = compare(acted, actual)
        size = torch.stack([squared_norm(tensor) for tensor in raw]).sum(0)
        finite, alive = measurable(comparison, size, raw[0].dtype)
        self.broken += int((~finite).sum())
        self.dead += int((finite & ~alive).sum())
        kept = finite & alive
        self.errors.append(metric_value(comparison, self.metric)[kept].cpu())
        if halves is not None:
            floors = metric_value(compare(acted, halves, comparison.expected), self.metric)
            self.floors.append(floors[kept].cpu())

    @property
    def share(self) -> float | None:
        """The share of cells compared, over all batches."""
        return sum(self.shares) / len(self.shares) if self.shares else None

    def values(self) -> Float64[Tensor, "n"]:
        """Return the errors of all images so far that could be measured."""
        return torch.cat(self.errors) if self.errors else torch.empty(0, dtype=torch.float64)

    def reason(self, images: int, border: float) -> str | None:
        """Say why there is no value of so many images, with so many pixels left out at the edges, if so."""
        share = self.share
        if share is not None and share < SMALLEST_SHARE:
            hint = f" with a border of {border:.3g} px (--border chooses another)" if border else ""
            return f"only {share:.1%} of the cells can be compared{hint}"
        if len(self.values()) > 0:
            return None
        if self.broken:
            return f"the features of {self.broken} of {images} images are not finite"
        return f"dead tap: L_sΦ(f) vanishes for all {images} images"


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
    per : sequence of str
        ``level``, ``channel``: also each of them by itself.
    smallest_plane : float
        Cells that the picture must cover.
    """

    def __init__(
        self,
        field: Field,
        factor: float,
        metric: Metric,
        per: Sequence[Per] = (),
        smallest_plane: float = SMALLEST_PLANE,
    ) -> None:
        self.field = field
        self.factor = factor
        self.metric: Metric = metric
        self.per = per
        self.smallest_plane = smallest_plane
        self.reason: str | None = None
        self.cells: float | None = None
        self.acted: Acted | None = None  # of the last batch: levels and lattice are the same for all
        self.border = 0.0
        self.small: list[int] = []  # levels of a pyramid that hold too few cells
        self.floored = 0
        self.readings: dict[Selection, Reading] = {ALL: Reading(metric)}

    def add(self, raw: Features, answer: Features, base: Features, actual: Features, canvas: Canvas) -> None:
        """Compare one batch.

        Parameters
        ----------
        raw, answer : tensor or list
            Φ(f) and Φ(L_s f): what they show of the cells that can be compared, and of the size of rounding errors.
        base : tensor or list
            Φ(f) with its background taken away.
        actual : tensor or list
            Φ(L_s f) likewise.
        canvas : Canvas
            The pictures.
        """
        self.border = canvas.border
        plane = self.field.smallest_plane(base)
        self.cells = None if plane is None else plane * min(1.0, self.factor)
        if self.cells is not None and self.cells < self.smallest_plane - 1e-9:  # 12 cells at s = 1/3 are four
            self.reason = (
                f"the picture covers {self.cells:.2g} cells of this tap, fewer than {self.smallest_plane:g}"
            )
            return
        acted = self.field.act(base, self.factor, canvas)
        acted = self.field.compared(acted, raw, answer, self.factor, canvas)
        known = acted.levels_used
        self.small = small_levels(acted, self.factor, self.smallest_plane)
        acted = without_levels(acted, self.small)
        self.acted = acted._replace(features=[], masks=[])
        if acted.levels_used == 0:
            self.reason = (
                f"no scale level of this tap maps onto another at this factor (0 of {acted.levels_total})"
            )
            if known:
                self.reason += f" on which the picture covers {self.smallest_plane:g} cells"
            return
        halves = None
        if self.floored < FLOORED:
            halves = self.field.act(base, self.factor, canvas, steps=2).features
            self.floored += len(halves[0])
        raws, actuals = tensors(raw), tensors(actual)
        for selection in selections(base, acted, self.per):
            reading = self.readings.setdefault(selection, Reading(self.metric))
            if selection == ALL:
                reading.add(raws, acted, actuals, halves)
            else:
                parts = (
                    selection.of(raws),
                    selection.acted(acted),
                    selection.of(actuals),
                    (None if halves is None else selection.of(halves)),
                )
                reading.add(*parts)

    def rows(self, tap: str, images: int) -> list[CurveRow]:
        """Return the rows of the record: means with their intervals, or null with the reason."""
        return [self._row(tap, images, selection, reading) for selection, reading in self.readings.items()]

    def row(self, tap: str, images: int) -> CurveRow:
        """Return the row of the whole tap."""
        return self._row(tap, images, ALL, self.readings[ALL])

    def _row(self, tap: str, images: int, selection: Selection, reading: Reading) -> CurveRow:
        reason = self.reason or reading.reason(images, self.border)
        if self.reason is None and selection.level is not None and reading.share == 0 and not self.border:
            reason = "L_s would take this level from off the stack"
            if selection.level in self.small:
                reason = f"the picture covers fewer than {self.smallest_plane:g} cells of this level"
        errors = reading.values()
        mean = median = low = high = floor = None
        if reason is None:
            low, high = bootstrap_interval(errors.numpy())
            mean, median = float(errors.mean()), float(errors.quantile(0.5))
            floors = torch.cat(reading.floors)
            floor = float(floors.mean()) if len(floors) else None
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
            dropped=reading.dead + reading.broken,
            levels_used=self.acted.levels_used if self.acted else None,
            levels_total=self.acted.levels_total if self.acted else None,
            on_lattice=self.acted.on_lattice if self.acted else None,
            level=selection.level,
            channel=selection.channel,
            compared=reading.share,
            border=self.border,
            reason=reason,
        )


def compared_share(acted: Acted) -> float:
    """Return the share of the tap's cells that are compared, over all levels and channels, 0 to 1."""
    kept = [
        features[0].numel() * (1.0 if mask is None else float(mask.double().mean()))
        for features, mask in zip(acted.features, acted.masks, strict=True)
    ]
    return sum(kept) / sum(features[0].numel() for features in acted.features)
