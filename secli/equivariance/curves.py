"""Equivariance curves: the error at every tap and factor, with floor, interval and accuracy, in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from secli.action.fields import Field
from secli.config import MeasureSettings
from secli.datasets.photographs import Photographs
from secli.equivariance.accuracy import accuracy_rows
from secli.equivariance.batching import batches
from secli.equivariance.borders import DARK, fade_to_black, ring
from secli.equivariance.comparison import cells_of
from secli.equivariance.controls import pointwise_readings
from secli.equivariance.embedding import EmbeddingReader
from secli.equivariance.evaluation_mode import measuring
from secli.equivariance.factors import factors_of
from secli.equivariance.features import tensors
from secli.equivariance.prediction_change import cosines as cosines_of
from secli.equivariance.row_warnings import warnings
from secli.equivariance.views import surroundings_of, views_of
from secli.errors import InputError, UnknownNameError
from secli.external.batch_independence import mixing
from secli.external.missing_taps import UNKNOWN_FIELD, in_order, missing_taps, tap_remarks
from secli.models.contract import Features, Model
from secli.records.notes import Note
from secli.records.schema import AccuracyRow, CurveRow, Surroundings

CONTROLLED = 200
"""Images of the pointwise control, for the remarks only."""
REPEATED = 1e-3
"""Allowed difference of two passes over the same pictures: some devices round differently each time."""
OUTPUT = "logits"
"""The tap of a network's logits."""


@dataclass(frozen=True)
class Curves:
    """A measurement: one row per tap and factor, one accuracy row per factor, the batch, and remarks.

    ``embedding`` says where the embedding was read (:mod:`secli.equivariance.embedding`), ``surroundings`` what was
    around the pictures.
    """

    rows: list[CurveRow]
    accuracy: list[AccuracyRow]
    batch: int
    remarks: tuple[str, ...] = ()
    embedding: str | None = None
    surroundings: Surroundings | None = None


