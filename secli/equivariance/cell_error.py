"""The error of one tap at one factor: batches of images are added, rows of the record returned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from secli.action.fields import Acted, Canvas, Field, small_levels, without_levels
from secli.equivariance.error import compare, measurable, squared_norm
from secli.equivariance.features import taken, tensors
from secli.equivariance.selection import ALL, Per, Selection, selections
from secli.equivariance.statistics import bootstrap_interval
from secli.metrics import METRICS
from secli.models.contract import Features
from secli.records.notes import Note
from secli.records.schema import CurveRow

SMALLEST_PLANE = 4
"""A shrunk map of fewer cells has no comparable scale."""
FLOORED = 200
"""Images of the floor, at most: it is a property of the grid, and costs as much as Δ."""
SMALLEST_SHARE = 0.1
"""When a smaller share of the cells is compared, the value is null."""


class ErrorSample:
    """The error of one part of a tap, image by image, in one metric."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.errors: list[Float64[Tensor, "n"]] = []
        self.floors: list[Float64[Tensor, "n"]] = []
        self.shares = Shares()
        self.dead = self.broken = self.undefined = 0

    def add(
        self,
        raw: Sequence[Tensor],
        acted: Acted,
        actual: Sequence[Tensor],
        halves: Sequence[Tensor] | None,
        size: Float64[Tensor, "n"] | None = None,
        area: float = 1.0,
    ) -> None:
        """Compare one batch.

        Parameters
        ----------
        raw : sequence of tensors
            Φ(f), for the size of rounding errors.
        acted : Acted
            L_sΦ(f), its background subtracted.
        actual : sequence of tensors
            Φ(L_s f), likewise.
        halves : sequence of tensors
            L_√s L_√s Φ(f), likewise, of the first images of the batch, compared over the known cells of the whole
            step; None once the floor is known.
        size : tensor (n,), optional
            ‖Φ(f)‖², where it is known already.
        area : float
            The share of the cells that are the picture's: what is compared is counted among these.
        """
        if self.shares.add(known_share(acted.features, acted.masks, area), len(raw[0])) == 0:
            return
        comparison = compare(acted, actual, self.metric)
        if size is None:
            size = squared_size(raw)
        finite, alive = measurable(comparison, size, raw[0].dtype)
        self.broken += int((~finite).sum())
        self.dead += int((finite & ~alive).sum())
        kept = finite & alive
        errors = METRICS[self.metric].value(comparison)
        undefined = kept & ~torch.isfinite(errors)  # of a metric that divides by ‖Φ(L_s f)‖, say
        self.undefined += int(undefined.sum())
        kept &= ~undefined
        self.errors.append(errors[kept].cpu())
        if halves is not None:
            count = len(halves[0])
            again = compare(first_images(acted, count), halves, self.metric, comparison.expected[:count])
            floors = METRICS[self.metric].value(again)[kept[:count]]
            self.floors.append(floors[torch.isfinite(floors)].cpu())

    @property
    def share(self) -> float | None:
        """The share of cells compared, over all images."""
        return self.shares.mean

    def values(self) -> Float64[Tensor, "n"]:
        """Return the errors of all images so far that could be measured."""
        return joined(self.errors)

    def reason(self, images: int, border: float) -> Note | None:
        """Return why there is no value of so many images, with so many pixels left out at the edges, if so."""
        share = self.share
        if share is not None and share < SMALLEST_SHARE:
            if border:
                return Note.of("border-leaves-few", share=share, border=border)
            return Note.of("few-compared", share=share)
        if len(self.values()) > 0:
            return None
        if self.broken:
            return Note.of("not-finite", broken=self.broken, images=images)
        if self.undefined:
            return Note.of("metric-undefined", metric=self.metric, undefined=self.undefined, images=images)
        return Note.of("dead-tap", images=images)


