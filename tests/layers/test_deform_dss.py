from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from secli.layers.deform_dss import DeformableDSSConv, Offsets
from secli.layers.dss import Dilation, DSSConv

DTYPES = {torch.float32: 5e-5, torch.float64: 1e-11}


def read(plane: Tensor, row: float, column: float) -> float:
    """Read a plane bilinearly, with zeros outside."""
    value = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for q in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < plane.shape[0] and 0 <= q < plane.shape[1]:
                value += (1 - abs(row - r)) * (1 - abs(column - q)) * float(plane[r, q])
    return value


def dilation_of(base: float, k: int, how: Dilation) -> float:
    return {"floor": math.floor(base**k), "round": math.floor(base**k + 0.5), "exact": base**k}[how]


def literal(x: Tensor, layer: DeformableDSSConv, base: float, how: Dilation) -> Tensor:
    """y_k(p) = Σ_j Σ_i w_{j,i} x_{k+j}(p + d p_i + m Δ_{k,i}(p)), tap by tap, Δ_k read from x_k likewise."""
    out, channels, interaction, size, _ = layer.weight.shape
    radius, per_group = size // 2, channels // layer.groups
    taps = list(itertools.product(range(-radius, radius + 1), repeat=2))
    n, _, levels, height, width = x.shape
    rows, columns = ((side + 2 * layer.padding - size) // layer.stride + 1 for side in (height, width))
    v, b = layer.offset.weight[:, :, 0].detach(), layer.offset.bias
    assert b is not None
    y = torch.zeros(n, out, layer.out_levels, rows, columns, dtype=x.dtype)
    for image, k, i, j in itertools.product(range(n), range(layer.out_levels), range(rows), range(columns)):
        d = dilation_of(base, k, how)
        spacing, times = (d, d) if layer.offsets == "scaled" else (1, 1)
        at = (i * layer.stride - layer.padding + radius, j * layer.stride - layer.padding + radius)
        shift = b.detach().clone()
        for c, (t, tap) in itertools.product(range(channels), enumerate(taps)):
            value = read(x[image, c, k], at[0] + spacing * tap[0], at[1] + spacing * tap[1])
            shift += v[:, c, t // size, t % size] * value
        for c, (t, tap) in itertools.product(range(channels), enumerate(taps)):
            first = 2 * ((c // per_group) * size**2 + t)
            row = at[0] + d * tap[0] + times * float(shift[first])
            column = at[1] + d * tap[1] + times * float(shift[first + 1])
            for term in range(min(interaction, levels - k)):
                weight = layer.weight[:, c, term, t // size, t % size].detach()
                y[image, :, k, i, j] += weight * read(x[image, c, k + term], row, column)
        if layer.bias is not None:
            y[image, :, k, i, j] += layer.bias.detach()
    return y


def deformed(layer: DeformableDSSConv, std: float = 0.2) -> DeformableDSSConv:
    """Give the branch random weights."""
    with torch.no_grad():
        for parameter in layer.offset.parameters():
            parameter.normal_(std=std)
    return layer


@pytest.mark.parametrize("offsets", ["absolute", "scaled"])
@pytest.mark.parametrize(
    ("interaction", "groups", "how", "drop_top", "stride", "padding", "bias"),
    [
        (1, 1, "floor", False, 1, None, False),
        (2, 2, "floor", False, 1, None, True),
        (2, 1, "exact", True, 2, 2, False),
        (1, 2, "exact", False, 1, 0, True),
        (2, 2, "round", False, 2, None, False),
    ],
)
def test_it_is_the_formula(
    offsets: Offsets,
    interaction: int,
    groups: int,
    how: Dilation,
    drop_top: bool,
    stride: int,
    padding: int | None,
    bias: bool,
) -> None:
    layer = deformed(
        DeformableDSSConv(
            2,
            2,
            3,
            1.5,
            3,
            interaction,
            how,
            drop_top,
            groups,
            offsets,
            stride,
            padding,
            bias,
            dtype=torch.float64,
        )
    )
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(1, 2, 3, 5, 6, dtype=torch.float64)
    expected = literal(x, layer, 1.5, how)
    torch.testing.assert_close(layer(x), expected)
    single = DeformableDSSConv(
        2, 2, 3, 1.5, 3, interaction, how, drop_top, groups, offsets, stride, padding, bias
    )
    single.load_state_dict(layer.state_dict())
    torch.testing.assert_close(single(x.float()), expected.float(), rtol=1e-4, atol=1e-4)
    # the check can fail: the other kind of offsets is another function
    layer.offsets = "scaled" if offsets == "absolute" else "absolute"
    assert not torch.allclose(layer(x), expected, atol=1e-2)


@given(
    size=st.sampled_from([1, 3, 5]),
    base=st.sampled_from([1.3, 1.5, 2.0]),
    levels=st.integers(1, 4),
    interaction=st.integers(1, 2),
    how=st.sampled_from(["floor", "round", "exact"]),
    drop_top=st.booleans(),
    groups=st.integers(1, 2),
    offsets=st.sampled_from(["absolute", "scaled"]),
    stride=st.integers(1, 2),
    padding=st.sampled_from([None, 0, 4]),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_at_the_start_it_is_the_scale_convolution(
    size: int,
    base: float,
    levels: int,
    interaction: int,
    how: Dilation,
    drop_top: bool,
    groups: int,
    offsets: Offsets,
    stride: int,
    padding: int | None,
    dtype: torch.dtype,
) -> None:
    """Reading between cells is the adjoint of splatting between them: ``exact`` agrees too, at borders as well."""
    torch.manual_seed(0)
    interaction = min(interaction, levels)
    moving = DeformableDSSConv(
        2,
        3,
        size,
        base,
        levels,
        interaction,
        how,
        drop_top,
        groups,
        offsets,
        stride,
        padding,
        True,
        dtype=dtype,
    )
    plain = DSSConv(2, 3, size, base, levels, interaction, how, drop_top, stride, padding, True, dtype=dtype)
    plain.load_state_dict({key: value for key, value in moving.state_dict().items() if "offset" not in key})
    x = torch.randn(2, 2, levels, 9, 7, dtype=dtype)
    expected = plain(x)
    assert (moving(x) - expected).norm() <= (1e-6 if dtype == torch.float32 else 1e-14) * expected.norm()


def test_the_branch_draws_no_random_number() -> None:
    """So a network with it has the weights that the one without it has."""
    torch.manual_seed(3)
    moving = DeformableDSSConv(2, 3, 3, 2.0, 4)
    after = torch.rand(1)
    torch.manual_seed(3)
    plain = DSSConv(2, 3, 3, 2.0, 4)
    assert torch.equal(moving.weight, plain.weight)
    assert torch.equal(after, torch.rand(1))


def nested(levels: int, radius: int) -> Tensor:
    """Levels x_k(i) = u(i/2^k), i = −radius … radius, of one bilinear function u: each contains the one before."""
    u = torch.randn(2, 2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    cells = range(-radius, radius + 1)
    return torch.stack(
        [
            torch.tensor(
                [
                    [[read(plane, radius + i / 2**k, radius + j / 2**k) for j in cells] for i in cells]
                    for plane in u
                ],
                dtype=torch.float64,
            )
            for k in range(levels)
        ],
        dim=1,
    ).unsqueeze(0)


@pytest.mark.parametrize("interaction", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_scaled_offsets_are_equivariant_and_absolute_ones_are_not(interaction: int, groups: int) -> None:
    """y_{k+1}(2i) = y_k(i), exactly, where levels are one function at scales 1, 2, 4."""
    x = nested(3, 20)
    layer = DeformableDSSConv(
        2, 2, 3, 2.0, 3, interaction, groups=groups, offsets="scaled", drop_top=True, dtype=torch.float64
    )
    deformed(layer, 0.1)
    absolute = DeformableDSSConv(
        2, 2, 3, 2.0, 3, interaction, groups=groups, offsets="absolute", drop_top=True, dtype=torch.float64
    )
    absolute.load_state_dict(layer.state_dict())

    def error(conv: DeformableDSSConv, k: int) -> float:
        y, r = conv(x), 3  # cells so near the centre that no border is read
        fine = y[0, :, k, 20 - r : 21 + r, 20 - r : 21 + r]
        coarse = y[0, :, k + 1, 20 - 2 * r : 21 + 2 * r : 2, 20 - 2 * r : 21 + 2 * r : 2]
        return float(((fine - coarse).norm() / fine.norm()).detach())

    for k in range(layer.out_levels - 1):
        assert error(layer, k) < 1e-12
        assert error(absolute, k) > 0.05


def test_with_interaction_the_lowest_level_moves_the_taps() -> None:
    """Offsets of level k come from level k alone: what is mixed in changes what is read, not where."""
    layer = deformed(DeformableDSSConv(2, 2, 3, 2.0, 2, 2, offsets="scaled", dtype=torch.float64))
    x = torch.randn(1, 2, 2, 9, 9, dtype=torch.float64)
    higher = torch.zeros_like(x)
    higher[:, :, 1] = 1.0
    lower = x.clone()
    lower[:, :, 1] = 0.0
    both = [layer(lower + t * higher)[:, :, 0] for t in (0.0, 1.0, 2.0)]
    torch.testing.assert_close(both[2] - both[1], both[1] - both[0])  # linear in level 1
    assert not torch.allclose(both[1], both[0])


def test_offsets_of_whole_pixels_shift_the_level() -> None:
    """One row down: by one pixel everywhere, or by the dilation of each level."""
    x = torch.randn(1, 2, 3, 16, 16)
    cases: dict[Offsets, tuple[int, ...]] = {"absolute": (1, 1, 1), "scaled": (1, 2, 4)}
    for offsets, rows in cases.items():
        layer = DeformableDSSConv(2, 3, 3, 2.0, 3, offsets=offsets)
        plain = DSSConv(2, 3, 3, 2.0, 3)
        plain.load_state_dict({"weight": layer.weight.detach()})
        assert layer.offset.bias is not None
        with torch.no_grad():
            layer.offset.bias[0::2] = 1.0
        y, still = layer(x), plain(x)
        for k, down in enumerate(rows):
            torch.testing.assert_close(y[:, :, k, 4:8], still[:, :, k, 4 + down : 8 + down])


@pytest.mark.parametrize("offsets", ["absolute", "scaled"])
def test_the_branch_starts_at_zero_and_learns(offsets: Offsets) -> None:
    layer = DeformableDSSConv(4, 3, 3, 1.5, 4, groups=2, dilation="exact", offsets=offsets)
    assert layer.offset.weight.shape == (36, 4, 1, 3, 3)
    assert not layer.offset.weight.any()
    layer(torch.randn(2, 4, 4, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())
    assert set(layer.state_dict()) == {"weight", "offset.weight", "offset.bias"}


@pytest.mark.parametrize("offsets", ["absolute", "scaled"])
def test_forward_mode_gives_the_finite_difference(offsets: Offsets) -> None:
    layer = deformed(
        DeformableDSSConv(2, 3, 3, 1.5, 3, 2, "exact", groups=2, offsets=offsets, dtype=torch.float64), 0.4
    )
    x, v, h = torch.rand(1, 2, 3, 7, 8).double(), torch.randn(1, 2, 3, 7, 8).double(), 1e-6
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")  # torch's own, at first use
        tangent = torch.func.jvp(layer, (x,), (v,))[1]
        difference = (layer(x + h * v) - layer(x - h * v)) / (2 * h)
    torch.testing.assert_close(tangent, difference, rtol=1e-6, atol=1e-6)


def test_bfloat16_keeps_its_places() -> None:
    """A pixel of a wide plane, and a fractional tap, have no coordinate in bfloat16."""
    layer = DeformableDSSConv(1, 1, 3, 1.3, 4, dilation="exact")
    half = DeformableDSSConv(1, 1, 3, 1.3, 4, dilation="exact", dtype=torch.bfloat16)
    half.load_state_dict(layer.state_dict())
    x = torch.randn(1, 1, 4, 5, 600)
    y, exact = half(x.bfloat16()), layer(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: DeformableDSSConv(4, 5, 3, 2.0, 4, groups=3),
            "deformable groups 3 do not divide the 4 input",
        ),
        (
            lambda: DeformableDSSConv(4, 5, 3, 2.0, 4, groups=0),
            "deformable groups 0 do not divide the 4 input",
        ),
        (lambda: DeformableDSSConv(1, 1, 4, 2.0, 4), "kernel size must be odd and positive, not 4"),
        (lambda: DeformableDSSConv(1, 1, 3, 1.0, 4), "base must be greater than 1, not 1"),
        (lambda: DeformableDSSConv(1, 1, 3, 2.0, 4, 5), "interaction must be 1 to 4 .the levels., not 5"),
        (
            lambda: DeformableDSSConv(1, 1, 3, 2.0, 4)(torch.zeros(1, 1, 3, 8, 8)),
            "the layer has 4 levels, its input 3",
        ),
    ],
)
def test_bad_arguments_are_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
