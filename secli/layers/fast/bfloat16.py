"""Which convolutions in bfloat16 a CPU does slowly, so that another form pays.

oneDNN's gradient with respect to the kernel takes in bfloat16 up to four times as long as the forward pass, not only
from 15 cells on but also on a plane about as narrow as the kernel. Written as a convolution
(:mod:`secli.layers.fast.wide_conv`) it takes about as long as the forward pass. Either way the sums are in float32 and
are rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secli.layers.fast.forms import in_use
from secli.layers.fast.transforms import transformed

WIDE = 15
"""Width of the kernel, in cells, from which the gradient is slow on any plane and in any precision."""
TRANSFORMED = 13
"""Width, in cells, from which Fourier transforms in float32 cost less than forward and backward sums in bfloat16."""
CHANNELS = 16
"""With fewer input channels oneDNN's gradient is no slower: it then uses another algorithm."""


def becomes_bfloat16(x: Tensor, kernel: Tensor) -> bool:
    """Whether a CPU computes this convolution in bfloat16, eagerly: compiler and vmap see torch's convolution."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or transformed():
        return False
    types = {x.dtype, kernel.dtype}
    if torch.is_autocast_enabled("cpu"):
        # autocast leaves float64 as it is
        return torch.get_autocast_dtype("cpu") == torch.bfloat16 and torch.float64 not in types
    return types == {torch.bfloat16}


def slow_in_bfloat16(x: Tensor, kernel: Tensor) -> bool:
    """Whether oneDNN will compute the gradient of a convolution of stride 1 in bfloat16, slowly."""
    return in_use("wide-gradient") and kernel.shape[1] >= CHANNELS and _is_learned(x, kernel, WIDE)


def may_transform_in_bfloat16(x: Tensor, kernel: Tensor) -> bool:
    """Whether the direct sums of a convolution in bfloat16, backward included, take long enough to be replaced.

    There are no transforms in bfloat16, so that forward alone they gain nothing.
    """
    return in_use("fourier") and _is_learned(x, kernel, TRANSFORMED)


def _is_learned(x: Tensor, kernel: Tensor, width: int) -> bool:
    """Whether the gradient of a kernel so wide, or half as wide as the plane, will be computed."""
    size = kernel.shape[-1]
    wide = size >= width or 2 * size >= max(x.shape[-2:])
    return wide and torch.is_grad_enabled() and kernel.requires_grad and becomes_bfloat16(x, kernel)
