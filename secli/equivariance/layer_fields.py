"""The grid of a layer's output, and how L_s acts there, when only the features before it are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from secli.action.fields import Canvas, Field, Invariant, Pair, Plane, ScaleSpace, VectorField
from secli.layers.columns import ColumnLift
from secli.layers.gaussian import ScaleSpaceLift
from secli.layers.pyramid import PyramidLift
from secli.layers.rotation import RotationLift
from secli.layers.ses import SESLift
from secli.layers.vector_field import VectorFieldConv, VectorFieldLift
from secli.models.contract import Features

OnGrid = (Plane, ScaleSpace, VectorField)
"""The fields with a stride and an origin."""


class Declared(NamedTuple):
    """A tap with its field and the shapes of its tensors."""

    field: Field
    shapes: tuple[torch.Size, ...]


class LayerReading(NamedTuple):
    """Cell j of a layer's output has its centre at ``step · j + start``, in cells of its input."""

    step: float
    start: float


def declared_taps(taps: dict[str, Field], features: dict[str, Features]) -> dict[str, Declared]:
    """Return the taps' fields with their shapes."""
    shapes = {
        tap: tuple(tensor.shape for tensor in (value if isinstance(value, list) else [value]))
        for tap, value in features.items()
    }
    return {tap: Declared(field, shapes[tap]) for tap, field in taps.items() if tap in shapes}


def field_of(shape: Sequence[int], declared: Sequence[Declared], canvas: Canvas) -> Field | None:
    """Return the field of features of which only the shape is known.

    It is that of a tap of the same shape; else of the kind of a tap with the same axes between channels and plane (the
    levels of a scale space, say), on a grid that spans the picture; else (N, C, H, W) is a plane and (N, D) has none.
    None when the axes are unknown.
    """
    for tap in declared:
        if len(tap.shapes) == 1 and tuple(tap.shapes[0][1:]) == tuple(shape[1:]):
            return tap.field
    if len(shape) == 2:
        return Invariant()
    if len(shape) < 4:
        return None
    spanning = canvas.height / shape[-2], canvas.width / shape[-1]
    for tap in declared:
        template, other = tap.field, tap.shapes[0]
        if isinstance(template, OnGrid) and len(other) == len(shape) and other[2:-2] == tuple(shape[2:-2]):
            return replace(template, stride=spanning, origin=None)
    return Plane(stride=spanning) if len(shape) == 4 else None


def output_field(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    before: Field | None,
    declared: Sequence[Declared],
    canvas: Canvas,
) -> Field | None:
    """Return the field of a layer's output y, from its input x with the field ``before``, on the grid of its window.

    ``declared`` are taps, the likeliest first, which determine axes between channels and plane.
    """
    if acts_on_last_axis(module, x):
        return (
            before if before is not None and not isinstance(before, OnGrid) and y.shape == x.shape else None
        )
    if y.ndim < 4 or not isinstance(before, OnGrid):
        return before if y.shape == x.shape else field_of(y.shape, declared, canvas)
    grid = [
        _output_axis(before, module, x, y, axis, pixels)
        for axis, pixels in enumerate((canvas.height, canvas.width))
    ]
    kind = _output_kind(module, x, y, before, declared, canvas)
    if not isinstance(kind, OnGrid):
        return kind
    return replace(kind, stride=(grid[0][0], grid[1][0]), origin=(grid[0][1], grid[1][1]))


def acts_on_last_axis(module: nn.Module, x: Tensor) -> bool:
    """Return whether a layer requires channels last: torch's own linear layer or layer norm on three or more axes."""
    if x.ndim < 3:
        return False
    # subclasses may permute the axes themselves
    return type(module) is nn.Linear or (type(module) is nn.LayerNorm and len(module.normalized_shape) == 1)


def _output_axis(
    before: Plane | ScaleSpace | VectorField, module: nn.Module, x: Tensor, y: Tensor, axis: int, pixels: int
) -> tuple[float, float]:
    """Return stride and image coordinate of cell 0 of a layer's output, along one axis."""
    step, start = layer_reading(module, x, y, axis)
    stride, first = axis_grid(before.stride, before.origin, axis, x.shape[-2 + axis], pixels)
    return stride * step, first + stride * start


def _output_kind(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    before: Plane | ScaleSpace | VectorField,
    declared: Sequence[Declared],
    canvas: Canvas,
) -> Field | None:
    """Return a field with the axes of a layer's output; its grid is still to be set."""
    if isinstance(module, SESLift | ColumnLift):
        return ScaleSpace(tuple(module.scales))
    if isinstance(module, VectorFieldLift | VectorFieldConv):
        return VectorField(1 / module.base, module.angle_step, module.levels)
    if isinstance(module, RotationLift):
        return Plane()  # the rotations ride along
    if isinstance(module, ScaleSpaceLift):
        pixel = before.stride[0] if isinstance(before.stride, tuple) else before.stride
        # beyond the pictures' own blur there is nothing left for L_s to add
        blur = min(module.z * pixel, canvas.blur)
        return ScaleSpace(tuple(module.base**k for k in range(module.levels)), base_blur=blur)
    if y.ndim == x.ndim and y.shape[2:-2] == x.shape[2:-2]:
        interaction = int(getattr(module, "interaction", 1))
        if isinstance(before, ScaleSpace) and interaction > 1:
            # the interaction of the top levels is truncated by the end of the stack
            cut = min(len(before.scales), before.truncated + interaction - 1)
            return replace(before, truncated=cut)
        return before
    if y.ndim == 4:
        return Plane()
    if isinstance(before, ScaleSpace) and y.ndim == x.ndim and y.shape[2] < x.shape[2]:
        # the top levels are dropped, with those that would have been unknown
        levels = y.shape[2]
        return replace(before, scales=before.scales[:levels], truncated=min(before.truncated, levels))
    return field_of(y.shape, declared, canvas)


