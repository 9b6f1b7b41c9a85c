from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from secli.action.fields import Plane
from secli.equivariance.forward_mode import check_tangents
from secli.layers.spatial_transformer import SpatialTransformer, affine_resampled
from secli.models.contract import Stage, StagedModel

DTYPES = {torch.float32: 2e-5, torch.float64: 1e-12}


def literal(x: Tensor, difference: Tensor) -> Tensor:
    """y(u) = x(A u + t), pixel by pixel, with bilinear reading and zeros outside."""
    n, channels, height, width = x.shape
    y = torch.zeros_like(x)
    for b in range(n):
        (a00, a01, t0), (a10, a11, t1) = difference[b].tolist()
        for i in range(height):
            for j in range(width):
                right, down = (2 * j + 1) / width - 1, (2 * i + 1) / height - 1
                at_right, at_down = (1 + a00) * right + a01 * down + t0, a10 * right + (1 + a11) * down + t1
                row, column = ((at_down + 1) * height - 1) / 2, ((at_right + 1) * width - 1) / 2
                for r in (math.floor(row), math.floor(row) + 1):
                    for q in (math.floor(column), math.floor(column) + 1):
                        if 0 <= r < height and 0 <= q < width:
                            for c in range(channels):
                                y[b, c, i, j] += (1 - abs(row - r)) * (1 - abs(column - q)) * x[b, c, r, q]
    return y


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(size=sizes, strength=st.floats(0.1, 1), dtype=st.sampled_from(list(DTYPES)))
def test_resampling_is_the_formula(size: tuple[int, int], strength: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, *size, dtype=dtype)
    difference = strength * torch.randn(2, 2, 3, dtype=dtype)
    expected = literal(x.double(), difference.double()).to(dtype)
    torch.testing.assert_close(
        affine_resampled(x, difference), expected, rtol=DTYPES[dtype], atol=DTYPES[dtype]
    )


@given(size=sizes, strength=st.floats(0.1, 1))
def test_resampling_is_that_of_affine_grid(size: tuple[int, int], strength: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    difference = strength * torch.randn(2, 2, 3, dtype=torch.float64)
    theta = difference + torch.eye(2, 3, dtype=torch.float64)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    torch.testing.assert_close(
        affine_resampled(x, difference), functional.grid_sample(x, grid, align_corners=False)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [(28, 28), (27, 96), (1, 3)])
def test_no_difference_moves_nothing(size: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, *size).to(dtype)
    assert torch.equal(affine_resampled(x, torch.zeros(2, 2, 3, dtype=dtype)), x)


def test_shifts_and_quarter_turns_of_whole_pixels() -> None:
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    shift, turn = torch.zeros(2, 1, 2, 3, dtype=torch.float64)
    shift[:, 0, 2] = 3 * 2 / 8  # reads three columns to the right: the picture moves to the left
    expected = functional.pad(x, (0, 3))[..., 3:]
    torch.testing.assert_close(affine_resampled(x, shift), expected)
    turn[:, :, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64) - torch.eye(2)
    torch.testing.assert_close(affine_resampled(x, turn), torch.rot90(x, 1, (-2, -1)))


def test_zeros_come_in_from_outside() -> None:
    half = torch.eye(2, 3).unsqueeze(0)  # A = 2: the picture at half its size
    y = affine_resampled(torch.ones(1, 1, 16, 16), half)
    assert y[0, 0, 5:11, 5:11].eq(1).all()
    assert y[0, 0, :4].eq(0).all()
    assert y[0, 0, 12:].eq(0).all()


def transformer(moving: bool = True, channels: int = 1) -> SpatialTransformer:
    look = nn.Sequential(nn.Conv2d(channels, 4, 5), nn.Softplus(), nn.AdaptiveAvgPool2d(2))
    layer = SpatialTransformer(look, 16)
    if moving:
        nn.init.normal_(layer.linear.weight, std=0.3)
        nn.init.normal_(layer.linear.bias, std=0.1)
    return layer


def test_at_the_start_the_picture_stays_and_the_linear_map_learns() -> None:
    layer, x = transformer(moving=False), torch.rand(2, 1, 28, 28)
    y = layer(x)
    assert torch.equal(y, x)
    (y * torch.randn_like(y)).sum().backward()
    assert layer.linear.weight.grad is not None
    assert layer.linear.weight.grad.any()


def test_pictures_move_each_by_its_own_map() -> None:
    layer, x = transformer(), torch.rand(2, 1, 12, 15)
    with torch.no_grad():
        y = layer(x)
        assert (layer.difference(x)[0] - layer.difference(x)[1]).abs().max() > 1e-4
        torch.testing.assert_close(y[1:], layer(x[1:]))
        torch.testing.assert_close(y, literal(x, layer.difference(x)), rtol=2e-5, atol=2e-5)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script"
)  # forward mode compiles formulas of its own at first use
def test_the_gradient_is_the_finite_difference() -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    difference = (0.3 * torch.randn(1, 2, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(affine_resampled, (x, difference), check_forward_ad=True)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script"
)  # forward mode compiles formulas of its own at first use
def test_the_forward_tangent_is_right() -> None:
    """Through pictures and map alike, as the Lie derivative asks; a map that is held fixed gives another."""
    pictures = torch.rand(2, 1, 28, 28)
    for layer in (transformer(), transformer(moving=False)):
        check_tangents(StagedModel([Stage("transformed", layer, Plane())]).eval(), pictures)
    layer, x = transformer().double(), pictures.double()
    direction = torch.randn_like(x)
    _, tangent = torch.func.jvp(layer, (x,), (direction,))[:2]
    fixed = layer.difference(x).detach()
    _, partial = torch.func.jvp(lambda images: affine_resampled(images, fixed), (x,), (direction,))[:2]
    assert (tangent - partial).norm() > 0.05 * tangent.norm()
    h = 1e-7
    slope = (layer(x + h * direction) - layer(x - h * direction)) / (2 * h)
    assert (tangent - slope).norm() < 1e-4 * slope.norm()


def test_the_coordinates_stay_fine_in_half_precision() -> None:
    layer, x = transformer(channels=3), torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        expected = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert (layer(x) - expected).norm() < 0.05 * expected.norm()
        half = affine_resampled(x.bfloat16(), layer.difference(x))
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).norm() < 0.01 * expected.norm()


def test_only_what_is_learned_is_in_a_checkpoint() -> None:
    names = {"localiser.0.weight", "localiser.0.bias", "linear.weight", "linear.bias"}
    assert set(transformer().state_dict()) == names
