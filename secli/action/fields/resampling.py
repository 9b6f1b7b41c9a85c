"""L_s on planes of features: rescaled about the point where the image centre falls, and which cells are inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from secli.action.fields.contract import Canvas, Pair
from secli.action.images import Axis, blur_variance, resample


def rescale_plane(
    features: Float[Tensor, "*batch h w"],
    factor: float,
    canvas: Canvas,
    stride: Pair = 1.0,
    origin: Pair | None = None,
    base_blur: float = 0.0,
    steps: int = 1,
) -> Float[Tensor, "*batch h w"]:
    """Rescale feature planes about the point where the image centre falls.

    The blur has variance (σ² − z²)(1/s² − 1)/stride² in cells for s < 1, σ the pictures' blur and z the field's
    base blur. A magnified picture keeps no blur of its own, but its level 0 is then blurrer than z while the
    lift adds what it always adds: so for s > 1 the variance is z²(1 − 1/s²)/stride².

    Parameters
    ----------
    stride, origin : float or pair
        Image pixels per cell, and the image coordinate of cell 0 (None: grid centre = image centre).
    base_blur : float
        z, in pixels.
    """
    if factor == 1:
        return features
    each = factor ** (1 / steps)
    axes = []
    for axis, pixels in enumerate((canvas.height, canvas.width)):
        n = features.shape[-2 + axis]
        cell = _component(stride, axis)
        centre = _centre(n, pixels, cell, origin, axis)
        supplied = base_blur**2 * (1 / each**2 - 1)
        variance = (blur_variance(each, canvas.blur) - supplied) / cell**2
        axes.append(Axis(n, n, 1 / each, centre, centre, variance, steps))
    return resample(features, axes[0], axes[1])


def resample_plane(
    features: Float[Tensor, "*batch h w"], size: Sequence[int], factor: float, variance: float, steps: int = 1
) -> Float[Tensor, "*batch h_out w_out"]:
    """Rescale planes by a factor of their own cells onto another grid about the same centre.

    The first steps stay on the planes' own grid, the last one reads the new grid.

    Parameters
    ----------
    size : pair
        Cells of the new grid, whose spacing equals the old one's.
    variance : float
        Of the blur applied before, in squared cells.
    """
    each = factor ** (1 / steps)
    for step in range(steps):
        share = variance / steps * each ** (2 * step)
        target = size if step == steps - 1 else features.shape[-2:]
        rows, columns = (
            Axis(n_in, n_out, 1 / each, (n_in - 1) / 2, (n_out - 1) / 2, share)
            for n_in, n_out in zip(features.shape[-2:], target, strict=True)
        )
        features = resample(features, rows, columns)
    return features


def inside(
    features: Float[Tensor, "*batch h w"],
    factor: float,
    canvas: Canvas,
    stride: Pair = 1.0,
    origin: Pair | None = None,
) -> Bool[Tensor, "*ones h w"] | None:
    """Return which cells are at least ``canvas.border`` pixels inside the rescaled picture and the canvas.

    A cell at image coordinate p is inside when |p − c| ≤ min(s, 1)·n/2 − border, on each axis; in a window of a
    photograph, where no frame appears at the rescaled edge, when |p − c| ≤ min(s, 1)·(n/2 − border). None without a
    border on a picture that has no surroundings.
    """
    if canvas.border <= 0 and not canvas.surround:
        return None
    kept = []
    for axis, pixels in enumerate((canvas.height, canvas.width)):
        n, cell = features.shape[-2 + axis], _component(stride, axis)
        centre = _centre(n, pixels, cell, origin, axis)
        away = (torch.arange(n, device=features.device, dtype=torch.float64) - centre).abs() * cell
        least = min(factor, 1.0)
        reach = (
            least * (pixels / 2 - canvas.border) if canvas.surround else least * pixels / 2 - canvas.border
        )
        kept.append(away <= reach)
    mask = kept[0][:, None] & kept[1][None, :]
    return mask.reshape(*(1 for _ in features.shape[:-2]), *mask.shape)


def _component(value: Pair, axis: int) -> float:
    return value[axis] if isinstance(value, tuple) else value


def _centre(n: int, pixels: int, cell: float, origin: Pair | None, axis: int) -> float:
    """Return where the image centre falls on an axis of n cells, in cells."""
    return (n - 1) / 2 if origin is None else ((pixels - 1) / 2 - _component(origin, axis)) / cell


def geometry(stride: Pair, origin: Pair | None) -> str:
    """Describe stride and origin in a few words."""

    def read(value: Pair) -> str:
        return "×".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"

    return f"stride {read(stride)}" + ("" if origin is None else f", origin {read(origin)}")
