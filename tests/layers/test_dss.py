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

from secli.layers.dss import Dilation, DSSConv, dilations, splatting

Golden = Callable[[str], Mapping[str, np.ndarray]]
Difference = Callable[[Any, Any], float]

DTYPES = {torch.float32: 5e-5, torch.float64: 1e-12}


def spread(kernel: Tensor, dilation: float) -> Tensor:
    """One K×K kernel with its taps ``dilation`` apart, each tap shared among the four cells around it."""
    radius = kernel.shape[0] // 2
    reach = math.ceil(radius * dilation)
    padded: dict[tuple[int, int], Any] = {}
    for i in range(-radius, radius + 1):
        for j in range(-radius, radius + 1):
            row, column = i * dilation, j * dilation
            top, left = math.floor(row), math.floor(column)
            for r, down in ((top, 1 - (row - top)), (top + 1, row - top)):
                for c, right in ((left, 1 - (column - left)), (left + 1, column - left)):
                    if down * right > 0:
                        share = down * right * kernel[radius + i, radius + j]
                        padded[r, c] = padded.get((r, c), 0) + share
    rows = [
        torch.stack(
            [torch.as_tensor(padded.get((r, c), 0), dtype=kernel.dtype) for c in range(-reach, reach + 1)]
        )
        for r in range(-reach, reach + 1)
    ]
    return torch.stack(rows)


def literal(x: Tensor, layer: DSSConv, base: float, how: Dilation) -> Tensor:
    """y_k = Σ_j x_{k+j} ⋆ D_k w_j: zero-stuffed kernels, one level, one channel, one term at a time."""
    out, channels, interaction, size, _ = layer.weight.shape
    levels = []
    for k in range(layer.out_levels):
        dilation = base**k
        dilation = math.floor(dilation) if how == "floor" else dilation
        dilation = math.floor(dilation + 0.5) if how == "round" else dilation
        total: Any = torch.zeros(()) if layer.bias is None else layer.bias.view(-1, 1, 1)
        for j in range(min(interaction, x.shape[2] - k)):
            for c in range(channels):
                kernels = torch.stack([spread(layer.weight[o, c, j], dilation) for o in range(out)])
                padding = layer.padding + (kernels.shape[-1] - size) // 2
                total = total + functional.conv2d(
                    x[:, c : c + 1, k + j], kernels.unsqueeze(1), None, layer.stride, padding
                )
        levels.append(total)
    return torch.stack(levels, dim=2)


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(6, 10), st.integers(6, 10)),
    size=st.sampled_from([1, 3, 5]),
    base=st.sampled_from([1.3, 1.5, 2.0]),
    levels=st.integers(1, 4),
    interaction=st.integers(1, 3),
    how=st.sampled_from(["floor", "round", "exact"]),
    drop_top=st.booleans(),
    stride=st.integers(1, 2),
    padding=st.sampled_from([None, 0, 1, 4]),
    bias=st.booleans(),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_scale_convolution_is_the_formula(
    shape: tuple[int, int, int],
    size: int,
    base: float,
    levels: int,
    interaction: int,
    how: Dilation,
    drop_top: bool,
    stride: int,
    padding: int | None,
    bias: bool,
    dtype: torch.dtype,
) -> None:
    assume(interaction <= levels)
    torch.manual_seed(0)
    layer = DSSConv(2, 3, size, base, levels, interaction, how, drop_top, stride, padding, bias, dtype=dtype)
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(shape[0], 2, levels, *shape[1:], dtype=dtype)
    y = layer(x)
    assert y.shape[2] == (levels - interaction + 1 if drop_top else levels)
    torch.testing.assert_close(y, literal(x, layer, base, how), rtol=DTYPES[dtype], atol=DTYPES[dtype])


