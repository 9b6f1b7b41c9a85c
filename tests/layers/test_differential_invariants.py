from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from secli.action.images import rescale
from secli.layers.differential_invariants import DifferentialInvariants, InvariantLayer, InvariantStep

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12}


def correlated(u: np.ndarray, down: int, across: int) -> np.ndarray:
    """Correlate with a derivative of exp(−(.99 r)²) on 7×7, one cell and one tap at a time; zeros outside."""
    a = 0.99**2

    def derivative(n: int, order: int) -> float:
        return (1, -2 * a * n, 4 * a**2 * n**2 - 2 * a)[order] * math.exp(-a * n**2)

    height, width = u.shape
    out = np.zeros_like(u)
    for i in range(height):
        for j in range(width):
            for p in range(-3, 4):
                for q in range(-3, 4):
                    if 0 <= i + p < height and 0 <= j + q < width:
                        out[i, j] += u[i + p, j + q] * derivative(p, down) * derivative(q, across)
    return out


def literal(u: np.ndarray) -> np.ndarray:
    """T(u) of one picture (C, H, W)."""
    order = {
        "u": list(u),
        "x": [correlated(c, 0, 1) for c in u],
        "y": [correlated(c, 1, 0) for c in u],
        "xx": [correlated(c, 0, 2) for c in u],
        "xy": [correlated(correlated(c, 1, 0), 0, 1) for c in u],
        "yy": [correlated(c, 2, 0) for c in u],
    }
    parts = []
    for names in (("u",), ("x", "y"), ("xx", "xy", "yy")):
        planes = np.stack([plane for name in names for plane in order[name]])
        parts.append(planes / np.abs(planes).max())
    return np.concatenate(parts)


@pytest.mark.parametrize("dtype", list(DTYPES))
@given(plane=st.tuples(st.integers(2, 9), st.integers(2, 9)), channels=st.integers(1, 2))
def test_invariants_are_the_formula(dtype: torch.dtype, plane: tuple[int, int], channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, channels, *plane, dtype=dtype, generator=generator)
    invariants = DifferentialInvariants(dtype=dtype)(u)
    for one, each in zip(invariants, u, strict=True):
        expected = literal(each.double().numpy())
        np.testing.assert_allclose(one.double().numpy(), expected, rtol=0, atol=10 * DTYPES[dtype])


def test_brightness_does_not_matter_and_each_picture_is_its_own() -> None:
    u = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    layer = DifferentialInvariants()
    layer.double()
    changed = u * torch.tensor([0.2, 7.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(layer(changed), layer(u))
    assert not torch.allclose(layer(u + 1), layer(u))


def test_an_empty_picture_stays_empty() -> None:
    u = torch.zeros(1, 2, 5, 5, requires_grad=True)
    out = DifferentialInvariants()(u)
    assert not out.any()
    out.sum().backward()
    assert u.grad is not None
    assert torch.isfinite(u.grad).all()


def bells(side: int) -> Tensor:
    """Smooth against the filters, also when shrunk to half."""
    grid = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    first, second = (
        amount * torch.exp(-((grid - y).view(-1, 1) ** 2 + (grid - x) ** 2) / (2 * width**2))
        for amount, y, x, width in ((1.0, 5.0, -6.0, 7.0), (-0.7, -8.0, 4.0, 6.0))
    )
    return (first + second)[None, None]


def off(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / a.norm()) ** 2


@pytest.mark.parametrize("factor", [0.5, 0.7, 0.9])
def test_invariants_commute_with_rescaling(factor: float) -> None:
    picture, layer = bells(96), DifferentialInvariants(dtype=torch.float64)
    moved, after = rescale(layer(picture), factor), layer(rescale(picture, factor))
    for a, b in zip(moved.unbind(1), after.unbind(1), strict=True):
        assert off(a, b) < 0.015
    # the control: the derivatives themselves, not over their supremum
    slope = torch.from_numpy(correlated(picture[0, 0].numpy(), 0, 1))
    small = torch.from_numpy(correlated(rescale(picture, factor)[0, 0].numpy(), 0, 1))
    assert off(rescale(slope, factor), small) > 0.8 * (1 / factor - 1) ** 2


def test_a_layer_and_a_step_are_their_formulas() -> None:
    torch.manual_seed(0)
    u = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    step = InvariantStep(3, 0.25, dtype=torch.float64)
    layer = step.change
    t = DifferentialInvariants(dtype=torch.float64)(u)
    first, second = (conv.weight.flatten(1) for conv in (layer.first, layer.second))
    assert layer.first.bias is not None
    assert layer.second.bias is not None
    z = torch.einsum("oc,nchw->nohw", first, t) + layer.first.bias.view(-1, 1, 1)
    z = z - z.mean((0, 2, 3), keepdim=True)
    z = (z / (z.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()).clamp(min=0)
    z = torch.einsum("oc,nchw->nohw", second, z) + layer.second.bias.view(-1, 1, 1)
    torch.testing.assert_close(layer(u), z)
    z = z - z.mean((0, 2, 3), keepdim=True)
    z = z / (z.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(step(u), (u + 0.25 * z).clamp(min=0))


def test_a_step_of_size_nothing_is_a_relu() -> None:
    u = torch.randn(1, 2, 6, 6)
    assert torch.equal(InvariantStep(2, 0.0).eval()(u), u.relu())
    assert [name for name, _ in InvariantLayer(2, 3).named_parameters()] == [
        f"{part}.{kind}" for part in ("first", "norm", "second") for kind in ("weight", "bias")
    ]
