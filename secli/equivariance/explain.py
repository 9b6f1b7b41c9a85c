"""Where the error comes from: the same pictures read with a margin, on the lattice of levels, and on a finer grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from secli.action.fields import LATTICE_TOLERANCE, Field
from secli.action.images import Axis, resample
from secli.config import MeasureSettings
from secli.datasets.loading import pixels
from secli.equivariance.borders import fade_to_black
from secli.equivariance.curves import Curves, fields_of_taps, measure_curves
from secli.equivariance.enlargement import taps_that_grow
from secli.equivariance.factors import factors_of
from secli.errors import InputError
from secli.external.partial_features import PartialModel
from secli.models.contract import Model
from secli.records.notes import Note
from secli.records.schema import CurveRow, ExplainRow

EXPLAINED = 100
"""Pictures that are read, at most: the enlarged ones cost many times a reading."""

NO_MARGIN = Note.of("no-margin")
Key = tuple[str, float]


def explain(
    model: Model,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    settings: MeasureSettings,
    *,
    on_black: bool | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> list[ExplainRow]:
    """Read Δ as it stands, with an empty margin, at the factors on the lattice beside it, and of enlarged pictures.

    Features that leave a canvas are lost on one side of Δ alone: with a margin as wide as the taps see none are. On the
    lattice L_s maps levels onto levels and nothing is interpolated between them. Of pictures that are enlarged twice
    the same filters see finer detail: what the grid of pixels costs is smaller.

    Parameters
    ----------
    model, images, device
        As for :func:`secli.equivariance.curves.measure_curves`; at most 100 images are read.
    settings : MeasureSettings
        Taps, factors, metric, background, batch.
    on_black : bool, optional
        Whether the pictures fade to black at their edges; None: as they show.
    on_progress : callable, optional
        Called with (readings done, readings in all).

    Returns
    -------
    list of ExplainRow
        One per tap and factor other than 1.

    Raises
    ------
    InputError
        For photographs, around which nothing empty can be put.
    """
    images = images[: min(settings.images, EXPLAINED)]
    if not (fade_to_black(images) if on_black is None else on_black):
        raise InputError(
            "explain: an empty margin goes around pictures on black alone, and these are photographs"
        )
    fields = fields_of_taps(model, settings.taps)
    factors = [factor for factor in factors_of(settings, fields.values()) if factor != 1]
    nearest = {key: near for key in itertools.product(fields, factors) if (near := _neighbours(fields, *key))}
    bare = settings.model_copy(
        update={
            "margin": None,
            "surround": None,
            "factors": tuple(factors),
            "protocol": "default",
            "per": (),
            "border": None,
        }
    )

    def read(
        step: int,
        subject: Model,
        pictures: Tensor,
        margin: str | None,
        at: Sequence[float],
        taps: Sequence[str],
    ) -> Curves | None:
        curves = None
        if taps and at:
            own = bare.model_copy(update={"margin": margin, "factors": tuple(at), "taps": tuple(taps)})
            curves = measure_curves(subject, pictures, own, on_black=True, device=device, means_alone=True)
        if on_progress:
            on_progress(step, 4)
        return curves

    taps = list(fields)
    plain = _by_key(read(1, model, images, None, factors, taps))
    with_margin = read(2, model, images, "auto", factors, taps)
    padded = _by_key(with_margin)
    at_levels = sorted({factor for pair in nearest.values() for factor in pair})
    lattice = _by_key(read(3, model, images, "auto", at_levels, taps))
    shape = int(images.shape[1]), int(images.shape[2]), int(images.shape[3])
    growing = (
        taps_that_grow(model, fields, shape, min(shape[1:]) // 2, device)
        if shape[1] == shape[2]
        else frozenset()
    )
    part = PartialModel(model, {tap: field for tap, field in fields.items() if tap in growing})
    large = _by_key(read(4, part, twice_as_large(images), "auto", factors, list(part.taps)))
    around = None if with_margin is None else with_margin.surroundings
    wide = () if around is None else around.taps
    rows = []
    for tap, factor in itertools.product(taps, factors):
        key = tap, factor
        near, row = nearest.get(key), plain[key]
        takes_more = tap in wide
        rows.append(
            ExplainRow(
                tap=tap,
                factor=factor,
                error=row.mean,
                with_margin=_mean(padded, key) if takes_more else None,
                lattice_factors=near,
                on_lattice=_between(lattice, key, near) if takes_more and near is not None else None,
                enlarged=_mean(large, key),
                n=row.n,
                reason=row.reason or (None if takes_more else NO_MARGIN),
            )
        )
    return rows


def twice_as_large(
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
) -> Float[Tensor, "n c H W"]:
    """Return L_2 of pictures on a canvas of twice their side (of one pixel less where that is odd), unclamped."""
    values = pixels(images) if images.dtype == torch.uint8 else images
    axes = []
    for n in images.shape[-2:]:
        size = n + 2 * (n // 2)
        axes.append(Axis(n, size, 0.5, (n - 1) / 2, (size - 1) / 2, 0.0))
    return resample(values, axes[0], axes[1])


def _neighbours(fields: Mapping[str, Field], tap: str, factor: float) -> tuple[float, float] | None:
    """Return the factors of a tap's lattice on either side of one off it; None on it, beyond it, or without levels."""
    lattice = fields[tap].lattice
    both = sorted({1.0, *lattice, *(1 / s for s in lattice)})
    if not lattice or any(abs(math.log(s / factor)) < LATTICE_TOLERANCE for s in both):
        return None
    below, above = [s for s in both if s < factor], [s for s in both if s > factor]
    return (below[-1], above[0]) if below and above else None


def _between(rows: Mapping[Key, CurveRow], key: Key, ends: tuple[float, float]) -> float | None:
    """Return Δ at two factors, brought to one between them linearly in log s."""
    tap, factor = key
    low, high = (_mean(rows, (tap, end)) for end in ends)
    if low is None or high is None:
        return None
    share = math.log(factor / ends[0]) / math.log(ends[1] / ends[0])
    return (1 - share) * low + share * high


def _by_key(curves: Curves | None) -> dict[Key, CurveRow]:
    return {} if curves is None else {(row.tap, row.factor): row for row in curves.rows}


def _mean(rows: Mapping[Key, CurveRow], key: Key) -> float | None:
    return rows[key].mean if key in rows else None