class TapError:
    """The error of one tap at one factor, with ``per`` also of each level or channel.

    The picture must cover ``smallest_plane`` cells; with ``floor`` the floor is measured, too.
    """

    def __init__(
        self,
        field: Field,
        factor: float,
        metric: str,
        per: Sequence[Per] = (),
        smallest_plane: float = SMALLEST_PLANE,
        floor: bool = True,
    ) -> None:
        self.field = field
        self.factor = factor
        self.metric: str = metric
        self.per = per
        self.smallest_plane = smallest_plane
        self.reason: Note | None = None
        self.cells: float | None = None
        self.acted: Acted | None = None  # of the last batch: levels and lattice are the same for all
        self.border = 0.0
        self.small: list[int] = []  # levels of a pyramid that hold too few cells
        self.unfloored = FLOORED if floor else 0  # images that the floor still needs
        self.readings: dict[Selection, ErrorSample] = {ALL: ErrorSample(metric)}

    def add(
        self,
        raw: Features,
        answer: Features,
        base: Features,
        actual: Features,
        canvas: Canvas,
        size: Float64[Tensor, "n"] | None = None,
    ) -> None:
        """Compare one batch.

        Parameters
        ----------
        raw, answer : tensor or list
            Φ(f) and Φ(L_s f), which determine the comparable cells and the size of rounding errors.
        base, actual : tensor or list
            Φ(f) and Φ(L_s f), their background subtracted.
        size : tensor (n,), optional
            ‖Φ(f)‖², where it is known already: it is the same at every factor.
        """
        self.border = max(self.border, canvas.left_out)
        plane = self.field.smallest_plane(base)
        self.cells = None if plane is None else plane * canvas.covered * min(1.0, self.factor)
        if self.cells is not None and self.cells < self.smallest_plane - 1e-9:  # 12 cells at s = 1/3 are four
            self.reason = Note.of("too-few-cells", cells=self.cells, least=self.smallest_plane)
            return
        acted = self.field.act(base, self.factor, canvas)
        acted = self.field.compared(acted, raw, answer, self.factor, canvas)
        known = acted.levels_used
        self.small = small_levels(acted, self.factor, self.smallest_plane)
        acted = without_levels(acted, self.small)
        self.acted = acted._replace(features=[], masks=[])
        if acted.levels_used == 0:
            self.reason = Note.of("no-level-maps", levels=acted.levels_total)
            if known:
                least = self.smallest_plane
                self.reason = Note.of("no-level-large-enough", levels=acted.levels_total, least=least)
            return
        halves = None
        if self.unfloored:
            few = taken(base, slice(self.unfloored))
            halves = self.field.act(few, self.factor, canvas, steps=2).features
            self.unfloored -= len(halves[0])
        raws, actuals = tensors(raw), tensors(actual)
        for selection in selections(base, acted, self.per):
            reading = self.readings.setdefault(selection, ErrorSample(self.metric))
            area = canvas.share if canvas.surround else 1.0
            if selection == ALL:
                reading.add(raws, acted, actuals, halves, size, area)
                continue
            own_halves = None if halves is None else selection.of(halves)
            reading.add(
                selection.of(raws), selection.acted(acted), selection.of(actuals), own_halves, area=area
            )

    def rows(self, tap: str, images: int) -> list[CurveRow]:
        """Return the rows of the record: means with their intervals, or null with the reason."""
        return [self._row(tap, images, selection, reading) for selection, reading in self.readings.items()]

    def row(self, tap: str, images: int) -> CurveRow:
        """Return the row of the whole tap."""
        return self._row(tap, images, ALL, self.readings[ALL])

    def _row(self, tap: str, images: int, selection: Selection, reading: ErrorSample) -> CurveRow:
        reason = self.reason or reading.reason(images, self.border)
        if self.reason is None and selection.level is not None and reading.share == 0 and not self.border:
            reason = Note.of("level-off-stack")
            if selection.level in self.small:
                reason = Note.of("level-too-small", least=self.smallest_plane)
        errors = reading.values()
        mean = median = low = high = floor = None
        if reason is None:
            low, high = bootstrap_interval(errors.numpy())
            mean, median = float(errors.mean()), float(errors.quantile(0.5))
            floors = joined(reading.floors)
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


class Shares:
    """The shares of cells that are compared, image by image: their mean does not depend on the batches."""

    def __init__(self) -> None:
        self._shares: list[tuple[float, int]] = []

    def add(self, share: float | Float64[Tensor, "n"], images: int) -> float:
        """Add a batch of so many images, with one share or one each; return their mean."""
        parts = [(share, images)] if isinstance(share, float) else [(one, 1) for one in share.tolist()]
        self._shares += parts
        return sum(one * count for one, count in parts) / images

    @property
    def mean(self) -> float | None:
        """The mean over all images; None before the first."""
        if len({share for share, _ in self._shares}) < 2:
            return self._shares[0][0] if self._shares else None
        total = math.fsum(share * count for share, count in self._shares)
        return total / sum(count for _, count in self._shares)


def joined(parts: Sequence[Float64[Tensor, "_"]]) -> Float64[Tensor, "n"]:
    """Return the numbers of all batches as one tensor."""
    return torch.cat(list(parts)) if parts else torch.empty(0, dtype=torch.float64)


def known_share(
    features: Sequence[Tensor], masks: Sequence[Bool[Tensor, "..."] | None], area: float = 1.0
) -> float | Float64[Tensor, "n"]:
    """Return the share of cells that masks keep, over all levels and channels: one, or one per image if they differ.

    Where the picture is ``area`` of the plane the share is that of the picture's cells, at most 1.
    """
    sizes = [tensor[0].numel() for tensor in features]
    kept = [
        torch.ones(1, dtype=torch.float64) if mask is None else mask.double().flatten(1).mean(1).cpu()
        for mask in masks
    ]
    share: Float64[Tensor, "n"] = sum(
        (part * size for part, size in zip(kept, sizes, strict=True)), torch.zeros(1, dtype=torch.float64)
    ) / sum(sizes)
    share = (share / area).clamp(max=1.0)
    return float(share) if len(share) == 1 else share


def squared_size(features: Sequence[Tensor]) -> Float64[Tensor, "n"]:
    """Return ‖F‖² of each image over all resolutions."""
    return torch.stack([squared_norm(tensor) for tensor in features]).sum(0)


def first_images(acted: Acted, count: int) -> Acted:
    """Return L_s of the first images of a batch; a mask for all images stays."""
    masks = [mask if mask is None or len(mask) == 1 else mask[:count] for mask in acted.masks]
    return acted._replace(features=[tensor[:count] for tensor in acted.features], masks=masks)
