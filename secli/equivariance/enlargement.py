"""How far the surroundings of a picture reach into a network's taps, and which taps take a larger picture.

A tap takes it where its map grows by exactly the cells that are added: not behind a global pooling, nor in a network
whose input has one size, which is found by trying.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from secli.action.fields import Field, ScaleSpace
from secli.action.images import SPLINE_MARGIN
from secli.equivariance.borders import probed_geometry
from secli.errors import InputError
from secli.external.partial_features import PartialModel, features_reached
from secli.external.probing import central_radii, probing
from secli.external.restoring import fingerprint
from secli.models.contract import Features, Model

CUT = 0.3
"""A radius above this share of the image's shorter side may be that of a field which the image's edge cuts."""
LARGEST = 1024
"""Sides of the largest image on which radii are measured."""

Shape = tuple[int, int, int]

_known: WeakKeyDictionary[nn.Module, tuple[object, dict[str, float]]] = WeakKeyDictionary()
"""Of each network what was asked for last, with its weights, and the radii."""


class Enlargement(NamedTuple):
    """What a network can see around its pictures.

    Attributes
    ----------
    pixels
        The largest radius of the receptive fields of taps that take larger pictures, and what the spline of L_s reads
        beyond, as a multiple of ``step``; 0 when none does.
    step
        Pixels by which pictures may grow, so that every cell keeps its position: the strides' common multiple.
    radii
        Of the taps' receptive fields, in pixels, not cut by the image's edge where that could be measured.
    """

    pixels: int
    step: int
    radii: dict[str, float]

    def up_to(self, pixels: float) -> int:
        """Return the multiple of the step that is at most ``pixels``."""
        return int(pixels // self.step) * self.step

    def at_least(self, pixels: float) -> int:
        """Return the multiple of the step that is at least ``pixels``."""
        return math.ceil(pixels / self.step) * self.step


def enlargement(
    model: Model,
    fields: Mapping[str, Field],
    shape: Shape,
    factors: Sequence[float],
    smallest_plane: float,
    device: torch.device | str = "cpu",
) -> Enlargement:
    """Find how far a network sees beyond its pictures, at the taps that can be measured at all.

    Parameters
    ----------
    model : Model
        A network in eval mode.
    fields : mapping
        The taps that are asked for, with their fields.
    shape : tuple
        Channels, height and width of its pictures.
    factors : sequence of float
        Scale factors: a tap whose map is too small at all of them does not count.
    smallest_plane : float
        Cells that the picture must cover.
    """
    own = _shapes(model, fields, shape, device)
    strides = {tap: whole for tap in own if (whole := _whole_stride(fields[tap])) is not None}
    least = max([min(1.0, factor) for factor in factors if factor != 1], default=1.0)
    large = [tap for tap in strides if min(own[tap]) * least >= smallest_plane - 1e-9]
    step = math.lcm(*(strides[tap] for tap in large)) if large else 1
    if not large or step > min(shape[1:]):
        return Enlargement(0, 1, radii_of(model, fields, shape, device))
    growing = taps_that_grow(model, {tap: fields[tap] for tap in large}, shape, step, device)
    radii = radii_of(model, fields, shape, device)
    reaches = [radii[tap] for tap in growing if tap in radii]
    pixels = math.ceil((max(reaches) + SPLINE_MARGIN) / step) * step if reaches else 0
    return Enlargement(pixels, step, radii)


def taps_that_grow(
    model: Model, fields: Mapping[str, Field], shape: Shape, pixels: int, device: torch.device | str = "cpu"
) -> frozenset[str]:
    """Return the taps whose maps grow by the cells of ``pixels`` more pixels on every side, and by no other number."""
    if pixels == 0:
        return frozenset(fields)
    channels, height, width = shape
    own = _shapes(model, fields, shape, device)
    larger = _shapes(model, fields, (channels, height + 2 * pixels, width + 2 * pixels), device)
    found = set()
    for tap, cells in larger.items():
        stride = _whole_stride(fields[tap])
        if stride is None or tap not in own or (2 * pixels) % stride:
            continue
        if all(more - few == 2 * pixels // stride for more, few in zip(cells, own[tap], strict=True)):
            found.add(tap)
    return frozenset(found)


def radii_of(
    model: Model, taps: Mapping[str, Field], shape: Shape, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Return the receptive-field radii of taps, measured on larger images where the network's own cut them.

    They are kept while the network has these weights: a measurement asks twice, and they cost passes over large images.
    """
    if not isinstance(model, nn.Module):
        return {}
    asked = shape, tuple(taps), fingerprint(model)
    if _known.get(model, (None, {}))[0] != asked:
        _known[model] = asked, _measured_radii(model, taps, shape, device)
    return _known[model][1]


def _measured_radii(
    model: Model, taps: Mapping[str, Field], shape: Shape, device: torch.device | str
) -> dict[str, float]:
    assert isinstance(model, nn.Module)
    try:
        geometry = probed_geometry(model, shape, list(taps))
    except InputError:  # nothing to measure a position of
        return {}
    radii = {tap: geometry[tap].radius for tap in taps if tap in geometry}
    channels, height, width = shape
    whole = PartialModel(model, taps)
    levels = [tap for tap in radii if isinstance(taps[tap], ScaleSpace)]
    radii.update(central_radii(whole, shape, levels, device) if levels else {})
    while max(height, width) * 2 <= LARGEST:
        cut = [tap for tap, radius in radii.items() if radius > CUT * min(height, width)]
        height, width = 2 * height, 2 * width
        found = central_radii(whole, (channels, height, width), cut, device) if cut else {}
        grown = {tap: radius for tap, radius in found.items() if radius > radii[tap]}
        if not grown:
            break
        radii.update(grown)
    return radii


def _shapes(
    model: Model, taps: Collection[str], shape: Shape, device: torch.device | str
) -> dict[str, tuple[int, int]]:
    """Return the height and width of the maps at the taps that are reached on an image of a shape."""
    if not isinstance(model, nn.Module):
        return {}
    with probing(model, device) as dtype, torch.no_grad():
        features = features_reached(model, torch.zeros(1, *shape, device=device, dtype=dtype), taps)
    return {tap: plane for tap, each in features.items() if (plane := _plane(each)) is not None}


def _plane(features: Features) -> tuple[int, int] | None:
    if isinstance(features, list) or features.ndim < 4:
        return None
    return int(features.shape[-2]), int(features.shape[-1])


def _whole_stride(field: Field) -> int | None:
    """Return the pixels after which all positions of a field repeat: the common multiple of its whole strides."""
    stride = getattr(field, "stride", None)
    if stride is None:
        return None
    pair = stride if isinstance(stride, tuple) else (stride, stride)
    if pair[0] != pair[1] or pair[0] < 1 or pair[0] != int(pair[0]):
        return None
    return int(pair[0])
