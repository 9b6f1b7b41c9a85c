from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torchvision.ops import deform_conv2d

from secli.layers.deformable import DeformConv, sampled_deform_conv2d
from secli.layers.sampling import in_forward_mode

DTYPES = {torch.float32: 2e-5, torch.float64: 1e-11}


def literal(
    x: Tensor, shifts: Tensor, weight: Tensor, mask: Tensor | None, stride: int, padding: int, dilation: int
) -> Tensor:
    """y(p) = Σ_i w_i m_i(p) x(p + p_i + Δ_i(p)), place by place, with bilinear reading and zeros outside."""
    n, channels, height, width = x.shape
    out, _, side, _ = weight.shape
    groups = shifts.shape[1] // (2 * side * side)
    rows, columns = shifts.shape[2:]
    y = torch.zeros(n, out, rows, columns, dtype=x.dtype)

    def read(b: int, c: int, row: float, column: float) -> float:
        value = 0.0
        for r in (math.floor(row), math.floor(row) + 1):
            for q in (math.floor(column), math.floor(column) + 1):
                if 0 <= r < height and 0 <= q < width:
                    value += (1 - abs(row - r)) * (1 - abs(column - q)) * float(x[b, c, r, q])
        return value

    for b in range(n):
        for i in range(rows):
            for j in range(columns):
                for c in range(channels):
                    group = c // (channels // groups)
                    for tap in range(side * side):
                        at = group * side * side + tap
                        down, right = float(shifts[b, 2 * at, i, j]), float(shifts[b, 2 * at + 1, i, j])
                        row = i * stride - padding + (tap // side) * dilation + down
                        column = j * stride - padding + (tap % side) * dilation + right
                        strength = 1.0 if mask is None else float(mask[b, at, i, j])
                        value = strength * read(b, c, row, column)
                        y[b, :, i, j] += weight[:, c, tap // side, tap % side] * value
    return y


def case(
    height: int,
    width: int,
    groups: int,
    side: int,
    stride: int,
    padding: int,
    dilation: int,
    zero: bool,
    dtype: Any,
) -> tuple[Tensor, ...]:
    rows = (height + 2 * padding - dilation * (side - 1) - 1) // stride + 1
    columns = (width + 2 * padding - dilation * (side - 1) - 1) // stride + 1
    x = torch.randn(2, 4, height, width, dtype=dtype)
    shifts = torch.randn(2, 2 * groups * side**2, rows, columns, dtype=dtype) * (0.0 if zero else 2.0)
    mask = torch.rand(2, groups * side**2, rows, columns, dtype=dtype)
    weight = torch.randn(3, 4, side, side, dtype=dtype)
    bias = torch.randn(3, dtype=dtype)
    return tuple(tensor.requires_grad_() for tensor in (x, shifts, weight, bias, mask))


def test_sampling_is_the_formula() -> None:
    torch.manual_seed(0)
    x, shifts, weight, _, mask = (t.detach() for t in case(5, 4, 2, 3, 1, 1, 1, False, torch.float64))
    for masks in (None, mask):
        y = sampled_deform_conv2d(x, shifts, weight, None, 1, 1, 1, masks)
        torch.testing.assert_close(y, literal(x, shifts, weight, masks, 1, 1, 1))
    x, shifts, weight, _, mask = (t.detach() for t in case(7, 6, 1, 3, 2, 0, 2, False, torch.float64))
    y = sampled_deform_conv2d(x, shifts, weight, None, 2, 0, 2, mask)
    torch.testing.assert_close(y, literal(x, shifts, weight, mask, 2, 0, 2))


@given(
    height=st.integers(5, 17),
    width=st.integers(5, 17),
    groups=st.sampled_from([1, 2, 4]),
    side=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    zero=st.booleans(),
    masked=st.booleans(),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_sampling_and_torchvision_are_one_function_with_one_gradient(
    height: int,
    width: int,
    groups: int,
    side: int,
    stride: int,
    padding: int,
    dilation: int,
    zero: bool,
    masked: bool,
    dtype: torch.dtype,
) -> None:
    """Also at zero offsets, where bilinear reading has a kink and both must take the same side."""
    torch.manual_seed(0)
    x, shifts, weight, bias, mask = case(height, width, groups, side, stride, padding, dilation, zero, dtype)
    inputs = (x, shifts, weight, bias, *((mask,) if masked else ()))
    results = []
    for function in (deform_conv2d, sampled_deform_conv2d):
        y = function(
            x,
            shifts,
            weight,
            bias,
            stride=stride,
            padding=padding,
            dilation=dilation,
            mask=mask if masked else None,
        )
        results.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
    for theirs, ours in zip(*results, strict=True):
        assert (ours - theirs).norm() <= DTYPES[dtype] * (1 + theirs.norm())


@pytest.mark.parametrize("groups", [1, 2])
def test_at_the_start_it_is_the_plain_convolution(groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 11)
    layer = DeformConv(4, 5, 3, stride=2, padding=1, groups=groups)
    plain = functional.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(x), plain)
    modulated = DeformConv(4, 5, 3, padding=1, groups=groups, modulated=True, bias=False)
    torch.testing.assert_close(modulated(x), 0.5 * functional.conv2d(x, modulated.weight, padding=1))
    # the check can fail: moved taps are another function
    assert layer.offset.bias is not None
    torch.nn.init.constant_(layer.offset.bias, 0.3)
    assert not torch.allclose(layer(x), plain, atol=0.05)


def test_offsets_of_whole_pixels_shift_the_image() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 8, 8)
    layer = DeformConv(2, 3, 3, padding=1)
    assert layer.offset.bias is not None
    with torch.no_grad():
        layer.offset.bias[0::2] = 1.0  # rows
        layer.offset.bias[1::2] = -2.0  # columns
    plain = functional.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x)[..., 1:6, 3:7], plain[..., 2:7, 1:5])


