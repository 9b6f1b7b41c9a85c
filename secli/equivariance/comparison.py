"""The features of rescaled pictures against the rescaled features of the pictures, one pass a factor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from secli.action.fields import Canvas, Field
from secli.config import MeasureSettings
from secli.equivariance.batching import batch_size
from secli.equivariance.cell_error import TapError, squared_size
from secli.equivariance.features import minus, taken, tensors
from secli.equivariance.frames import Frame
from secli.external.partial_features import features_reached
from secli.models.contract import Features, Model

PIECE = 2 << 20
"""Bytes of features that a CPU compares at once."""
TRIED = 0.7
"""The factor of the pass whose memory is measured."""


class BaseFeatures(NamedTuple):
    """The features of a batch at its own scale: the same for every factor."""

    features: dict[str, Features]
    centred: dict[str, Features]
    sizes: dict[str, Tensor]


class FeatureComparison:
    """Compares the features of rescaled images with the rescaled features of the images, in one pass per factor.

    Parameters
    ----------
    model : Model
        The network, in eval mode on its device.
    canvases : mapping
        The canvas of every tap that is compared.
    image : tensor (1, C, H, W), optional
        Of the network's own size; the features of the empty picture of its shape are subtracted.
    frame : Frame
        What is around the pictures.
    wide : collection of str
        Taps that are read with the surroundings; all others, and the logits, from the network's own size.
    """

    def __init__(
        self,
        model: Model,
        canvases: Mapping[str, Canvas],
        image: Tensor | None,
        frame: Frame,
        wide: frozenset[str] = frozenset(),
    ) -> None:
        self.model, self.canvases, self.frame = model, canvases, frame
        self.wide = wide & canvases.keys() if frame.enlarged else frozenset()
        self.blur = next(iter(canvases.values())).blur
        features = None
        if image is not None:
            features = self.features(image.new_zeros(1, image.shape[1], *frame.size))
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
            self.add(self.base(few), self.moved(few, TRIED), TRIED, cells_of(fields, TRIED, settings))

        return batch_size(settings.batch, images, trial, device, dtype)

    def features(self, images: Tensor) -> dict[str, Features]:
        """Return the features of images with their surroundings."""
        if not self.wide:
            return self.model.features(self.frame.inner(images))
        wide = features_reached(self.model, images, self.wide)
        # the network's own size comes last: what listens to it, and the logits, belong to that
        return {**self.model.features(self.frame.inner(images)), **wide}

    def base(self, pictures: Tensor) -> BaseFeatures:
        """Return the features of pictures at their own scale."""
        features = self.features(self.frame.base(pictures))
        centred = {tap: minus(features[tap], empty) for tap, empty in self.empty.items()}
        sizes = {tap: squared_size(tensors(features[tap])) for tap in self.empty}
        return BaseFeatures(features, centred, sizes)

    def moved(self, pictures: Tensor, factor: float) -> Tensor:
        """Return L_s of pictures."""
        return self.frame.moved(pictures, factor, self.blur)

    def add(
        self, base: BaseFeatures, moved: Tensor, factor: float, cells: Mapping[str, TapError]
    ) -> dict[str, Features]:
        """Compare the features of rescaled images at every cell of a factor, and return them."""
        there = base.features if factor == 1 else self.features(moved)
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


def cells_of(
    fields: Mapping[str, Field], factor: float, settings: MeasureSettings, floor: bool = True
) -> dict[str, TapError]:
    """Return the errors of one factor, tap by tap."""
    return {
        tap: TapError(field, factor, settings.metric, settings.per, settings.smallest_plane, floor)
        for tap, field in fields.items()
    }
