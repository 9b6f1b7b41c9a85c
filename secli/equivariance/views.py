"""The pictures of one measurement with what is around them, and the border of every tap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from secli.action.fields import Canvas, Field, Invariant
from secli.action.images import SAMPLING_BLUR
from secli.config import MeasureSettings
from secli.datasets.photographs import Photographs
from secli.equivariance.borders import borders, radii
from secli.equivariance.comparison import FeatureComparison
from secli.equivariance.enlargement import Enlargement, enlargement, radii_of, taps_that_grow
from secli.equivariance.frames import Frame
from secli.errors import InputError
from secli.external.field_text import TokenGrid
from secli.models.contract import Model
from secli.records.schema import Surroundings

AUTO = "auto"
"""The margin that is as wide as the widest receptive field's radius."""


@dataclass(frozen=True, eq=False)
class View:
    """Pictures that have the same surroundings.

    Attributes
    ----------
    pictures
        As they are stored: photographs, or the network's own pictures.
    frame
        What is around them.
    canvases
        By tap.
    wide
        The taps that see the surroundings.
    radii
        Of the receptive fields, by tap, where a border must not be narrower.
    whole
        The taps that see everything at once, so that no border can be left out.
    """

    pictures: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]
    frame: Frame
    canvases: Mapping[str, Canvas]
    wide: frozenset[str]
    radii: Mapping[str, float]
    whole: frozenset[str]

    def comparison(self, model: Model, image: Tensor | None) -> FeatureComparison:
        """Return the comparison of these pictures; ``image`` as :class:`FeatureComparison` takes it."""
        return FeatureComparison(model, self.canvases, image, self.frame, self.wide)


def views_of(
    model: Model,
    fields: Mapping[str, Field],
    settings: MeasureSettings,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    on_black: bool,
    factors: Sequence[float],
    photographs: Photographs | None,
    device: torch.device | str,
) -> list[View]:
    """Return the pictures of a measurement, in order: one view, or one per group of photographs.

    The blur that L_s keeps is that of sampling, or of the widest lift whose first level is the picture.
    """
    blur = max([SAMPLING_BLUR, *(field.base_blur for field in model.taps.values())])
    channels, height, width = (int(side) for side in images.shape[1:])
    shape = channels, height, width
    if photographs is not None:
        return _windows(model, fields, settings, shape, blur, photographs, device)
    if settings.margin is not None:
        if not on_black:
            raise InputError(
                "margin: empty pixels go around pictures on black alone; photographs have surroundings"
            )
        return [_with_margin(model, fields, settings, shape, blur, images, factors, device)]
    edges = borders(model, fields, shape, settings.border, on_black)
    frame = Frame(height, width)
    canvases = {tap: frame.canvas(blur, edges[tap], False) for tap in fields}
    known = radii(model, fields, shape, settings.border, on_black)
    return [View(images, frame, canvases, frozenset(), known, frozenset())]


def _with_margin(
    model: Model,
    fields: Mapping[str, Field],
    settings: MeasureSettings,
    shape: tuple[int, int, int],
    blur: float,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    factors: Sequence[float],
    device: torch.device | str,
) -> View:
    """Return pictures on black with empty pixels around them."""
    _, height, width = shape
    found = enlargement(model, fields, shape, factors, settings.smallest_plane, device)
    pixels = margin_of(found, settings.margin, min(height, width))
    wide = taps_that_grow(model, fields, shape, pixels, device) if pixels else frozenset[str]()
    frame = Frame(height, width, pixels if wide else 0)
    border = settings.border or 0.0
    canvases = {tap: frame.canvas(blur, border, tap in wide) for tap in fields}
    return View(images, frame, canvases, wide, {}, frozenset())


def margin_of(found: Enlargement, margin: float | str | None, side: int) -> int:
    """Return the pixels of a margin: as asked for, brought up to a multiple of the strides, or the widest radius."""
    if margin is None or found.pixels == 0:
        return 0
    return min(found.pixels, found.at_least(side)) if margin == AUTO else found.at_least(float(margin))


def _windows(
    model: Model,
    fields: Mapping[str, Field],
    settings: MeasureSettings,
    shape: tuple[int, int, int],
    blur: float,
    photographs: Photographs,
    device: torch.device | str,
) -> list[View]:
    """Return the groups of photographs; of each the first ones, up to the number of images that is asked for."""
    _, height, width = shape
    whole = frozenset(tap for tap, field in fields.items() if _sees_everything(model, tap, field))
    found = radii_of(model, fields, shape, device)
    known = {tap: radius for tap, radius in found.items() if tap not in whole}
    views, left = [], settings.images
    for group in photographs.groups:
        pictures = group.images[:left]
        left -= len(pictures)
        if not len(pictures):
            break
        wide = (
            taps_that_grow(model, fields, shape, group.enlarged, device) - whole
            if group.enlarged
            else frozenset()
        )
        frame = Frame(height, width, group.enlarged if wide else 0, surround=True)
        canvases = {}
        for tap in fields:
            margin = frame.enlarged if tap in wide else 0
            border = max(known.get(tap, 0.0), margin) if settings.border is None else settings.border + margin
            canvases[tap] = frame.canvas(blur, 0.0 if tap in whole else border, tap in wide)
        # what the surroundings give needs no border
        unseen = {
            tap: max(0.0, radius - (frame.enlarged if tap in wide else 0)) for tap, radius in known.items()
        }
        views.append(View(pictures, frame, canvases, wide, unseen, whole))
    return views


def _sees_everything(model: Model, tap: str, field: Field) -> bool:
    """Whether every cell of a tap sees the whole picture: one without a plane, or tokens that attend to all others."""
    layout = getattr(model, "layouts", {}).get(tap)
    return isinstance(field, Invariant) or isinstance(layout, TokenGrid)


def surroundings_of(views: Sequence[View], photographs: Photographs | None) -> Surroundings | None:
    """Return what a record says of the surroundings; None where pictures have none."""
    enlarged = [view.frame.enlarged for view in views]
    if photographs is None and not any(enlarged):
        return None
    frame = views[0].frame
    return Surroundings(
        kind="margin" if photographs is None else "photo",
        window=(frame.height, frame.width),
        wanted=max(enlarged) if photographs is None else photographs.request.enlarged,
        enlarged=tuple(enlarged),
        pictures=tuple(len(view.pictures) for view in views),
        left_out=0 if photographs is None else photographs.left_out,
        taps=tuple(sorted(views[0].wide)),
    )