def measure_curves(
    model: Model,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    settings: MeasureSettings,
    *,
    labels: Int64[Tensor, "n"] | None = None,
    classes: int | None = None,
    on_black: bool | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
    means_alone: bool = False,
    photographs: Photographs | None = None,
) -> Curves:
    """Measure Δ at every requested tap and factor, and the accuracy on the rescaled images.

    ``Δ_s(f) = ‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖²``, with Φ(·) − Φ(0) for Φ(·) unless ``background`` is none,
    and ``floor_s = ‖L_√s L_√s Φ(f) − L_s Φ(f)‖² / ‖L_s Φ(f)‖²``, the cost of the grid alone.

    Parameters
    ----------
    model : Model
        A network with declared taps; it is put on ``device`` and measured in eval mode.
    images : tensor (N, C, H, W)
        Pixels, float in [0, 1] or uint8, at their own scale; the first ``settings.images`` are taken.
    settings : MeasureSettings
        Factors, taps, metric, background, border, number of images, batch size.
    labels : tensor (N,), optional
        Classes; without them the accuracy is null and the agreement remains.
    classes : int, optional
        How many classes the images have; None: at least those in ``labels``.
    on_black : bool, optional
        Whether the pictures fade to black at their edges, so that no frame appears; None: as the images show.
    on_progress : callable, optional
        Called with (pictures passed through the network, those in all: each once per factor).
    means_alone : bool
        Leave out what a mean is judged by, and costs as much: the floor, and the warning by the pointwise control.
    photographs : Photographs, optional
        What the images are windows of, in the same order: L_s f is then read from the photographs, so that no frame
        appears, and taps that take larger pictures are measured on enlarged windows. ``on_black`` does not matter then.

    Returns
    -------
    Curves
        Null values carry their reason; a mean is over the images that could be measured.

    Raises
    ------
    UnknownNameError
        When a requested tap is not declared.
    InputError
        When there are no images, or the features of a picture depend on the other pictures of its batch.
    """
    if len(images) == 0:
        raise InputError("there are no images to measure on")
    images = images[: settings.images]
    black = fade_to_black(images) if on_black is None else on_black
    fields = fields_of_taps(model, settings.taps)
    factors = factors_of(settings, fields.values())
    if not fields:
        return _nothing(model, settings, factors, len(images))
    cells = {factor: cells_of(fields, factor, settings, floor=not means_alone) for factor in factors}
    passes = [1.0, *(factor for factor in factors if factor != 1)]
    outputs: dict[float, list[Tensor | None]] = {factor: [] for factor in passes}
    rings: dict[float, list[Tensor]] = {factor: [] for factor in passes if factor > 1}
    inner_rings: dict[float, list[Tensor]] = {factor: [] for factor in rings}
    cosines: dict[float, list[Tensor]] = {factor: [] for factor in passes}
    reader = EmbeddingReader(model)
    sizes = []
    with measuring(model, device) as dtype:
        views = views_of(model, fields, settings, images, black, factors, photographs, device)
        first = next(batches(images[:2], 2, device, dtype))
        check_repeats(model, first)
        alone = check_neighbours(model, first, settings.batch)
        empty = first[:1] if settings.background == "empty" else None
        total, done = sum(len(view.pictures) for view in views) * len(passes), 0
        for view in views:
            comparison = view.comparison(model, empty)
            size = comparison.batch_size(view.pictures, fields, settings, device, dtype)
            sizes.append(size)
            with reader.listening():
                for batch in batches(view.pictures, size, device, dtype):
                    base = comparison.base(batch)
                    embedding = reader.read(base.features)
                    for factor in passes:
                        moved = comparison.moved(batch, factor)
                        there = comparison.add(base, moved, factor, cells.get(factor, {}))
                        outputs[factor].append(_logits(there))
                        moved_embedding = embedding if factor == 1 else reader.read(there)
                        if embedding is not None and moved_embedding is not None:
                            cosines[factor].append(cosines_of(moved_embedding, embedding).cpu())
                        if factor > 1:
                            rings[factor].append(ring(moved).cpu())
                            inner_rings[factor].append(ring(view.frame.inner(moved)).cpu())
                        done += len(batch)
                        if on_progress:
                            on_progress(done, total)
    radius = {tap: max(view.radii[tap] for view in views) for tap in views[0].radii}
    dark, inner_dark = (
        {factor: float(torch.cat(parts).mean()) < DARK for factor, parts in each.items()}
        for each in (rings, inner_rings)
    )
    own_dark = fade_to_black(images)
    # one reading of the control is comparable only where all taps have one border
    comparable = (
        not means_alone
        and settings.metric == "squared"
        and photographs is None
        and (black or settings.border is not None)
    )
    pointwise = (
        pointwise_readings(images[:CONTROLLED], factors, settings, device=device) if comparable else {}
    )
    rows = []
    missing = missing_taps(model, settings.taps)
    remarks = {tap: note for tap, note in tap_remarks(model).items() if tap in fields}
    for tap, factor in itertools.product(in_order(model, fields, missing), factors):
        if tap in missing:
            rows.append(null_curve_row(tap, factor, missing[tap]))
            continue
        cell = cells[factor][tap]
        for row in cell.rows(tap, len(images)):
            found = warnings(
                row,
                cells=cell.cells,
                dark=(dark if tap in views[0].wide else inner_dark).get(factor, own_dark),
                pointwise=pointwise,
                radius=radius.get(tap),
                surround=photographs is not None,
                whole=tap in views[0].whole,
            )
            own = [note for note in (remarks.get(tap), alone) if note is not None and row.mean is not None]
            rows.append(row.model_copy(update={"warnings": (*own, *found)}))
    true = None if labels is None else labels[: settings.images].cpu()
    logits = {factor: _whole(parts) for factor, parts in outputs.items()}
    why = getattr(model, "logits_reason", None)
    accuracy = accuracy_rows(factors, logits, true, classes, why, cosines)
    remarked = [f"tap '{tap}': {note}" for tap, note in remarks.items()] + (
        [] if alone is None else [str(alone)]
    )
    around = surroundings_of(views, photographs)
    if settings.margin and around is None:
        remarked.append("no tap takes a larger picture: measured without a margin")
    return Curves(rows, accuracy, max(sizes), tuple(remarked), reader.place, around)


