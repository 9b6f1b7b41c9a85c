"""A convolution whose forward pass and gradient are fast for wide kernels, too.

The widest use Fourier transforms (:mod:`secli.layers.fast.fourier_conv`) where that takes less time.

oneDNN, which computes torch's convolutions on CPUs, has no fast gradient with respect to kernels wider than 14 cells:
it takes five to eight times as long as the forward pass. That gradient is itself a convolution, of the image with the
gradient of the output as the kernel, images and channels exchanged::

    ∂w[o, c, t] = Σ_n Σ_p g[n, o, p] x[n, c, p + t − padding]

and the forward pass is fast at any width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input

from secli.layers.fast.bfloat16 import WIDE, may_transform_in_bfloat16, slow_in_bfloat16
from secli.layers.fast.forms import in_use, on_cpu
from secli.layers.fast.fourier_conv import convolve, fourier_conv2d, pays, spectrum
from secli.layers.fast.transforms import transformed

Spectra = dict[tuple[int, int, int, int], Tensor]
"""The spectra of one kernel, by height and width of the plane, padding, and side of the cropped kernel."""
MOST_SPECTRA = 4


def plain_conv2d(
    x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int, padding: int, kept: Spectra | None = None
) -> Tensor:
    """Return torch's convolution, by Fourier transforms or with another gradient where that is faster.

    ``kept`` holds spectra of this very kernel, and receives new ones.
    """
    shape = x.shape[1], kernel.shape[0], *x.shape[-2:], kernel.shape[-1]
    fine = (torch.float32, torch.float64)
    may_transform = stride == 1 and in_use("fourier") and _is_plain(x, kernel, fine)
    if may_transform and pays(*shape, padding, kept is not None):
        y = _transformed(x, kernel, padding, kept)
        return y if bias is None else y + bias.view(-1, 1, 1)
    if stride == 1 and may_transform_in_bfloat16(x, kernel) and pays(*shape, padding):
        y = fourier_conv2d(x.float(), kernel.float(), padding)
        return (y if bias is None else y + bias.view(-1, 1, 1)).bfloat16()
    if stride == 1 and slow_in_bfloat16(x, kernel):
        own = None if bias is None else bias.bfloat16()
        rounded: Tensor = _WideConvolution.apply(x.bfloat16(), kernel.bfloat16(), own, padding)
        return rounded
    if stride == 1 and kernel.shape[-1] >= WIDE and _is_slow(x, kernel):
        result: Tensor = _WideConvolution.apply(x, kernel, bias, padding)
        return result
    return functional.conv2d(x, kernel, bias, stride, padding)


def _transformed(x: Tensor, kernel: Tensor, padding: int, kept: Spectra | None) -> Tensor:
    if kept is None:
        return fourier_conv2d(x, kernel, padding)
    key = (x.shape[-2], x.shape[-1], padding, kernel.shape[-1])
    if key not in kept:
        if len(kept) >= MOST_SPECTRA:
            kept.clear()
        kept[key] = spectrum(kernel, *key[:3])
    return convolve(x, kept[key], kernel.shape[-1], padding)


def _is_plain(x: Tensor, kernel: Tensor, types: tuple[torch.dtype, ...]) -> bool:
    """Whether a CPU computes this eagerly in its own type: compiler, autocast and vmap see torch's convolution."""
    return (
        on_cpu(x)
        and x.dtype == kernel.dtype
        and x.dtype in types
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not transformed()
    )


def _is_slow(x: Tensor, kernel: Tensor) -> bool:
    """Whether oneDNN's gradient will be computed."""
    return (
        in_use("wide-gradient")
        and torch.is_grad_enabled()
        and kernel.requires_grad
        and _is_plain(x, kernel, (torch.float32,))
    )


class _WideConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.padding, ctx.biased = padding, bias is not None
        return functional.conv2d(x, kernel, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = conv2d_input(  # type: ignore[no-untyped-call]
                x.shape, kernel, gradient, padding=ctx.padding
            )
        to_kernel = functional.conv2d(x.transpose(0, 1), gradient.transpose(0, 1), padding=ctx.padding)
        to_bias = gradient.sum(dim=(0, 2, 3)) if ctx.biased else None
        return to_x, to_kernel.transpose(0, 1), to_bias, None
