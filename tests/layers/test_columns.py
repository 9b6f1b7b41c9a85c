from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from secli.action.fields import Canvas, rescale_plane
from secli.layers.columns import (
    ColumnConv,
    ColumnKernels,
    ColumnLift,
    ColumnNorm,
    column_matrix,
    column_side,
)
from secli.layers.ses import SESPointwise

Golden = Callable[[str], Mapping[str, np.ndarray]]
Difference = Callable[[Any, Any], float]

DTYPES = {torch.float32: 5e-5, torch.float64: 1e-12}
SEVEN = (0.3, 0.45, 0.67, 1.0, 1.49, 2.23, 3.33)


def literal_kernel(kernel: Tensor, side: int, s: float) -> Tensor:
    """One K×K kernel: padded to P, resized by s, brought back to P and to its L1 norm, tap by tap."""
    size = kernel.shape[0]
    if size == 1:
        return kernel
    padded = torch.zeros(side, side, dtype=kernel.dtype)
    first = (side - size) // 2
    padded[first : first + size, first : first + size] = kernel
    taps = int(side * s) if s != 1 else side
    if s < 1:
        shrunk = functional.interpolate(padded[None, None], (taps, taps), mode="bilinear", align_corners=True)
        sized = shrunk[0, 0]
    else:
        rows = [
            torch.stack([padded[math.floor(i / s), math.floor(j / s)] for j in range(taps)])
            for i in range(taps)
        ]
        sized = torch.stack(rows)
    back = torch.zeros(side, side, dtype=kernel.dtype)
    offset = (side - taps) // 2
    for i in range(side):
        for j in range(side):
            if 0 <= i - offset < taps and 0 <= j - offset < taps:
                back[i, j] = sized[i - offset, j - offset]
    return back * (kernel.abs().sum() / back.abs().sum())


def literal(x: Tensor, layer: ColumnKernels) -> Tensor:
    """y_k = x_k ⋆ D_k w, one column, one output and one input channel at a time; x_k = x for a lift."""
    columns = []
    for k, s in enumerate(layer.scales):
        seen = x if x.ndim == 4 else x[:, :, k]
        outputs = []
        for weights in layer.weight:
            total: Any = 0
            for c, kernel in enumerate(weights):
                sized = literal_kernel(kernel, layer.side, s)[None, None]
                total = total + functional.conv2d(
                    seen[:, c : c + 1], sized, None, layer.stride, layer.padding
                )
            outputs.append(total)
        columns.append(torch.cat(outputs, dim=1))
    return torch.stack(columns, dim=2)


@given(
    size=st.tuples(st.integers(9, 14), st.integers(9, 14)),
    kernel=st.sampled_from([1, 3, 5]),
    scales=st.lists(st.sampled_from([0.67, 0.9, 1.0, 1.2, 1.5, 2.23]), min_size=1, max_size=3, unique=True),
    stride=st.integers(1, 2),
    padding=st.sampled_from([None, 1, 4]),
    lift=st.booleans(),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_columns_are_the_formula(
    size: tuple[int, int],
    kernel: int,
    scales: list[float],
    stride: int,
    padding: int | None,
    lift: bool,
    dtype: torch.dtype,
) -> None:
    kind = ColumnLift if lift else ColumnConv
    layer = kind(2, 3, kernel, sorted(scales), stride, padding, dtype=dtype)
    x = torch.randn(2, 2, *(() if lift else (len(scales),)), *size, dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), literal(x, layer), rtol=DTYPES[dtype], atol=DTYPES[dtype])


def published(columns: Tensor) -> Tensor:
    """(N, C, S, H, W) as published: channels ordered (column, out)."""
    return columns.transpose(1, 2).flatten(1, 2)


