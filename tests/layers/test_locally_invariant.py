from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from secli.layers.canvas import canvas_matrix, canvas_operator, resized
from secli.layers.locally_invariant import SIConv, resize_on_canvas

Golden = Callable[[str], Mapping[str, np.ndarray]]
Difference = Callable[[Any, Any], float]

DTYPES = {torch.float32: 2e-5, torch.float64: 1e-12}


def read(plane: Tensor, row: float, column: float) -> float:
    """Bilinear reading between the four cells around a place, the last cells standing for what lies behind them."""
    height, width = plane.shape
    top, left = min(math.floor(row), height - 1), min(math.floor(column), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = row - top, column - left
    upper = (1 - along) * plane[top, left] + along * plane[top, right]
    lower = (1 - along) * plane[bottom, left] + along * plane[bottom, right]
    return float((1 - down) * upper + down * lower)


def literal_resize(x: Tensor, cells: tuple[int, int]) -> Tensor:
    """Resize with aligned corners, cell by cell; then copy into the middle of an empty canvas, cell by cell."""
    height, width = x.shape[-2:]
    tall, wide = cells
    y = torch.zeros_like(x)
    for i in range(tall):
        for j in range(wide):
            row, column = i + (height - tall) // 2, j + (width - wide) // 2
            if not (0 <= row < height and 0 <= column < width):
                continue
            for n in range(x.shape[0]):
                for c in range(x.shape[1]):
                    y[n, c, row, column] = read(
                        x[n, c], i * (height - 1) / max(tall - 1, 1), j * (width - 1) / max(wide - 1, 1)
                    )
    return y


def literal(x: Tensor, layer: SIConv) -> Tensor:
    """y = max_s T_{1/s}(T_s x ⋆ w + b), one scale at a time."""
    best: Tensor | None = None
    for s in layer.scales:
        cells = tuple(max(1, int(n * s)) for n in x.shape[-2:])
        y = literal_resize(x, cells) if s != 1 else x  # type: ignore[arg-type]
        y = functional.conv2d(y, layer.weight, layer.bias, layer.stride, layer.padding)
        back = tuple(max(1, int(n / s)) for n in y.shape[-2:])
        y = literal_resize(y, back) if s != 1 else y  # type: ignore[arg-type]
        best = y if best is None else torch.maximum(best, y)
    assert best is not None
    return best


@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.sampled_from([1, 3, 5]),
    scales=st.lists(st.sampled_from([0.3, 0.45, 0.67, 1.0, 1.49, 2.23, 3.33]), min_size=1, max_size=3),
    stride=st.integers(1, 2),
    padding=st.sampled_from([None, 1, 2]),
    bias=st.booleans(),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_the_layer_is_the_formula(
    size: tuple[int, int],
    kernel: int,
    scales: list[float],
    stride: int,
    padding: int | None,
    bias: bool,
    dtype: torch.dtype,
) -> None:
    layer = SIConv(2, 3, kernel, scales, stride, padding, bias, dtype=dtype)
    x = torch.randn(1, 2, *size, dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), literal(x, layer), rtol=DTYPES[dtype], atol=DTYPES[dtype])


@pytest.mark.parametrize("key", ["siconvnet", "siconvnet14"])
def test_the_layer_agrees_with_the_golden_vectors(golden: Golden, difference: Difference, key: str) -> None:
    z = golden("si_convs")
    state = {name: torch.from_numpy(z[f"siconvnet_{name}"]) for name in ("weight", "bias")}
    layer = SIConv(2, 3, 7, tuple(z["scales"].tolist()))
    layer.load_state_dict(state)
    x = torch.from_numpy(z[f"{key}_x"])
    assert difference(layer(x), z[f"{key}_y"]) < 1e-5
    # the check can fail: without one scale it is another function
    fewer = SIConv(2, 3, 7, tuple(z["scales"].tolist())[1:])
    fewer.load_state_dict(state)
    assert difference(fewer(x), z[f"{key}_y"]) > 1e-3


@given(
    n=st.integers(1, 40),
    cells=st.integers(1, 60),
)
def test_resizing_is_interpolation_in_the_middle_of_the_canvas(n: int, cells: int) -> None:
    """Against torch's own interpolation, cropped or padded."""
    x = torch.randn(1, 1, n, dtype=torch.float64)
    wide = functional.interpolate(x, cells, mode="linear", align_corners=True)
    left = (n - cells) // 2
    expected = functional.pad(wide, (left, n - cells - left))
    torch.testing.assert_close(x @ canvas_matrix(n, cells).T, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 28])