def test_the_branch_starts_at_zero_and_learns() -> None:
    torch.manual_seed(0)
    layer = DeformConv(2, 3, 3, padding=1, modulated=True)
    assert layer.offset.weight.shape == (27, 2, 3, 3)
    assert not layer.offset.weight.any()
    layer(torch.randn(2, 2, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="deformable groups 3 do not divide the 4 input channels"):
        DeformConv(4, 5, 3, groups=3)


def test_bfloat16_keeps_its_places() -> None:
    """Places are computed in float32: in bfloat16 a pixel of a large image has no coordinate of its own."""
    torch.manual_seed(0)
    layer = DeformConv(1, 1, 3, padding=1, dtype=torch.bfloat16)
    x = torch.randn(1, 1, 5, 600, dtype=torch.bfloat16)
    plain = functional.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), plain, rtol=0.05, atol=0.05)


def test_a_forward_mode_tangent_is_seen_wherever_it_is_carried() -> None:
    x, weight = torch.rand(1, 1, 4, 4), torch.rand(2, 1, 3, 3)
    assert not in_forward_mode(x, weight)
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")  # torch's own, at first use
        assert in_forward_mode(x, forward_ad.make_dual(weight, weight))  # type: ignore[no-untyped-call]
        assert in_forward_mode(forward_ad.make_dual(x, x), weight)  # type: ignore[no-untyped-call]
        assert not in_forward_mode(x, weight)


@pytest.mark.parametrize("modulated", [False, True])
def test_forward_mode_gives_the_finite_difference(modulated: bool) -> None:
    torch.manual_seed(0)
    layer = DeformConv(4, 6, 3, padding=1, groups=2, modulated=modulated, dtype=torch.float64)
    torch.nn.init.normal_(layer.offset.weight, std=0.3)
    torch.nn.init.normal_(layer.offset.bias, std=0.5)  # type: ignore[arg-type]
    x, v, h = torch.rand(2, 4, 9, 11).double(), torch.randn(2, 4, 9, 11).double(), 1e-6
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")  # torch's own, at first use
        tangent = torch.func.jvp(layer, (x,), (v,))[1]
        difference = (layer(x + h * v) - layer(x - h * v)) / (2 * h)
    torch.testing.assert_close(tangent, difference, rtol=1e-6, atol=1e-6)