def test_columns_agree_with_the_golden_vectors(golden: Golden, difference: Difference) -> None:
    z = {key: torch.from_numpy(value) for key, value in golden("si_convs").items()}
    scales = tuple(z["scales"].tolist())
    lift, conv = ColumnLift(2, 3, 7, scales), ColumnConv(3, 4, 7, scales)
    lift.load_state_dict({"weight": z["sicnn_weight1"]})
    conv.load_state_dict({"weight": z["sicnn_weight2"]})
    first = lift(z["siconvnet_x"])
    assert difference(published(first), z["sicnn_y1"]) < 1e-5
    assert difference(published(conv(first)), z["sicnn_y2"]) < 1e-5
    # the check can fail: a hundredth in one scale is another column
    other = ColumnLift(2, 3, 7, (*scales[:-1], 3.2))
    other.load_state_dict(lift.state_dict())
    assert difference(published(other(z["siconvnet_x"])), z["sicnn_y1"]) > 1e-3


def test_small_columns_agree_with_the_golden_vectors(golden: Golden, difference: Difference) -> None:
    z = {key: torch.from_numpy(value) for key, value in golden("si_convs").items() if key != "scales"}
    lift = ColumnLift(2, 3, 3, (0.67, 1, 1.5))
    lift.load_state_dict({"weight": z["sicnn3_weight"]})
    assert difference(published(lift(z["sicnn3_x"])), z["sicnn3_y"]) < 1e-5


@pytest.mark.parametrize(
    ("size", "scales", "side"),
    [
        (7, SEVEN, 23),
        (3, (0.67, 1, 1.5), 5),
        (1, SEVEN, 1),
        (5, (0.5, 1), 5),
        (3, (0.5,), 3),
        (5, (2.0,), 11),
    ],
)
def test_the_side_holds_every_column(size: int, scales: tuple[float, ...], side: int) -> None:
    assert column_side(size, scales) == side


def test_the_smallest_columns_cost_few_taps() -> None:
    layer = ColumnLift(1, 1, 7, SEVEN)
    assert [kernel.shape[-1] for kernel in layer.kernels()] == [3, 5, 5, 7, 11, 17, 23]


@given(kernel=st.sampled_from([3, 5, 7]), scale=st.sampled_from(SEVEN))
def test_every_column_has_the_norm_of_the_learned_kernel(kernel: int, scale: float) -> None:
    assume(kernel * scale > 2)  # else nothing is left of it
    layer = ColumnLift(2, 3, kernel, sorted({1.0, scale}), dtype=torch.float64)
    norms = [each.abs().sum((-2, -1)) for each in layer.kernels()]
    torch.testing.assert_close(norms[0], norms[-1], rtol=1e-12, atol=1e-12)


def test_a_kernel_of_zeros_stays_one_and_learns() -> None:
    layer = ColumnLift(1, 2, 3, (0.67, 1, 1.5))
    with torch.no_grad():
        layer.weight[0] = 0
    y = layer(torch.rand(1, 1, 8, 8))
    y.sum().backward()
    assert not y[:, 0].any()
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()
    assert layer.weight.grad[0].any()


def test_pointwise_kernels_are_shared_unchanged() -> None:
    x = torch.randn(2, 3, 3, 8, 9)
    columns, pointwise = ColumnConv(3, 4, 1, (0.67, 1, 1.5), stride=2), SESPointwise(3, 4, 2, bias=False)
    pointwise.load_state_dict(columns.state_dict())
    torch.testing.assert_close(columns(x), pointwise(x))


def test_columns_do_not_meet() -> None:
    x, conv = torch.randn(1, 2, 3, 9, 9), ColumnConv(2, 2, 3, (0.67, 1, 1.5))
    other = x.clone()
    other[:, :, 1] += 1
    changed = (conv(x) - conv(other)).flatten(3).abs().amax(dim=(0, 1, 3)) > 0
    assert changed.tolist() == [False, True, False]