def test_resizing_to_the_same_size_changes_nothing(n: int) -> None:
    assert torch.equal(canvas_matrix(n, n), torch.eye(n, dtype=torch.float64))


def test_sizes_are_rounded_down_as_numbers_not_as_floats() -> None:
    assert [resized(28, s) for s in (0.3, 0.45, 0.67, 1, 1.49, 2.23, 3.33)] == [8, 12, 18, 28, 41, 62, 93]
    assert [resized(28, 1 / s) for s in (0.3, 0.45, 0.67, 1, 1.49, 2.23, 3.33)] == [93, 62, 41, 28, 18, 12, 8]
    assert 100 * 0.29 < 29
    assert resized(100, 0.29) == 29
    assert resized(3, 0.3) == 1


def test_scale_one_is_untouched() -> None:
    x = torch.randn(2, 2, 9, 11)
    assert resize_on_canvas(x, 1.0) is x
    layer = SIConv(2, 3, 3, (1,), stride=2, padding=0)
    assert torch.equal(layer(x), functional.conv2d(x, layer.weight, layer.bias, stride=2))


def test_more_scales_never_lower_a_response() -> None:
    x = torch.randn(2, 2, 16, 16)
    few, more = SIConv(2, 3, 5, (0.67, 1)), SIConv(2, 3, 5, (0.67, 1, 1.49))
    more.load_state_dict(few.state_dict())
    assert (more(x) >= few(x)).all()
    assert not torch.equal(more(x), few(x))


def test_the_answer_to_a_larger_picture_is_the_larger_answer() -> None:
    """A difference of Gaussians sees spots of every size alike, and answers where they are.

    The same kernel at one scale is the control that fails.
    """
    n = 65
    grid = torch.arange(n, dtype=torch.float64) - n // 2
    near = grid[29:36].square()[:, None] + grid[29:36].square()
    kernel = torch.exp(-near / 2) / 2 - torch.exp(-near / 4) / 4

    def layer(scales: tuple[float, ...]) -> SIConv:
        network = SIConv(1, 1, 7, scales, bias=False, dtype=torch.float64).requires_grad_(False)
        network.weight[0, 0] = kernel - kernel.mean()
        return network

    def spot(radius: float) -> Tensor:
        return torch.exp(-(grid[:, None] ** 2 + grid**2) / (2 * radius**2)).view(1, 1, n, n)

    def peaks(network: SIConv) -> float:
        """The largest of the peaks that spots of five sizes give, over the smallest."""
        answers = [float(network(spot(radius)).max()) for radius in (1.5, 2.0, 3.0, 4.5, 6.0)]
        return max(answers) / min(answers)

    def error(network: SIConv, s: float) -> float:
        expected, given = resize_on_canvas(network(spot(3.0)), s), network(spot(3.0 * s))
        inner = (..., slice(8, n - 8), slice(8, n - 8))
        return float((expected - given)[inner].square().sum() / expected[inner].square().sum())

    invariant, plain = layer(tuple(1.25**j for j in range(-8, 5))), layer((1.0,))
    assert peaks(invariant) < 1.25
    assert peaks(plain) > 5
    for s in (0.5, 1.5):
        assert error(invariant, s) < error(plain, s) / 3


def test_matrices_are_built_once() -> None:
    first = canvas_operator(28, 12, torch.float32, torch.device("cpu"))
    assert canvas_operator(28, 12, torch.float32, torch.device("cpu")) is first
    assert not SIConv(1, 1, 3, (0.5, 1)).state_dict().keys() - {"weight", "bias"}


def test_a_matrix_kept_in_inference_mode_serves_training_too() -> None:
    layer = SIConv(1, 1, 3, (0.517, 1))
    with torch.inference_mode():
        layer(torch.rand(1, 1, 23, 23))
    layer(torch.rand(1, 1, 23, 23)).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1, 4, (1.0,)), "kernel size must be odd and positive, not 4"),
        ((1, 1, 3, ()), r"scales must be positive, not \(\)"),
        ((1, 1, 3, (1.0, 0.0)), r"scales must be positive, not \(1.0, 0.0\)"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SIConv(*arguments)
