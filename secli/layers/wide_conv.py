"""A convolution whose gradient is not slow when the kernel is wide.

oneDNN, which computes torch's convolutions on CPUs, has no fast gradient with respect to kernels wider than 14 cells:
it takes five to eight times as long as the forward pass. That gradient is itself a convolution, of the image with the
gradient of the output in the place of the kernel::

    ∂w[o, c, t] = Σ_n Σ_p g[n, o, p] x[n, c, p + t − padding]

with images and channels in each other's place, and the forward pass is fast at any width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input

from secli.layers.at_once import replicas_at_once

WIDE = 15
"""From this width of the kernel on, in cells."""


def plain_conv2d(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Return torch's convolution, with a faster gradient where torch's is slow."""
    if stride == 1 and kernel.shape[-1] >= WIDE and _is_slow(x, kernel):
        result: Tensor = _WideConvolution.apply(x, kernel, bias, padding)
        return result
    return functional.conv2d(x, kernel, bias, stride, padding)


def _is_slow(x: Tensor, kernel: Tensor) -> bool:
    """Whether oneDNN's gradient will be asked for; compiler, autocast and vmap see the plain convolution."""
    return (
        torch.is_grad_enabled()
        and kernel.requires_grad
        and x.device.type == "cpu"
        and x.dtype == kernel.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not replicas_at_once()
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
