"""Equivariance curves: the error at every tap and factor, with floor, interval and accuracy, in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from secli.action.fields import Canvas, Field
from secli.action.images import SAMPLING_BLUR, rescale
from secli.config import MeasureSettings
from secli.equivariance.accuracy import accuracy_rows
from secli.equivariance.batching import batch_size, batches
from secli.equivariance.borders import DARK, borders, fade_to_black, radii, ring
from secli.equivariance.cell_error import TapError, squared_size
from secli.equivariance.controls import pointwise_readings
from secli.equivariance.embedding import EmbeddingReader
from secli.equivariance.evaluation_mode import measuring
from secli.equivariance.factors import factors_of
from secli.equivariance.features import minus, taken, tensors
from secli.equivariance.prediction_change import cosines as cosines_of
from secli.equivariance.row_warnings import warnings
from secli.errors import InputError, UnknownNameError
from secli.external.batch_independence import mixing
from secli.external.missing_taps import UNKNOWN_FIELD, in_order, missing_taps, tap_remarks
from secli.models.contract import Features, Model
from secli.records.notes import Note
from secli.records.schema import AccuracyRow, CurveRow

CONTROLLED = 200
"""Images of the pointwise control, for the remarks only."""
REPEATED = 1e-3
"""Allowed difference of two passes over the same pictures: some devices round differently each time."""
PIECE = 2 << 20
"""Bytes of features that a CPU compares at once."""
TRIED = 0.7
"""The factor of the pass whose memory is measured."""
OUTPUT = "logits"
"""The tap of a network's logits."""


