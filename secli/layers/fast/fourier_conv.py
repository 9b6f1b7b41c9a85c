"""Convolution with a wide kernel by Fourier transforms: fewer multiplications than one per tap and pixel.

On a circle of P cells, P ≥ h + p for a plane of side h and padding p, no cell of the result wraps around::

    y[q] = Σ_t x[q + t − p] κ[t]      ⟺      ŷ = x̂ · conj(κ̂)          (κ[t] at t − p mod P)
    ∂x̂ = ĝ · κ̂,      ∂κ̂ = conj(ĝ) · x̂

The transforms are taken once per channel, the products once per pair of channels and frequency: about P²/2 complex
multiplications where the sum over taps makes K² h².
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Costs in multiply–adds of a direct convolution, found by timing on one core with AVX-512
_PER_POINT = 240.0  # a cell of a transformed plane, there and back, with its move in memory
_PER_PRODUCT = 12.6  # a complex product
_IMAGES = 32.0  # the kernels' own transforms are shared by about so many images
_ROW = 14  # narrower rows leave the direct convolution's vectors half empty
_MARGIN = 0.65  # of the direct time, because the estimate is rough


def circle(side: int, size: int, padding: int) -> int:
    """Return the smallest even P ≥ side + padding, size with no prime factor above 7."""
    cells = max(side + padding, size)
    cells += cells % 2
    while not _is_smooth(cells):
        cells += 2
    return cells


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
    return number == 1


@lru_cache(maxsize=1024)
def pays(
    channels: int, outputs: int, height: int, width: int, size: int, padding: int, ready: bool = False
) -> bool:
    """Whether the transforms are expected to take clearly less time than the direct sum, on a CPU.

    ``ready``: the kernels' spectrum is known already.
    """
    if padding >= size or min(height, width) + 2 * padding < size:
        return False
    rows, columns = circle(height, size, padding), circle(width, size, padding)
    points, pairs = rows * columns, channels * outputs
    direct = 1.0 * pairs * _meetings(height, size, padding) * _meetings(width, size, padding)
    direct *= max(1.0, _ROW / width)
    planes = channels + outputs + (0.0 if ready else pairs / _IMAGES)
    fourier = planes * points * _PER_POINT + pairs * rows * (columns // 2 + 1) * _PER_PRODUCT
    return fourier < _MARGIN * direct


def _meetings(side: int, size: int, padding: int) -> int:
    """Count the pairs of an output cell and a tap that meet a pixel, along one axis."""
    outputs = side + 2 * padding - size + 1
    return sum(max(0, min(outputs, side - tap + padding) - max(0, padding - tap)) for tap in range(size))


def spectrum(
    kernel: Float[Tensor, "o c k k"], height: int, width: int, padding: int
) -> Complex[Tensor, "f c o"]:
    """Return conj(κ̂) for planes of one size, frequencies first, as the batch of a matrix product."""
    size = kernel.shape[-1]
    rows, columns = circle(height, size, padding), circle(width, size, padding)
    on_circle = functional.pad(kernel, (0, columns - size, 0, rows - size))
    on_circle = on_circle.roll((-padding, -padding), dims=(2, 3))
    transformed: Tensor = torch.fft.rfft2(on_circle).flatten(2).permute(2, 1, 0)
    return transformed.conj().resolve_conj().contiguous()


def convolve(
    x: Float[Tensor, "n c h w"], kernel_spectrum: Complex[Tensor, "f c o"], size: int, padding: int
) -> Float[Tensor, "n o y x"]:
    """Return the convolution of stride 1, in float32 or float64, with a kernel of side ``size`` given by its spectrum.

    The :func:`spectrum` is for planes of this size and this padding.
    """
    height, width = x.shape[-2:]
    shape = circle(height, size, padding), circle(width, size, padding)
    product = torch.bmm(_transformed(x, shape), kernel_spectrum)
    return _back(product, shape, height + 2 * padding - size + 1, width + 2 * padding - size + 1)


def _transformed(x: Float[Tensor, "n c h w"], shape: tuple[int, int]) -> Complex[Tensor, "f n c"]:
    transformed: Tensor = torch.fft.rfft2(x, s=shape)
    return transformed.flatten(2).permute(2, 0, 1)


def _back(
    product: Complex[Tensor, "f a b"], shape: tuple[int, int], height: int, width: int
) -> Float[Tensor, "a b y x"]:
    """Return the planes' upper left corners: columns first, so that rows outside them are not finished."""
    rows, columns = shape
    planes = product.permute(1, 2, 0).reshape(*product.shape[1:], rows, columns // 2 + 1)
    kept = torch.fft.ifft(planes, dim=2)[:, :, :height]
    back: Tensor = torch.fft.irfft(kept, n=columns, dim=3)
    return back[..., :width]


def fourier_conv2d(
    x: Float[Tensor, "n c h w"], kernel: Float[Tensor, "o c k k"], padding: int
) -> Float[Tensor, "n o y x"]:
    """Return the convolution of stride 1, differentiable once with respect to image and kernel."""
    result: Tensor = _FourierConvolution.apply(x, kernel, padding)
    return result


class _FourierConvolution(torch.autograd.Function):
    """The convolution; only image and kernel are kept for the gradient, and transformed again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.save_for_forward(x, kernel)
        ctx.padding = padding
        height, width = x.shape[-2:]
        y = convolve(x, spectrum(kernel, height, width, padding), kernel.shape[-1], padding)
        return y.contiguous()  # not a view: a forward-mode tangent has its value's strides

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        size, padding, (height, width) = kernel.shape[-1], ctx.padding, x.shape[-2:]
        shape = circle(height, size, padding), circle(width, size, padding)
        g = _transformed(gradient, shape).contiguous()
        to_x = to_kernel = None
        if ctx.needs_input_grad[0]:
            to_x = _back(torch.bmm(g, spectrum(kernel, height, width, padding).mH), shape, height, width)
        if ctx.needs_input_grad[1]:
            turned = torch.bmm(g.mH, _transformed(x, shape)).conj()  # (f, o, c)
            planes = turned.resolve_conj().permute(1, 2, 0).reshape(*kernel.shape[:2], shape[0], -1)
            on_circle = torch.fft.irfft2(planes.conj(), s=shape)
            to_kernel = on_circle.roll((padding, padding), dims=(2, 3))[..., :size, :size]
        return to_x, to_kernel, None

    @staticmethod
    def jvp(ctx: Any, to_x: Tensor | None, to_kernel: Tensor | None, _: None) -> Tensor:
        x, kernel = ctx.saved_tensors
        moved = torch.zeros_like(x) if to_x is None else to_x
        result = functional.conv2d(moved, kernel, padding=ctx.padding)
        return result if to_kernel is None else result + functional.conv2d(x, to_kernel, padding=ctx.padding)
