"""Convolution by Fourier transforms, against the sum over taps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from secli.layers.fast import wide_conv
from secli.layers.fast.fourier_conv import circle, convolve, fourier_conv2d, pays, spectrum
from secli.layers.fast.wide_conv import MOST_SPECTRA, Spectra, plain_conv2d

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


@given(
    height=st.integers(3, 17),
    width=st.integers(3, 17),
    size=st.integers(1, 11),
    padding=st.integers(0, 10),
    dtype=st.sampled_from(list(TOLERANCE)),
)
def test_values_and_gradients_are_those_of_the_sum(
    height: int, width: int, size: int, padding: int, dtype: torch.dtype
) -> None:
    """Even kernels, paddings as wide as the kernel allows, planes that are not square."""
    padding = min(padding, size - 1)
    if min(height, width) + 2 * padding < size:
        return
    x = torch.randn(2, 3, height, width, dtype=dtype, requires_grad=True)
    kernel = torch.randn(4, 3, size, size, dtype=dtype, requires_grad=True)
    ours, theirs = fourier_conv2d(x, kernel, padding), functional.conv2d(x, kernel, padding=padding)
    probe = torch.randn_like(theirs)
    gradients = [torch.autograd.grad(y, (x, kernel), probe) for y in (ours, theirs)]
    for a, b in zip((ours, *gradients[0]), (theirs, *gradients[1]), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert (a - b).abs().max() <= TOLERANCE[dtype] * b.abs().max().clamp(min=1)
    # too small a circle wraps around: the check can fail
    kernel_spectrum = spectrum(kernel.detach(), height, width, padding)
    assert not torch.allclose(convolve(x, 1.01 * kernel_spectrum, size, padding), theirs, atol=1e-4)


def test_a_circle_is_wide_enough_even_and_smooth() -> None:
    assert [circle(*each) for each in [(14, 13, 6), (7, 13, 6), (28, 15, 7), (23, 3, 0)]] == [20, 14, 36, 24]


@pytest.mark.parametrize("towards", ["image", "kernel", "both"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_derivatives_in_a_direction(towards: str) -> None:
    x, kernel = torch.randn(2, 3, 9, 9, dtype=torch.float64), torch.randn(4, 3, 5, 5, dtype=torch.float64)
    directions = torch.randn_like(x), torch.randn_like(kernel)
    results: list[Tensor] = []
    for convolution in (fourier_conv2d, lambda a, b, p: functional.conv2d(a, b, padding=p)):
        with forward_ad.dual_level():
            a = forward_ad.make_dual(x, directions[0]) if towards != "kernel" else x  # type: ignore[no-untyped-call]
            b = forward_ad.make_dual(kernel, directions[1]) if towards != "image" else kernel  # type: ignore[no-untyped-call]
            y = forward_ad.unpack_dual(convolution(a, b, 2))  # type: ignore[no-untyped-call]
            results.append(y.tangent)
    torch.testing.assert_close(*results)


def test_it_pays_for_wide_kernels_and_many_channels_only() -> None:
    assert pays(32, 63, 28, 28, 13, 6)
    assert not pays(32, 63, 28, 28, 3, 1)
    assert not pays(1, 32, 28, 28, 13, 6)
    # where the kernels are learned, their own transforms cost, too
    assert pays(63, 95, 7, 7, 13, 6, ready=True)
    assert not pays(63, 95, 7, 7, 13, 6)


@pytest.mark.parametrize(("size", "padding", "side"), [(5, 5, 9), (9, 0, 5)])
def test_it_steps_aside_where_the_circle_would_be_wrong(size: int, padding: int, side: int) -> None:
    assert not pays(64, 64, side, side, size, padding, ready=True)


def test_spectra_are_kept_by_place_and_never_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []

    def watched(kernel: Tensor, height: int, width: int, padding: int) -> Tensor:
        made.append((height, width))
        return spectrum(kernel, height, width, padding)

    monkeypatch.setattr(wide_conv, "spectrum", watched)
    kernel, bias, kept = torch.randn(32, 32, 13, 13), torch.randn(32), Spectra()
    for side in (14, 16, 14, 18, 20, 16, 22, 14):
        x = torch.randn(1, 32, side, side)
        expected = functional.conv2d(x, kernel, bias, padding=6)
        torch.testing.assert_close(plain_conv2d(x, kernel, bias, 1, 6, kept), expected, rtol=1e-4, atol=1e-3)
        assert len(kept) <= MOST_SPECTRA
    assert made == [(14, 14), (16, 16), (18, 18), (20, 20), (22, 22), (14, 14)]


def test_half_precision_and_strides_are_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_conv, "fourier_conv2d", None)
    x, kernel = torch.randn(1, 32, 28, 28), torch.randn(32, 32, 13, 13)
    plain_conv2d(x, kernel, None, 2, 6)
    plain_conv2d(x.bfloat16(), kernel.bfloat16(), None, 1, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert plain_conv2d(x, kernel, None, 1, 6).dtype == torch.bfloat16
    with pytest.raises(TypeError):  # and here it would have been taken
        plain_conv2d(x, kernel, None, 1, 6)
