from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from secli.layers import DeformableDSSConv, DeformConv
from secli.layers.sampling import sample_bilinear
from secli.layers.spatial_transformer import SpatialTransformer

DTYPES = {torch.float32: 2e-5, torch.float64: 1e-12}
TORCH_OWN = "ignore:.*torch.jit.script"  # forward mode compiles formulas of its own at first use


def literal(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """y(r, c) = Σ_ij max(0, 1 − |r − i|) max(0, 1 − |c − j|) x(i, j)."""
    i = torch.arange(images.shape[2], dtype=images.dtype)
    j = torch.arange(images.shape[3], dtype=images.dtype)
    down = (1 - (rows[..., None] - i).abs()).clamp(min=0)
    right = (1 - (columns[..., None] - j).abs()).clamp(min=0)
    return torch.einsum("ncij,nyxi,nyxj->ncyx", images, down, right)


def case(
    height: int, width: int, whole: bool, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    rows = torch.rand(2, 4, 5, dtype=torch.float64) * (height + 4) - 2
    columns = torch.rand(2, 4, 5, dtype=torch.float64) * (width + 4) - 2
    if whole:
        rows, columns = rows.round(), columns.round()
    return images.to(dtype), rows.to(dtype), columns.to(dtype)


def tangent(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], ways: tuple[Tensor, ...]) -> Tensor:
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
        duals = [forward_ad.make_dual(x, v) for x, v in zip(inputs, ways, strict=True)]  # type: ignore[no-untyped-call]
        pair = forward_ad.unpack_dual(function(*duals))  # type: ignore[no-untyped-call]
    assert isinstance(pair.tangent, Tensor)
    return pair.tangent


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    whole=st.booleans(),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_values_are_the_formula_with_and_without_a_tangent(
    height: int, width: int, whole: bool, dtype: torch.dtype
) -> None:
    inputs = case(height, width, whole, dtype)
    expected = literal(*(x.double() for x in inputs)).to(dtype)
    values = [sample_bilinear(*inputs)]
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
        dual = forward_ad.make_dual(inputs[0], inputs[0])  # type: ignore[no-untyped-call]
        values.append(forward_ad.unpack_dual(sample_bilinear(dual, *inputs[1:])).primal)  # type: ignore[no-untyped-call]
    for value in values:
        torch.testing.assert_close(value, expected, rtol=DTYPES[dtype], atol=DTYPES[dtype])


@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_tangents_are_the_finite_difference(height: int, width: int) -> None:
    inputs = case(height, width, whole=False)
    ways = tuple(torch.randn_like(x) for x in inputs)
    h = 1e-7
    ahead, behind = (
        sample_bilinear(*(x + sign * h * v for x, v in zip(inputs, ways, strict=True))) for sign in (1, -1)
    )
    found = tangent(sample_bilinear, inputs, ways)
    torch.testing.assert_close(found, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("whole", [False, True])
def test_both_modes_have_one_derivative(whole: bool) -> None:
    """⟨J v, w⟩ = ⟨v, Jᵀ w⟩, also at whole pixels, where bilinear reading has a kink and both take one side."""
    inputs = case(6, 7, whole)
    ways = tuple(torch.randn_like(x) for x in inputs)
    forward = tangent(sample_bilinear, inputs, ways)
    weights = torch.randn_like(forward)
    leaves = [x.clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad((sample_bilinear(*leaves) * weights).sum(), leaves)
    backward = sum(float((g * v).sum()) for g, v in zip(gradients, ways, strict=True))
    assert math.isclose(float((forward * weights).sum()), backward, rel_tol=1e-10)


def deformed(layer: nn.Module) -> nn.Module:
    for name, parameter in layer.named_parameters():
        if name.startswith(("offset", "linear")):
            nn.init.normal_(parameter, std=0.3)
    return layer.double()


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    scalespace = DeformableDSSConv(2, 3, 3, base=2.0, levels=2, offsets="scaled")
    localiser = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softplus(), nn.Flatten())
    return {
        "v1": (deformed(DeformConv(2, 3, 3, padding=1)), (2, 2, 6, 7)),
        "v2": (deformed(DeformConv(2, 3, 3, stride=2, modulated=True)), (2, 2, 6, 7)),
        "dss": (deformed(scalespace), (2, 2, 2, 6, 7)),
        "stn": (deformed(SpatialTransformer(localiser, 2 * 4 * 5)), (2, 1, 6, 7)),
    }


@pytest.mark.parametrize("name", list(networks()))
def test_layers_differentiate_where_grid_sample_does_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the versions of torch that have no forward-mode derivative of it."""
    layer, shape = networks()[name]
    x, v = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    h = 1e-7
    with torch.no_grad():
        slope = (layer(x + h * v) - layer(x - h * v)) / (2 * h)

        def missing(*_: object, **__: object) -> Tensor:
            raise NotImplementedError("Trying to use forward AD with grid_sampler_2d")

        monkeypatch.setattr(functional, "grid_sample", missing)
        found = tangent(layer, (x,), (v,))
        assert (found - slope).norm() < 1e-5 * slope.norm()
        with pytest.raises(NotImplementedError):  # the substitute is there
            layer(x)
