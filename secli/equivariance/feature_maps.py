"""L_sΦ(f), Φ(L_s f) and their difference as pictures, for one image and one factor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from secli.action.fields import Acted, Canvas, Field, Invariant, Pair, Plane, Pyramid, ScaleSpace
from secli.action.images import SAMPLING_BLUR, rescale
from secli.config import Background
from secli.equivariance.borders import borders, fade_to_black
from secli.equivariance.curves import fields_of_taps
from secli.equivariance.evaluation_mode import measuring
from secli.equivariance.features import minus, tensors
from secli.errors import InputError
from secli.layers.deformable import DeformConv
from secli.models.contract import Features, Model
from secli.records.feature_maps import FeatureView, FeatureViews, SamplingView

POSITIONS = 3
"""Output cells of a deformable layer whose sampling points are shown."""


def feature_views(
    model: Model,
    image: Float[Tensor, "1 c h w"],
    factor: float,
    *,
    taps: Sequence[str] | None = None,
    channels: int = 4,
    background: Background = "empty",
    border: float | None = None,
    device: torch.device | str = "cpu",
) -> FeatureViews:
    """Return L_sΦ(f), Φ(L_s f) and Φ(L_s f) − L_sΦ(f) for the strongest channels of every tap.

    The strongest channels are those with the largest ‖L_sΦ(f)‖² over the known cells (of equal ones, the first).
    A scale space shows every level of them, and cells that L_s cannot know are marked as such.

    Parameters
    ----------
    model : Model
        A network with declared taps; it is put on ``device`` and run in eval mode.
    image : tensor (1, C, H, W)
        One picture f, pixels in [0, 1].
    taps : sequence of str, optional
        Taps to show; default: all that have a plane.
    channels : int
        Channels per tap, at most.
    background : str
        ``empty`` subtracts Φ(0) on both sides; ``none`` shows the bare features.
    border : float, optional
        Pixels along the edges of picture and canvas that are not compared; None: as for the curves (0 for a
        picture on black, else the receptive-field radius of each tap).

    Returns
    -------
    FeatureViews
        Plain arrays. For deformable layers (``DeformConv``) also the points they read, for three bright points of
        the picture, at s = 1 and at s.

    Raises
    ------
    UnknownNameError
        When a requested tap is not declared.
    InputError
        On a factor or a number of channels that is not positive, or when no requested tap has a plane to show.
    """
    if not (factor > 0 and np.isfinite(factor)):
        raise InputError(f"factor {factor:g}: a scale factor is a positive number")
    if channels < 1:
        raise InputError(f"{channels} channels to show: ask for at least 1")
    every = model.taps
    fields = {tap: f for tap, f in fields_of_taps(model, taps).items() if not isinstance(f, Invariant)}
    if not fields:
        raise InputError(f"none of the taps {', '.join(taps or every)} has a plane that could be shown")
    # the blur that L_s keeps, as for the curves
    blur = max([SAMPLING_BLUR, *(field.base_blur for field in every.values())])
    depth, height, width = image.shape[1:]
    with measuring(model, device) as dtype:
        f = image.to(device, dtype)
        edges = borders(model, fields, (depth, height, width), border, fade_to_black(image))
        canvases = {tap: Canvas(height, width, blur, edges[tap]) for tap in fields}
        moved = rescale(f, factor, blur)
        with recorded_offsets(model) as offsets:
            raw, there = model.features(f), model.features(moved)
        base, actual = raw, there
        if background == "empty":
            empty = model.features(f * 0)
            base = {tap: minus(raw[tap], empty[tap]) for tap in fields}
            actual = {tap: minus(there[tap], empty[tap]) for tap in fields}
        views = [
            view
            for tap, field in fields.items()
            for view in _views_of_tap(
                tap,
                field,
                field.compared(
                    field.act(base[tap], factor, canvases[tap]), raw[tap], there[tap], factor, canvases[tap]
                ),
                tensors(actual[tap]),
                channels,
            )
        ]
        sampling = [
            _sampling_view(name, offsets[name], every, raw, image[0], factor)
            for name in offsets
            if len(offsets[name]) == 2
        ]
    return FeatureViews(
        factor=factor,
        image=_array(image[0]),
        rescaled=_array(moved[0]),
        background=background,
        features=tuple(views),
        sampling=tuple(sampling),
    )


def _array(tensor: Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = tensor.detach().cpu().double().numpy().copy()
    return values


def _views_of_tap(
    tap: str, field: Field, acted: Acted, actual: Sequence[Tensor], count: int
) -> Iterator[FeatureView]:
    """Yield the views of the strongest channels of one tap, level by level."""
    levels = []  # (L_sΦ(f), Φ(L_s f), known), each (C, …, H, W)
    for expected, other, mask in zip(acted.features, actual, acted.masks, strict=True):
        known = torch.ones_like(expected, dtype=torch.bool) if mask is None else mask.expand_as(expected)
        stack = (expected[0], other[0], known[0])
        if isinstance(field, ScaleSpace):
            levels += list(zip(*(part.unbind(1) for part in stack), strict=True))
        else:
            levels.append(stack)
    energy = torch.stack([_energy(expected, known) for expected, _, known in levels]).sum(0)
    many = isinstance(field, ScaleSpace | Pyramid)
    for index in _strongest(energy, count):
        for level, parts in enumerate(levels):
            expected, other, known = (part[index] for part in parts)
            yield FeatureView(
                tap=tap,
                channel=index[0],
                level=level if many else None,
                expected=_array(expected),
                actual=_array(other),
                difference=_array(other - expected),
                known=known.cpu().numpy().copy(),
                component=index[1:],
            )


def _energy(features: Float[Tensor, "*parts h w"], known: Tensor) -> Float[Tensor, "*parts"]:
    kept = torch.where(known & features.isfinite(), features, features.new_zeros(()))
    return kept.cpu().double().square().sum((-2, -1))


def _strongest(energy: Float[Tensor, "*parts"], count: int) -> list[tuple[int, ...]]:
    """Return the indices of the largest energies, in order; of equal ones the first are taken."""
    order = torch.argsort(energy.flatten(), descending=True, stable=True)[:count]
    indices = np.unravel_index(np.sort(order.cpu().numpy()), tuple(energy.shape))
    return [tuple(int(i) for i in index) for index in zip(*indices, strict=True)]


@dataclass
class MapReading:
    """One call of a deformable layer: the size of the plane it reads, and the offsets it predicted."""

    size: tuple[int, int]
    layer: DeformConv
    shifts: Tensor | None = None


@contextmanager
def recorded_offsets(model: Model) -> Iterator[dict[str, list[MapReading]]]:
    """Record the offsets of every ``DeformConv`` inside, call by call, under the layer's name."""
    readings: dict[str, list[MapReading]] = {}
    handles = []
    for name, layer in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(layer, DeformConv):
            calls = readings.setdefault(name, [])

            def entered(module: nn.Module, args: tuple[Tensor, ...], calls: list[MapReading] = calls) -> None:
                assert isinstance(module, DeformConv)
                calls.append(MapReading((args[0].shape[-2], args[0].shape[-1]), module))

            def predicted(
                module: nn.Module, args: object, output: Tensor, calls: list[MapReading] = calls
            ) -> None:
                calls[-1].shifts = output[:, : calls[-1].layer.shifts].detach()

            handles += [
                layer.register_forward_pre_hook(entered),
                layer.offset.register_forward_hook(predicted),
            ]
    try:
        yield readings
    finally:
        for handle in handles:
            handle.remove()