def test_a_shrunk_picture_is_answered_by_the_column_of_smaller_kernels() -> None:
    """The columns are the levels of a scale space: column σ of L_sf is column σ/s of f, rescaled.

    Any other column is the control that fails. What remains is the staircase of nearest taps, and their half pixel.
    """
    n, scales = 65, (1.0, 2.0, 4.0)
    lift = ColumnLift(1, 3, 7, scales, dtype=torch.float64).requires_grad_(False)
    grid = torch.arange(7, dtype=torch.float64) - 3
    bell = torch.exp(-(grid**2) / 3)
    lift.weight[:, 0] = torch.stack([bell.outer(bell), (grid * bell).outer(bell), bell.outer(grid * bell)])
    place = torch.arange(n, dtype=torch.float64) - n // 2

    def picture(s: float) -> Tensor:
        left, right = (torch.exp(-(((place / s - c) / 5) ** 2)) for c in (-6.0, 4.0))
        return (left.outer(right) - right.outer(left) / 2).view(1, 1, n, n)

    whole = lift(picture(1.0))
    for s, shift in ((0.5, 1), (0.25, 2)):
        small = lift(picture(s))
        for k in range(3 - shift):
            errors = []
            for j in range(3):
                moved = rescale_plane(whole[:, :, j], s, Canvas(n, n, blur=0.0))
                errors.append(float((moved - small[:, :, k]).square().sum() / moved.square().sum()))
            right = errors.pop(k + shift)
            assert right < 0.02
            assert min(errors) > 4 * right


def test_each_column_is_normalised_alone() -> None:
    norm = ColumnNorm(2, 3)
    x = torch.randn(8, 2, 3, 5, 5) * torch.tensor([1.0, 3.0, 9.0]).view(3, 1, 1) + 2
    y = norm(x)
    torch.testing.assert_close(y.mean((0, 3, 4)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((0, 3, 4), correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)
    assert norm.weight.shape == norm.running_var.shape == (6,)  # type: ignore[union-attr]
    torch.testing.assert_close(norm.running_mean.view(2, 3), 0.1 * x.mean((0, 3, 4)))  # type: ignore[union-attr]


def test_only_the_learned_kernel_is_in_a_checkpoint() -> None:
    layer = ColumnLift(1, 1, 3, (0.67, 1, 1.5))
    assert set(layer.state_dict()) == {"weight"}
    assert {name for name, _ in layer.named_buffers()} == {"resize0", "resize2"}


def test_the_nearest_tap_of_the_largest_column_is_on_the_kernel() -> None:
    for side in range(1, 40, 2):
        for s in (1.01, 1.1, 1.49, 2.0, 2.23, 3.33, 7.9):
            assert (column_matrix(3, max(side, 3), s).sum(dim=1) <= 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1, 4, (1.0,)), "kernel size must be odd and positive, not 4"),
        ((1, 1, 3, ()), r"scales must be positive and increasing, not \(\)"),
        ((1, 1, 3, (1.0, 0.5)), r"scales must be positive and increasing, not \(1.0, 0.5\)"),
        ((1, 1, 3, (0.0, 0.5)), r"scales must be positive and increasing, not \(0.0, 0.5\)"),
        ((1, 1, 3, (0.2, 1.0, 3.0)), "nothing is left of a 3×3 kernel at scale 0.2"),
        ((1, 1, 3, (0.3, 1.0, 3.0)), "nothing is left of a 3×3 kernel at scale 0.3"),
        ((1, 1, 7, (0.05, 1.0)), "nothing is left of a 7×7 kernel at scale 0.05"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColumnLift(*arguments)


def test_a_wrong_number_of_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="the layer has 3 levels, its input 2"):
        ColumnConv(1, 1, 3, (0.67, 1, 1.5))(torch.zeros(1, 1, 2, 8, 8))
    with pytest.raises(ValueError, match="the layer has 3 levels, its input 2"):
        ColumnNorm(1, 3)(torch.zeros(1, 1, 2, 8, 8))
