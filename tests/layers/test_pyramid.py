from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from secli.layers.pyramid import (
    PyramidBatchNorm,
    PyramidConv,
    PyramidLift,
    PyramidPool,
    PyramidStack,
    level_size,
)

DTYPES = {torch.float32: 5e-5, torch.float64: 1e-11}


def read(plane: Tensor, row: float, column: float) -> float:
    """Read a plane bilinearly, with zeros outside."""
    value = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for q in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < plane.shape[0] and 0 <= q < plane.shape[1]:
                value += (1 - abs(row - r)) * (1 - abs(column - q)) * float(plane[r, q])
    return value


def literal_resampled(x: Tensor, size: tuple[int, int], step: float) -> Tensor:
    """Read planes cell by cell, ``step`` apart, about one centre."""
    centres = [(n - 1) / 2 for n in x.shape[2:]]
    y = torch.zeros(*x.shape[:2], *size, dtype=x.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            row = centres[0] + (i - (size[0] - 1) / 2) * step
            column = centres[1] + (j - (size[1] - 1) / 2) * step
            for n in range(x.shape[0]):
                for c in range(x.shape[1]):
                    y[n, c, i, j] = read(x[n, c], row, column)
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("base", [1.3, 2.0])
@pytest.mark.parametrize("multiple", [1, 4])
def test_the_lift_is_the_formula(dtype: torch.dtype, base: float, multiple: int) -> None:
    x = torch.randn(1, 2, 9, 12, dtype=dtype)
    levels = PyramidLift(base, 3, multiple)(x)
    assert len(levels) == 3
    for k, level in enumerate(levels):
        size = (level_size(9, base, k, multiple), level_size(12, base, k, multiple))
        expected = literal_resampled(x, size, base**k)
        torch.testing.assert_close(level, expected, rtol=DTYPES[dtype], atol=DTYPES[dtype])


@pytest.mark.parametrize("size", [16, 28])
def test_where_the_ratio_divides_the_side_the_lift_is_torch_s_own_interpolation(size: int) -> None:
    x = torch.rand(2, 3, size, size)
    for k, level in enumerate(PyramidLift(2.0, 3)(x)):
        expected = functional.interpolate(x, scale_factor=0.5**k, mode="bilinear", align_corners=False)
        torch.testing.assert_close(level, expected)
    assert PyramidLift(2.0, 3)(x)[0] is x
    # where it does not, torch counts its cells from the corner: another picture, off the centre
    other = functional.interpolate(x, scale_factor=1 / 3, mode="bilinear", align_corners=False)
    ours = PyramidLift(3.0, 2)(x)[1]
    assert ours.shape[-1] == math.ceil(size / 3) > other.shape[-1]


@given(
    size=st.integers(4, 60),
    base=st.floats(1.1, 3),
    level=st.integers(0, 5),
    multiple=st.integers(1, 8),
)
def test_levels_cover_the_picture_and_little_more(size: int, base: float, level: int, multiple: int) -> None:
    cells = level_size(size, base, level, multiple)
    assert cells % multiple == 0
    assert cells * base**level >= size * (1 - 1e-6)
    assert (cells - multiple) * base**level < size


def test_whole_ratios_need_no_extra_cell() -> None:
    assert [level_size(49, 1.4, k) for k in range(3)] == [49, 35, 25]
    assert [level_size(28, 2.0, k, 4) for k in range(5)] == [28, 16, 8, 4, 4]


@pytest.mark.parametrize("size", [12, 13, 15])
def test_every_level_lies_about_the_centre(size: int) -> None:
    """A mirrored picture has mirrored levels, whatever its size."""
    x = torch.rand(1, 1, size, size)
    for multiple in (1, 4):
        lift = PyramidLift(1.7, 4, multiple)
        for level, mirrored in zip(lift(x), lift(x.flip(-1)), strict=True):
            torch.testing.assert_close(level.flip(-1), mirrored)


def literal_conv(pyramid: list[Tensor], layer: PyramidConv) -> list[Tensor]:
    """y_k = Σ_j (R_j x_{k+j}) ⋆ w_j, one level, one term, one place at a time."""
    out, _, interaction, size, _ = layer.weight.shape
    levels = []
    for k in range(layer.out_levels):
        height, width = pyramid[k].shape[2:]
        terms = [
            literal_resampled(pyramid[k + j], (height, width), layer.base**-j)
            for j in range(min(interaction, len(pyramid) - k))
        ]
        padded = [functional.pad(term, [layer.padding] * 4) for term in terms]
        rows, columns = ((n + 2 * layer.padding - size) // layer.stride + 1 for n in (height, width))
        y = torch.zeros(pyramid[k].shape[0], out, rows, columns, dtype=pyramid[k].dtype)
        for i in range(rows):
            for j in range(columns):
                for term, x in enumerate(padded):
                    window = x[
                        :,
                        :,
                        i * layer.stride : i * layer.stride + size,
                        j * layer.stride : j * layer.stride + size,
                    ]
                    y[:, :, i, j] += (window[:, None] * layer.weight[:, :, term]).sum(dim=(2, 3, 4)).detach()
        levels.append(y if layer.bias is None else y + layer.bias.detach().view(-1, 1, 1))
    return levels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("interaction", "drop_top", "stride", "padding", "bias"),
    [
        (1, False, 1, None, False),
        (2, False, 1, None, True),
        (2, True, 1, 0, False),
        (3, False, 2, 2, False),
        (3, True, 1, None, True),
    ],
)
def test_the_convolution_is_the_formula(
    interaction: int, drop_top: bool, stride: int, padding: int | None, bias: bool, dtype: torch.dtype
) -> None:
    pyramid = PyramidLift(1.5, 3)(torch.randn(2, 2, 9, 10, dtype=dtype))
    layer = PyramidConv(2, 3, 3, 1.5, 3, interaction, drop_top, stride, padding, bias, dtype=dtype)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    y = layer(pyramid)
    assert len(y) == (4 - interaction if drop_top else 3)
    for ours, literal in zip(y, literal_conv(pyramid, layer), strict=True):
        torch.testing.assert_close(ours, literal, rtol=DTYPES[dtype], atol=DTYPES[dtype])


def smooth(size: int, scale: float) -> Tensor:
    """Two blobs, seen from twice as far where ``scale`` is half as large."""
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2

    def blob(row: float, column: float, width: float) -> Tensor:
        rows = torch.exp(-((at / scale - row) ** 2) / (2 * width**2))
        columns = torch.exp(-((at / scale - column) ** 2) / (2 * width**2))
        return torch.outer(rows, columns)

    return (blob(3, -6, 6) - blob(-8, 5, 8)).view(1, 1, size, size)


def moved_level_by_level(shift: int, interaction: int) -> float:
    """‖level k of the shrunk picture − level k + shift of the picture‖ over the latter, after two convolutions."""
    lift = PyramidLift(2.0, 5)
    layers = [
        PyramidConv(1, 4, 3, 2.0, 5, interaction, True, dtype=torch.float64),
        PyramidConv(4, 4, 3, 2.0, 6 - interaction, interaction, True, dtype=torch.float64),
    ]
    results = []
    for scale in (1.0, 0.5):
        y: list[Tensor] = lift(smooth(128, scale))
        for layer in layers:
            y = layer(y)
        results.append(y)
    error, size = 0.0, 0.0
    for k in range(len(results[0]) - shift):
        whole, shrunk = results[0][k + shift], results[1][k]
        # both lie about the centre; the shrunk picture's level has the larger margin
        inner = functional.pad(shrunk, [(whole.shape[-1] - shrunk.shape[-1]) // 2] * 4)
        error += float((inner - whole).square().sum().detach())
        size += float(whole.square().sum().detach())
    return error / size


@pytest.mark.parametrize("interaction", [1, 2])
def test_a_shrunk_picture_moves_along_the_levels(interaction: int) -> None:
    assert moved_level_by_level(1, interaction) < 0.01
    torch.manual_seed(0)
    assert moved_level_by_level(0, interaction) > 0.5


def test_pooling_is_level_by_level() -> None:
    pyramid = PyramidLift(2.0, 3, multiple=2)(torch.rand(2, 3, 10, 12))
    for level, pooled in zip(pyramid, PyramidPool(2, "mean")(pyramid), strict=True):
        assert torch.equal(pooled, functional.avg_pool2d(level, 2))
    for level, pooled in zip(pyramid, PyramidPool(2)(pyramid), strict=True):
        assert torch.equal(pooled, functional.max_pool2d(level, 2))


def test_norm_counts_every_cell_once() -> None:
    pyramid = PyramidLift(1.5, 3)(torch.rand(4, 3, 9, 9, dtype=torch.float64))
    norm = PyramidBatchNorm(3, dtype=torch.float64)
    y = norm(pyramid)
    assert [level.shape for level in y] == [level.shape for level in pyramid]
    cells = torch.cat([level.flatten(2) for level in y], dim=2)
    torch.testing.assert_close(cells.mean(dim=(0, 2)), torch.zeros(3, dtype=torch.float64))
    before = torch.cat([level.flatten(2) for level in pyramid], dim=2)
    torch.testing.assert_close(norm.running_mean, 0.1 * before.mean(dim=(0, 2)))
    # one map for all levels
    norm.eval()
    for level, normed in zip(pyramid, norm(pyramid), strict=True):
        expected = functional.batch_norm(level, norm.running_mean, norm.running_var)
        torch.testing.assert_close(normed, expected)


def test_stacking_takes_the_maximum_over_the_coarsest_level_s_cells() -> None:
    pyramid = PyramidLift(2.0, 3)(torch.rand(2, 3, 16, 12))
    stacked = PyramidStack(2.0)(pyramid)
    assert stacked.shape == (2, 3, 3, 4, 3)
    assert torch.equal(stacked[:, :, 2], pyramid[2])
    assert torch.equal(stacked[:, :, 1], functional.max_pool2d(pyramid[1], 2))
    assert torch.equal(stacked[:, :, 0], functional.max_pool2d(pyramid[0], 4))


@pytest.mark.parametrize(("base", "size", "even"), [(2.0, 28, True), (1.5, 28, False), (1.3, 17, True)])
def test_windows_of_all_levels_see_the_same_part_of_the_picture(base: float, size: int, even: bool) -> None:
    """A spot in the middle of a coarse cell is brightest in that cell's window, on every level."""
    lift = PyramidLift(base, 4, multiple=4)
    cells, width = level_size(size, base, 3, 4), base**3
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2

    def missed(stack: nn.Module) -> int:
        count = 0
        for i in range(cells):
            place = (i - (cells - 1) / 2) * width
            if abs(place) <= size / 2 - 2:
                spot = torch.exp(-((at - place) ** 2) / (2 * (width / 5) ** 2))
                windows = stack(lift(torch.outer(spot, spot).view(1, 1, size, size)))[0, 0]
                count += int((windows[:, i, i] < windows.amax(dim=(1, 2))).sum())
        return count

    assert missed(PyramidStack(base)) == 0
    # where levels reach differently far, their own sizes would not do
    assert (missed(PyramidStack(1.0)) == 0) is even


def test_weights_are_he_normal() -> None:
    layer = PyramidConv(32, 64, 3, 2.0, 4, interaction=2)
    assert layer.weight.shape == (64, 32, 2, 3, 3)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 2 * 9)), rel=0.02)
    assert set(layer.state_dict()) == {"weight"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PyramidLift(1.0, 3), "base must be greater than 1, not 1"),
        (lambda: PyramidLift(2.0, 0), "levels and multiple must be at least 1, not 0 and 1"),
        (lambda: PyramidLift(2.0, 1, 0), "levels and multiple must be at least 1, not 1 and 0"),
        (lambda: PyramidConv(1, 1, 4, 2.0, 3), "kernel size must be odd and positive, not 4"),
        (lambda: PyramidConv(1, 1, 3, 1.0, 3), "base must be greater than 1, not 1"),
        (lambda: PyramidConv(1, 1, 3, 2.0, 3, 4), "interaction must be 1 to 3 .the levels., not 4"),
        (
            lambda: PyramidConv(1, 1, 3, 2.0, 3)([torch.zeros(1, 1, 8, 8)] * 2),
            "the layer has 3 levels, its input 2",
        ),
    ],
)
def test_bad_arguments_are_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