def _sampling_view(
    name: str,
    calls: Sequence[MapReading],
    fields: dict[str, Field],
    features: dict[str, Features],
    image: Float[Tensor, "c h w"],
    factor: float,
) -> SamplingView:
    """Return the points that a layer reads for the brightest points of the picture, and for the same ones of L_s f."""
    height, width = image.shape[-2:]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    start, step = _grid_of(calls[0].size, fields, features, (height, width))
    bright = bright_points(image, POSITIONS)
    at_one = _points(calls[0], bright, start, step)
    at_factor = _points(calls[1], centre + factor * (bright - centre), start, step)
    return SamplingView(name, at_one[0], at_factor[0], at_one[1], at_factor[1])


def bright_points(image: Float[Tensor, "c h w"], count: int) -> NDArray[np.float64]:
    """Return the brightest points (x, y) of a picture that are at least a quarter of its smaller side apart."""
    light = (
        torch.nn.functional.avg_pool2d(image.cpu().abs().sum(0)[None, None], 3, 1, 1)[0, 0].double().numpy()
    )
    rows, columns = np.indices(light.shape)
    free = np.ones(light.shape, dtype=bool)
    points: list[tuple[float, float]] = []
    while len(points) < count and free.any():
        row, column = np.unravel_index(int(np.argmax(np.where(free, light, -np.inf))), light.shape)
        points.append((float(column), float(row)))
        free &= np.hypot(rows - row, columns - column) >= min(light.shape) / 4
    return np.array(points)


def _grid_of(
    size: tuple[int, int], fields: dict[str, Field], features: dict[str, Features], image: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the image coordinate (x, y) of cell 0 of a plane, and its cells' distance in pixels.

    They are those of a tap of that size; without one, the plane spans the picture.
    """
    step = np.array(image) / np.array(size)
    origin: Pair | None = None
    for tap, field in fields.items():
        if isinstance(field, Plane) and tuple(tensors(features[tap])[0].shape[-2:]) == size:
            step, origin = _pair(field.stride), field.origin
            break
    centred = (np.array(image) - 1) / 2 - (np.array(size) - 1) / 2 * step
    start = centred if origin is None else _pair(origin)
    return start[::-1], step[::-1]


def _pair(value: Pair) -> NDArray[np.float64]:
    return np.array(value if isinstance(value, tuple) else (value, value), dtype=np.float64)


def _points(
    call: MapReading, targets: NDArray[np.float64], start: NDArray[np.float64], step: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the output cells nearest to the targets, and the points read for them, all in image coordinates (x, y)."""
    layer = call.layer
    assert call.shifts is not None
    kernel = layer.weight.shape[2:]
    rows, columns = call.shifts.shape[-2:]
    shifts = _array(call.shifts[0]).reshape(-1, kernel[0] * kernel[1], 2, rows, columns)
    taps = np.stack(np.meshgrid(*(np.arange(k) * layer.dilation for k in kernel), indexing="ij"), -1)
    middle = np.array([(k - 1) / 2 * layer.dilation for k in kernel])
    cells, points = [], []
    for target in targets:
        # (row, column) from here on; the cell whose kernel's middle is nearest to the target
        cell = ((target - start) / step)[::-1]
        nearest = np.rint((cell + layer.padding - middle) / layer.stride)
        row, column = (int(i) for i in np.clip(nearest, 0, [rows - 1, columns - 1]))
        corner = np.array([row, column]) * layer.stride - layer.padding
        read = corner + taps.reshape(-1, 2) + shifts[:, :, :, row, column]
        cells.append(start + (corner + middle)[::-1] * step)
        points.append(start + read.reshape(-1, 2)[:, ::-1] * step)
    return np.array(cells), np.array(points)
