"""The gradient of a wide kernel, written as a convolution, against torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from secli.layers.fast import wide_conv
from secli.layers.fast.wide_conv import plain_conv2d
from secli.layers.ses import cropped_conv2d


@pytest.mark.parametrize(("side", "padding"), [(15, 7), (17, 8), (15, 3), (17, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(side: int, padding: int, bias: bool) -> None:
    x = torch.randn(3, 2, 18, 20, requires_grad=True)
    kernel = torch.randn(4, 2, side, side, requires_grad=True)
    learned = [x, kernel, *([torch.randn(4, requires_grad=True)] if bias else [])]
    own = learned[2] if bias else None
    ours, theirs = (
        plain_conv2d(x, kernel, own, 1, padding),
        functional.conv2d(x, kernel, own, padding=padding),
    )
    assert ours.grad_fn is not None
    assert "Wide" in ours.grad_fn.name()
    assert torch.equal(ours, theirs)
    probe = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, learned, probe), torch.autograd.grad(theirs, learned, probe), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * float(b.abs().max()))


def test_it_stands_back_where_torch_does_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_conv._WideConvolution, "apply", None)
    x, kernel = torch.randn(1, 1, 20, 20), torch.randn(1, 1, 15, 15, requires_grad=True)
    plain_conv2d(x, kernel[..., 1:, 1:], None, 1, 7)
    plain_conv2d(x, kernel, None, 2, 7)
    plain_conv2d(x.double(), kernel.double(), None, 1, 7)
    with torch.no_grad():
        plain_conv2d(x, kernel, None, 1, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert plain_conv2d(x, kernel, None, 1, 7).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(3, 3), (4, 7), (7, 2), (1, 1), (9, 9)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [2, 7, 9])
def test_taps_that_meet_no_pixel_are_left_out(shape: tuple[int, int], stride: int, padding: int) -> None:
    if min(shape) + 2 * padding < 15:
        pytest.skip("the window does not fit")
    x, kernel = torch.randn(2, 2, *shape, dtype=torch.float64), torch.randn(3, 2, 15, 15, dtype=torch.float64)
    ours = cropped_conv2d(x, kernel, 15, stride, padding)
    torch.testing.assert_close(ours, functional.conv2d(x, kernel, stride=stride, padding=padding))