@dataclass(frozen=True)
class Curves:
    """A measurement: one row per tap and factor, one accuracy row per factor, the batch, and remarks.

    ``embedding`` says where the embedding was read (:mod:`secli.equivariance.embedding`).
    """

    rows: list[CurveRow]
    accuracy: list[AccuracyRow]
    batch: int
    remarks: tuple[str, ...] = ()
    embedding: str | None = None


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
        Called with (forward passes done, forward passes in all).
    means_alone : bool
        Leave out what a mean is judged by, and costs as much: the floor, and the warning by the pointwise control.

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
    cells = {factor: _cells(fields, factor, settings, floor=not means_alone) for factor in factors}
    passes = [1.0, *(factor for factor in factors if factor != 1)]
    outputs: dict[float, list[Tensor | None]] = {factor: [] for factor in passes}
    rings: dict[float, list[Tensor]] = {factor: [] for factor in passes if factor > 1}
    cosines: dict[float, list[Tensor]] = {factor: [] for factor in passes}
    reader = EmbeddingReader(model)
    with measuring(model, device) as dtype:
        canvases = _canvases(model, fields, settings, images, black)
        channels, height, width = images.shape[1:]
        radius = radii(model, fields, (channels, height, width), settings.border, black)
        first = next(batches(images[:2], 2, device, dtype))
        check_repeats(model, first)
        alone = check_neighbours(model, first, settings.batch)
        comparison = _Comparison(model, canvases, first[:1] if settings.background == "empty" else None)
        size = comparison.batch_size(images, fields, settings, device, dtype)
        count_of_batches = -(-len(images) // size)
        with reader.listening():
            for done, batch in enumerate(batches(images, size, device, dtype)):
                base = comparison.base(batch)
                embedding = reader.read(base.features)
                for count, factor in enumerate(passes, start=1):
                    moved = comparison.moved(batch, factor)
                    there = comparison.add(base, moved, factor, cells.get(factor, {}))
                    outputs[factor].append(_logits(there))
                    moved_embedding = embedding if factor == 1 else reader.read(there)
                    if embedding is not None and moved_embedding is not None:
                        cosines[factor].append(cosines_of(moved_embedding, embedding).cpu())
                    if factor > 1:
                        rings[factor].append(ring(moved).cpu())
                    if on_progress:
                        on_progress(done * len(passes) + count, count_of_batches * len(passes))
    dark = {factor: float(torch.cat(parts).mean()) < DARK for factor, parts in rings.items()}
    own_dark = fade_to_black(images)
    # one reading of the control is comparable only where all taps have one border
    comparable = not means_alone and settings.metric == "squared" and (black or settings.border is not None)
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
                dark=dark.get(factor, own_dark),
                pointwise=pointwise,
                radius=radius.get(tap),
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
    return Curves(rows, accuracy, size, tuple(remarked), reader.place)


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


class _BaseFeatures(NamedTuple):
    """The features of a batch at its own scale: the same for every factor."""

    images: Tensor
    features: dict[str, Features]
    centred: dict[str, Features]
    sizes: dict[str, Tensor]


class _Comparison:
    """Compares the features of rescaled images with the rescaled features of the images, in one pass per factor.

    With an ``image`` (1, C, H, W), the features of the empty picture of its shape are subtracted.
    """

    def __init__(self, model: Model, canvases: Mapping[str, Canvas], image: Tensor | None) -> None:
        self.model, self.canvases = model, canvases
        self.blur = next(iter(canvases.values())).blur
        features = None if image is None else model.features(image * 0)
        self.empty = {tap: None if features is None else features[tap] for tap in canvases}

    def batch_size(
        self,
        images: Tensor,
        fields: Mapping[str, Field],
        settings: MeasureSettings,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> int:
        """Return the images per pass: as requested, else from the memory of a small pass."""

        def trial(few: Tensor) -> None:
            self.add(self.base(few), self.moved(few, TRIED), TRIED, _cells(fields, TRIED, settings))

        return batch_size(settings.batch, images, trial, device, dtype)

    def base(self, images: Tensor) -> _BaseFeatures:
        """Return the features of images at their own scale."""
        features = self.model.features(images)
        centred = {tap: minus(features[tap], empty) for tap, empty in self.empty.items()}
        sizes = {tap: squared_size(tensors(features[tap])) for tap in self.empty}
        return _BaseFeatures(images, features, centred, sizes)

    def moved(self, images: Tensor, factor: float) -> Tensor:
        """Return L_s of images."""
        return rescale(images, factor, self.blur)

    def add(
        self, base: _BaseFeatures, moved: Tensor, factor: float, cells: Mapping[str, TapError]
    ) -> dict[str, Features]:
        """Compare the features of rescaled images at every cell of a factor, and return them."""
        there = base.features if factor == 1 else self.model.features(moved)
        for tap, cell in cells.items():
            for part in pieces(there[tap]):
                raw, answer, centred = (
                    taken(features, part) for features in (base.features[tap], there[tap], base.centred[tap])
                )
                actual = centred if factor == 1 else minus(answer, self.empty[tap])
                cell.add(raw, answer, centred, actual, self.canvases[tap], base.sizes[tap][part])
        return there


def pieces(features: Features) -> Iterator[slice]:
    """Yield the images that are compared at once: on a CPU few enough to stay in its cache."""
    whole = tensors(features)
    images, size = len(whole[0]), sum(tensor.nbytes for tensor in whole)
    step = images if whole[0].is_cuda else max(1, PIECE * images // size)
    yield from (slice(start, start + step) for start in range(0, images, step))


def _cells(
    fields: Mapping[str, Field], factor: float, settings: MeasureSettings, floor: bool = True
) -> dict[str, TapError]:
    """Return the errors of one factor, tap by tap."""
    return {
        tap: TapError(field, factor, settings.metric, settings.per, settings.smallest_plane, floor)
        for tap, field in fields.items()
    }


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
        canvases = _canvases(model, fields, settings, images, on_black)
        first = next(batches(images[:1], 1, device, dtype))
        comparison = _Comparison(model, canvases, first if settings.background == "empty" else None)
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


def _canvases(
    model: Model,
    fields: Mapping[str, Field],
    settings: MeasureSettings,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    on_black: bool,
) -> dict[str, Canvas]:
    """Return the canvas of each tap: the pictures, their blur, and the border of that tap.

    The blur that L_s keeps is that of sampling, or of the widest lift whose first level is the picture.
    """
    channels, height, width = images.shape[1:]
    blur = max([SAMPLING_BLUR, *(field.base_blur for field in model.taps.values())])
    edges = borders(model, fields, (channels, height, width), settings.border, on_black)
    return {tap: Canvas(height, width, blur, edges[tap]) for tap in fields}


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
