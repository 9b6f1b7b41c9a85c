"""The Lie derivative under scale: the equivariance error of an infinitely small change of scale, at every tap."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from secli.action.fields import (
    Acted,
    Canvas,
    Field,
    Pyramid,
    ScaleSpace,
    VectorField,
    small_levels,
    without_levels,
)
from secli.action.generator import generate, generate_image
from secli.config import MeasureSettings
from secli.equivariance.batching import batch_size, batches
from secli.equivariance.borders import borders, fade_to_black
from secli.equivariance.cell_error import SMALLEST_SHARE, Shares, known_share, squared_size
from secli.equivariance.curves import fields_of_taps
from secli.equivariance.error import SquaredNorms, measurable, squared_norm
from secli.equivariance.evaluation_mode import measuring
from secli.equivariance.features import minus, tensors
from secli.equivariance.forward_mode import directional_derivative, tangent_faults
from secli.equivariance.statistics import bootstrap_interval
from secli.errors import InputError
from secli.external.missing_taps import UNKNOWN_FIELD, in_order, missing_taps
from secli.models.contract import Features, Model
from secli.records.notes import Note, NotMeasurableError
from secli.records.schema import LieRow


def lie_derivatives(
    model: Model,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    settings: MeasureSettings,
    *,
    on_black: bool | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> list[LieRow]:
    """Measure the Lie derivative of a network under dilation, at every requested tap in one forward-mode pass.

    ``‖(d/dt)|₀ L_{e^{−t}} Φ(L_{e^t} f)‖² / ‖Φ(f)‖²`` (Gruver et al. 2022), the mean over images, with Φ(·) − Φ(0) for
    Φ(·) unless ``background`` is none. With G the generator of the blur-free dilation the numerator is
    ``‖J Φ(f)[G f] − G Φ(f)‖²``, over the cells where G Φ(f) is known. It is the limit of Δ_s/(log s)² for s → 1 from
    above; from below L_s blurs pictures, which may change the features. On smooth features |log s| = 0.05 is near
    enough; the kinks of ReLU and max-pooling on a grid of n cells require |log s|·n/2 well below one cell.

    Every operator's forward-mode derivative is compared with a finite difference first
    (``secli.equivariance.forward_mode``).

    Parameters
    ----------
    model, images, on_black
        As for :func:`secli.equivariance.curves.measure_curves`.
    settings : MeasureSettings
        Taps, background, border, number of images, batch size; factors and metric do not matter.
    on_progress : callable, optional
        Called with (steps done, steps in all): the check, then each batch.

    Returns
    -------
    list of LieRow
        In the order of the network; 0 is perfect and there is no upper bound. Null values carry their reason.

    Raises
    ------
    UnknownNameError
        When a requested tap is not declared.
    InputError
        When there are no images.
    SecliError
        When an operator, which is named, cannot be differentiated in forward mode, or wrongly and before every tap.
        Taps after such an operator are null with that reason, those before it are measured.
    """
    if len(images) == 0:
        raise InputError("there are no images to measure on")
    images = images[: settings.images]
    readings = {
        tap: _LieSample(field, settings.smallest_plane)
        for tap, field in fields_of_taps(model, settings.taps).items()
    }
    missing = missing_taps(model, settings.taps)
    if not readings:
        return [null_lie_row(tap, reason) for tap, reason in missing.items()]
    channels, height, width = images.shape[1:]
    black = fade_to_black(images) if on_black is None else on_black
    with measuring(model, device, inference=False) as dtype:
        edges = borders(model, readings, (channels, height, width), settings.border, black)
        first = next(batches(images[:1], 1, device, dtype))
        empty = model.features(torch.zeros_like(first[:1]))
        faults = tangent_faults(model, first, list(readings))
        if faults and len(faults) == len(readings):
            raise NotMeasurableError(next(iter(faults.values())))
        size = batch_size(
            settings.batch,
            images,
            lambda few: directional_derivative(model, few, generate_image(few)),
            device,
            dtype,
        )
        total = -(-len(images) // size) + 1
        for done, batch in enumerate(batches(images, size, device, dtype), start=1):
            if on_progress:
                on_progress(done, total)
            features, tangents = directional_derivative(model, batch, generate_image(batch))
            for tap, reading in readings.items():
                if tap in faults:
                    continue
                centred = minus(features[tap], empty[tap] if settings.background == "empty" else None)
                reading.add(features[tap], centred, tangents[tap], Canvas(height, width, border=edges[tap]))
        if on_progress:
            on_progress(total, total)
    for tap, fault in faults.items():
        readings[tap].reason = fault
    rows = {tap: reading.row(tap, len(images)) for tap, reading in readings.items()}
    missing = missing_taps(model, settings.taps)
    return [
        rows[tap] if tap in rows else null_lie_row(tap, missing[tap])
        for tap in in_order(model, rows, missing)
    ]


def null_lie_row(tap: str, reason: Note, field: str = UNKNOWN_FIELD) -> LieRow:
    """Return the row of a tap that cannot be measured."""
    return LieRow(tap=tap, field=field, mean=None, low=None, high=None, n=0, reason=reason)


class _LieSample:
    """One tap: batches are added, one row of the record is returned; it needs ``smallest_plane`` cells across."""

    def __init__(self, field: Field, smallest_plane: float) -> None:
        self.field = field
        self.smallest_plane = smallest_plane
        self.reason: Note | None = None
        self.values: list[Float64[Tensor, "n"]] = []
        self.shares = Shares()
        self.dead = 0
        self.broken = 0

    def add(self, raw: Features, centred: Features, tangents: list[Tensor], canvas: Canvas) -> None:
        """Compare one batch: J Φ(f)[G f] with G Φ(f)."""
        plane = self.field.smallest_plane(centred)
        if plane is not None and plane < self.smallest_plane:
            self.reason = Note.of("tap-too-small", cells=plane, least=self.smallest_plane)
            return
        generated = generate(self.field, centred, canvas)
        if isinstance(self.field, VectorField):
            # an angle is a scale in the network's own vectors, not in their difference to Φ(0)
            generated = generated._replace(masks=generate(self.field, raw, canvas).masks)
        if isinstance(self.field, Pyramid):
            acted = Acted(generated.tensors, generated.masks, levels_total=len(generated.tensors))
            acted = without_levels(acted, small_levels(acted, 1.0, self.smallest_plane))
            generated = generated._replace(masks=acted.masks)
        share = self.shares.add(known_share(generated.tensors, generated.masks), len(tangents[0]))
        if share == 0 and isinstance(self.field, ScaleSpace):
            self.reason = Note.of("no-level-beside", levels=len(self.field.scales))
            return
        # ‖J Φ(f)[G f] − G Φ(f)‖² and ‖Φ(f)‖² over the known cells
        parts = list(zip(tangents, generated.tensors, tensors(centred), generated.masks, strict=True))
        difference = [squared_norm(moved - own, mask) for moved, own, _, mask in parts]
        expected = [squared_norm(tensor, mask) for _, _, tensor, mask in parts]
        comparison = SquaredNorms(torch.stack(difference).sum(0), torch.stack(expected).sum(0))
        finite, alive = measurable(comparison, squared_size(tensors(raw)), tensors(raw)[0].dtype)
        self.broken += int((~finite).sum())
        self.dead += int((finite & ~alive).sum())
        kept = finite & alive
        self.values.append((comparison.difference / comparison.expected)[kept].cpu())

    def row(self, tap: str, images: int) -> LieRow:
        """Return the row of the record: the mean with its interval, or null with the reason."""
        values = torch.cat(self.values) if self.values else torch.empty(0, dtype=torch.float64)
        share = self.shares.mean
        reason = self.reason
        if reason is None and share is not None and share < SMALLEST_SHARE:
            reason = Note.of("few-compared", share=share)
        if reason is None and len(values) == 0:
            reason = Note.of("dead-tap-unscaled", images=images)
            if self.broken:
                reason = Note.of("not-finite", broken=self.broken, images=images)
        mean = low = high = None
        if reason is None:
            mean = float(values.mean())
            low, high = bootstrap_interval(values.numpy())
        return LieRow(
            tap=tap,
            field=self.field.reads_as(),
            mean=mean,
            low=low,
            high=high,
            n=len(values) if reason is None else 0,
            dropped=self.dead + self.broken,
            reason=reason,
        )