def output_levels(
    module: nn.Module, x: Tensor | None, outputs: Sequence[Tensor], before: Field | None, canvas: Canvas
) -> list[Plane]:
    """Return the planes of a layer's output that is a list of tensors, from its input x with the field ``before``.

    After a ``PyramidLift`` cells of level k are b^k cells of its input apart, about the input's centre; after
    another layer every tensor spans the picture.
    """
    if x is None or not isinstance(module, PyramidLift) or not isinstance(before, Plane):
        return [Plane(stride=(canvas.height / y.shape[-2], canvas.width / y.shape[-1])) for y in outputs]
    planes = []
    for k, y in enumerate(outputs):
        strides, origins = [], []
        for axis, pixels in enumerate((canvas.height, canvas.width)):
            cells = x.shape[-2 + axis]
            step, first = axis_grid(before.stride, before.origin, axis, cells, pixels)
            wide = step * module.base**k
            strides.append(wide)
            origins.append(first + step * (cells - 1) / 2 - wide * (y.shape[-2 + axis] - 1) / 2)
        planes.append(Plane((strides[0], strides[1]), (origins[0], origins[1])))
    return planes


def axis_grid(stride: Pair, origin: Pair | None, axis: int, cells: int, pixels: int) -> tuple[float, float]:
    """Return one axis's stride, and the image coordinate of cell 0 also where the grid is centred.

    Examples
    --------
    >>> axis_grid(2.0, None, 0, 14, 28)
    (2.0, 0.5)
    """
    step = stride[axis] if isinstance(stride, tuple) else stride
    if origin is None:
        return step, (pixels - 1) / 2 - step * (cells - 1) / 2
    return step, origin[axis] if isinstance(origin, tuple) else origin


def layer_reading(module: nn.Module, x: Tensor, y: Tensor, axis: int) -> LayerReading:
    """Return the positions of a layer's output cells along one axis of the plane, in cells of its input.

    From the layer's own kernel, stride, padding and dilation where they explain the size of the output; cell
    by cell where the size stays; else from the support of the input gradient of two cells in the middle; else by
    equal blocks.
    """
    n, m = x.shape[-2 + axis], y.shape[-2 + axis]
    declared = _window_reading(module, axis, n, m)
    if declared is not None:
        return declared
    if n == m:
        return LayerReading(1.0, 0.0)
    blocks = LayerReading(n / m, (n / m - 1) / 2)
    if m > n or m < 2:
        return blocks
    return _probed_reading(module, x, y, axis) or blocks


def _window_reading(module: nn.Module, axis: int, n: int, m: int) -> LayerReading | None:
    """Return step and start of a layer that declares its window, if that explains n cells becoming m."""
    kernel = _setting(module, ("kernel_size", "size", "kernel"), axis)
    if kernel is None and isinstance(weight := getattr(module, "weight", None), Tensor) and weight.ndim >= 4:
        kernel = weight.shape[-2 + axis]
    if kernel is None:
        return None
    pooling = "Pool" in type(module).__name__
    stride = _setting(module, ("stride",), axis) or (kernel if pooling else 1)
    dilation = _setting(module, ("dilation",), axis) or 1
    extent = dilation * (kernel - 1)
    padding: int | None
    if (named := getattr(module, "padding", 0)) == "same":
        padding, padded = extent // 2, extent
    else:
        padding = 0 if named == "valid" else _setting(module, ("padding",), axis) or 0
        padded = 2 * padding
    if "Transpose" in type(module).__name__:
        grown = (n - 1) * stride - padded + extent + 1
        return LayerReading(1 / stride, (padding - extent / 2) / stride) if 0 <= m - grown < stride else None
    full, rest = divmod(n + padded - extent - 1, stride)
    # one cell more where the last, incomplete window counts too (ceil_mode)
    if m == full + 1 or (rest and m == full + 2):
        return LayerReading(float(stride), extent / 2 - padding)
    return None


def _setting(module: nn.Module, names: Sequence[str], axis: int) -> int | None:
    """Return a layer's integer setting for one axis of the plane, from its first attribute that holds one."""
    for name in names:
        value: Any = getattr(module, name, None)
        if isinstance(value, (tuple, list)) and value:
            value = value[-2:][axis] if len(value) > 1 else value[0]
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _probed_reading(module: nn.Module, x: Tensor, y: Tensor, axis: int) -> LayerReading | None:
    """Return step and start from the input cells on which two neighbouring outputs in the middle depend.

    The middle of the support of the input gradient, not its centroid, which random weights would move.
    """
    # enough random images that a maximum falls on every cell of its window once
    shape = (16, *x.shape[1:])
    cells = [size // 2 for size in y.shape[-2:]]
    middles = []
    with torch.inference_mode(False), torch.enable_grad():
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(x.device, x.dtype)
        for offset in (-1, 0):
            probe = noise.clone().requires_grad_()
            chosen = list(cells)
            chosen[axis] += offset
            output = module(probe + 0)
            if not isinstance(output, Tensor) or output.shape[1:] != y.shape[1:] or not output.requires_grad:
                return None
            (gradient,) = torch.autograd.grad(output[..., chosen[0], chosen[1]].sum(), probe)
            along = gradient.abs().movedim(-2 + axis, 0).flatten(1).amax(1)
            support = along.nonzero().flatten()
            if len(support) == 0:
                return None
            middles.append(float(support[0] + support[-1]) / 2)
    step = middles[1] - middles[0]
    if step <= 0:
        return None
    return LayerReading(step, middles[1] - step * cells[axis])