@pytest.mark.parametrize(
    ("key", "base", "interaction", "size"),
    [
        ("conv_base2_k1", 2.0, 1, 3),
        ("conv_base2_k2", 2.0, 2, 3),
        ("conv_base2_k3", 2.0, 3, 3),
        ("conv_base15_k2", 1.5, 2, 7),
    ],
)
def test_scale_convolution_agrees_with_the_golden_vectors(
    golden: Golden, difference: Difference, key: str, base: float, interaction: int, size: int
) -> None:
    z = golden("dss")
    layer = DSSConv(3, 4, size, base, 4, interaction)
    layer.load_state_dict({"weight": torch.from_numpy(z[f"{key}_weight"])})
    x = torch.from_numpy(z[f"{key}_x"])
    assert difference(layer(x), z[f"{key}_y"]) < 1e-5
    # dropping the top leaves the levels that remain as they were
    dropped = DSSConv(3, 4, size, base, 4, interaction, drop_top=True)
    dropped.load_state_dict(layer.state_dict())
    assert difference(dropped(x), z[f"{key}_y"][:, :, : 5 - interaction]) < 1e-5
    # the check can fail: other dilations are another function
    other = DSSConv(3, 4, size, 1.3, 4, interaction)
    other.load_state_dict(layer.state_dict())
    assert difference(other(x), z[f"{key}_y"]) > 0.1


@pytest.mark.parametrize(
    ("base", "how", "expected"),
    [
        (1.2, "floor", (1, 1, 1, 1)),
        (1.3, "floor", (1, 1, 1, 2)),
        (1.4, "floor", (1, 1, 1, 2)),
        (1.5, "floor", (1, 1, 2, 3)),
        (2.0, "floor", (1, 2, 4, 8)),
        (2**0.5, "floor", (1, 1, 2, 2)),
        (1.5, "round", (1, 2, 2, 3)),
        (1.2, "round", (1, 1, 1, 2)),
        (1.5, "exact", (1, 1.5, 2.25, 3.375)),
        (2**0.5, "exact", (1, 2**0.5, 2, 2**1.5)),
    ],
)
def test_dilations(base: float, how: Dilation, expected: tuple[float, ...]) -> None:
    assert dilations(base, 4, how) == pytest.approx(expected)


def test_exact_whole_dilations_are_whole() -> None:
    assert all(d.is_integer() for d in dilations(2**0.5, 5, "exact")[::2])


@given(size=st.sampled_from([1, 3, 5, 7]), dilation=st.floats(1, 6))
def test_splatting_keeps_sum_and_first_moment(size: int, dilation: float) -> None:
    matrix = splatting(size, dilation).numpy()
    cells = np.arange(len(matrix)) - len(matrix) // 2
    taps = (np.arange(size) - size // 2) * dilation
    np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(cells @ matrix, taps, atol=1e-6)


def test_splatting_by_a_whole_factor_is_dilation() -> None:
    matrix = splatting(3, 2.0)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_weights_are_he_normal() -> None:
    torch.manual_seed(0)
    layer = DSSConv(32, 64, 3, 2.0, 4, interaction=2)
    assert layer.weight.shape == (64, 32, 2, 3, 3)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 2 * 9)), rel=0.02)
    assert layer.bias is None


def test_only_learned_weights_are_in_a_checkpoint() -> None:
    layer = DSSConv(1, 1, 3, 1.5, 4, dilation="exact")
    assert {name for name, _ in layer.named_buffers()} == {"splat1", "splat2", "splat3"}
    assert set(layer.state_dict()) == {"weight"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1, 4, 2.0, 4), "kernel size must be odd and positive, not 4"),
        ((1, 1, 3, 1.0, 4), "base must be greater than 1, not 1"),
        ((1, 1, 3, 2.0, 4, 5), "interaction must be 1 to 4 .the levels., not 5"),
        ((1, 1, 3, 2.0, 4, 0), "interaction must be 1 to 4 .the levels., not 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DSSConv(*arguments)


def test_a_wrong_number_of_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="the layer has 4 levels, its input 3"):
        DSSConv(1, 1, 3, 2.0, 4)(torch.zeros(1, 1, 3, 8, 8))
