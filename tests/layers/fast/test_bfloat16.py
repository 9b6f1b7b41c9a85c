"""Training in bfloat16: the gradient of wide kernels against torch's, and layers against float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secli.layers import BatchNorm, ScalePool, SESConv, SESLift, SpatialPool, basis_b
from secli.layers.fast import wide_conv
from secli.layers.fast.forms import without_forms
from secli.layers.fast.fourier_conv import fourier_conv2d
from secli.layers.fast.wide_conv import plain_conv2d

ROUNDING = 2.0**-8
"""The largest relative error of one rounding to bfloat16."""


def distance(ours: Tensor, exact: Tensor) -> float:
    ours, exact = ours.detach().double(), exact.detach().double()
    return float((ours - exact).norm() / exact.norm())


@pytest.mark.parametrize(("side", "plane", "padding"), [(15, 40, 7), (7, 14, 3), (13, 7, 6), (5, 9, 0)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_a_gradient_written_as_a_convolution_is_rounded_like_torchs(
    side: int, plane: int, padding: int, bias: bool, autocast: bool
) -> None:
    types = torch.float32 if autocast else torch.bfloat16
    x = torch.randn(3, 16, plane, plane, dtype=types, requires_grad=True)
    kernel = torch.randn(4, 16, side, side, dtype=types, requires_grad=True)
    learned = [x, kernel, *([torch.randn(4, dtype=types, requires_grad=True)] if bias else [])]
    own = learned[2] if bias else None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        ours = plain_conv2d(x, kernel, own, 1, padding)
        theirs = functional.conv2d(x, kernel, own, padding=padding)
    assert ours.grad_fn is not None
    assert "Wide" in ours.grad_fn.name()
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, theirs)
    rounded = [each.detach().bfloat16().double().requires_grad_() for each in learned]
    exact = functional.conv2d(rounded[0], rounded[1], rounded[2] if bias else None, padding=padding)
    probe = torch.randn_like(ours)
    for a, b, c in zip(
        torch.autograd.grad(ours, learned, probe),
        torch.autograd.grad(theirs, learned, probe),
        torch.autograd.grad(exact, rounded, probe.double()),
        strict=True,
    ):
        assert a.dtype == types
        # a CPU without bfloat16 rounds in between: no more than torch's own there
        assert distance(a, c) < max(ROUNDING, 1.1 * distance(b, c))


def test_it_stands_back_where_torch_does_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_conv._WideConvolution, "apply", None)
    x, kernel = torch.randn(1, 16, 14, 14), torch.randn(2, 16, 7, 7, requires_grad=True)
    plain_conv2d(x, kernel, None, 1, 3)  # float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(TypeError):
            plain_conv2d(x, kernel, None, 1, 3)
        plain_conv2d(x, kernel, None, 2, 3)
        plain_conv2d(x, kernel[..., 1:, 1:], None, 1, 3)
        plain_conv2d(x[:, 1:], kernel[:, 1:], None, 1, 3)
        plain_conv2d(x, kernel.detach(), None, 1, 3)
        assert plain_conv2d(x.double(), kernel.double(), None, 1, 3).dtype == torch.float64
        with torch.no_grad():
            plain_conv2d(x, kernel, None, 1, 3)


def test_the_widest_are_transformed_in_float32_where_they_are_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transformed: list[torch.dtype] = []

    def watched(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
        transformed.append(x.dtype)
        return fourier_conv2d(x, kernel, padding)

    monkeypatch.setattr(wide_conv, "fourier_conv2d", watched)
    learned = [torch.randn(shape, requires_grad=True) for shape in ((2, 32, 14, 14), (63, 32, 13, 13), (63,))]
    x, kernel, bias = learned
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = plain_conv2d(x, kernel, bias, 1, 6)
        assert transformed == [torch.float32]
        with torch.no_grad():
            plain_conv2d(x, kernel, bias, 1, 6)
        with without_forms("fourier"):
            plain_conv2d(x, kernel, bias, 1, 6)
    assert len(transformed) == 1
    plain_conv2d(x.bfloat16(), kernel.bfloat16(), bias.bfloat16(), 1, 6)
    assert len(transformed) == 2
    assert y.dtype == torch.bfloat16
    exact = functional.conv2d(x, kernel, bias, padding=6)
    assert distance(y, exact) < ROUNDING
    probe = torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad(y, learned, probe),
        torch.autograd.grad(exact, learned, probe.float()),
        strict=True,
    ):
        assert a.dtype == torch.float32
        assert distance(a, b) < ROUNDING


class Scales(nn.Module):
    """Two steerable layers with what stands between them in a network."""

    def __init__(self) -> None:
        super().__init__()
        basis = basis_b(13, (1.5, 2.6, 4.5), 5)
        self.body = nn.Sequential(
            SESLift(1, 16, basis, padding=6), nn.ReLU(), SpatialPool(2), BatchNorm(16),
            SESConv(16, 8, basis, padding=6), ScalePool(), nn.ReLU(), SpatialPool(2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y.float().square().mean()


def test_gradients_of_steerable_layers_are_near_those_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, x = Scales(), torch.rand(16, 1, 14, 14)
    learned = list(layers.parameters())
    exact = torch.autograd.grad(layers(x), learned)
    used: list[torch.dtype] = []
    forward = wide_conv._WideConvolution.forward

    def spied(ctx: object, x: Tensor, *rest: object) -> Tensor:
        used.append(x.dtype)
        return forward(ctx, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(wide_conv._WideConvolution, "forward", staticmethod(spied))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = layers(x)
    assert used == [torch.bfloat16] * 3
    near = torch.autograd.grad(loss, learned)
    assert all(each.dtype == torch.float32 for each in near)
    whole, other = (torch.cat([each.flatten() for each in some]) for some in (near, exact))
    # a maximum may fall on another cell, which moves its gradient there
    assert distance(whole, other) < 0.05