def null_curve_row(tap: str, factor: float, reason: Note) -> CurveRow:
    """Return the row of a tap that cannot be measured."""
    values = dict.fromkeys(("mean", "low", "high", "median", "floor"))
    return CurveRow(tap=tap, field=UNKNOWN_FIELD, factor=factor, **values, n=0, reason=reason)


def _nothing(model: Model, settings: MeasureSettings, factors: Sequence[float], images: int) -> Curves:
    """Return the curves of a network none of whose requested taps can be measured."""
    missing = missing_taps(model, settings.taps)
    rows = [null_curve_row(tap, factor, reason) for tap, reason in missing.items() for factor in factors]
    why = missing.get(OUTPUT) or getattr(model, "logits_reason", None) or Note.of("no-tap")
    accuracy = [
        AccuracyRow(factor=factor, accuracy=None, agreement=None, n=0, reason=why) for factor in factors
    ]
    return Curves(rows, accuracy, settings.batch or min(1, images))


def curve_batch(
    model: Model,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    settings: MeasureSettings,
    *,
    on_black: bool,
    device: torch.device | str = "cpu",
) -> int:
    """Return how many images :func:`measure_curves` takes at once: as requested, else from measured memory."""
    images = images[: settings.images]
    fields = fields_of_taps(model, settings.taps)
    with measuring(model, device) as dtype:
        (view,) = views_of(model, fields, settings, images, on_black, (), None, device)
        first = next(batches(images[:1], 1, device, dtype))
        comparison = view.comparison(model, first if settings.background == "empty" else None)
        return comparison.batch_size(images, fields, settings, device, dtype)


def check_repeats(model: Model, images: Float[Tensor, "n c h w"]) -> None:
    """Refuse a network whose features differ for the same pictures, by its first such tap: Δ would count its noise."""
    once, again = model.features(images), model.features(images)
    for tap, features in once.items():
        for one, other in zip(tensors(features), tensors(again[tap]), strict=True):
            difference, size = (one - other).double().norm(), one.double().norm()
            if difference > REPEATED * size:
                raise InputError(
                    f"tap '{tap}': the network gives other features for the same pictures each time, so its noise "
                    "would be measured; make its forward pass deterministic in eval mode"
                )


def check_neighbours(model: Model, images: Float[Tensor, "n c h w"], batch: int | None) -> Note | None:
    """Check that a picture's features do not depend on the others of its batch: Δ would depend on these.

    A network that mixes pictures is refused unless ``batch`` is 1; a remark is then returned.
    """
    mixes = getattr(model, "mixes", None)
    if mixes is None:
        alone = model.features(images[:1].clone())
        among = model.features(torch.cat([images.flip(-1), images[:1]]))
        mixes = mixing(alone, among, bool(tap_remarks(model)))
    if mixes is None:
        return None
    if batch != 1:
        name = getattr(model, "description", {}).get("target", type(model).__name__)
        raise InputError(
            f"{name}: {mixes}, so its readings would depend on the batch; --batch 1 measures picture by picture"
        )
    return Note.of("picture-by-picture", **mixes._asdict())


def _whole(parts: Sequence[Tensor | None]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors) if tensors and len(tensors) == len(parts) else None


def fields_of_taps(model: Model, names: Sequence[str] | None) -> dict[str, Field]:
    """Return the fields of the named taps (or globs), in the order of the network; all of them when none is named.

    Those that cannot be measured (``secli.external.missing_taps``) have none.

    Raises
    ------
    UnknownNameError
        When the model declares no such tap.
    """
    taps = model.taps
    if names is None:
        return taps
    every = {**taps, **missing_taps(model)}
    for name in names:
        if not any(fnmatchcase(tap, name) for tap in every):
            raise UnknownNameError("tap", name, every)
    return {tap: field for tap, field in taps.items() if any(fnmatchcase(tap, name) for name in names)}


def _logits(features: Mapping[str, Features]) -> Tensor | None:
    """Return the logits, where the network returns any."""
    output = features.get(OUTPUT)
    return output.cpu() if isinstance(output, Tensor) else None
