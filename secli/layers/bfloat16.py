"""Where a convolution in bfloat16 has a slow gradient on a CPU.

oneDNN's gradient with respect to the kernel takes in bfloat16 up to four times as long as the forward pass, not only
from 15 cells on: on a plane about as narrow as the kernel, too. Written as a convolution
(:mod:`secli.layers.wide_conv`) it takes about as long as the forward pass. Either way the sums are in float32 and are
rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secli.layers.at_once import replicas_at_once
from secli.layers.forms import in_use

WIDE = 15
"""From this width of the kernel on the gradient is slow on any plane, in cells."""
CHANNELS = 16
"""With fewer input channels oneDNN's gradient is no slower: it then goes another way."""


def slow_in_bfloat16(x: Tensor, kernel: Tensor) -> bool:
    """Whether torch would compute this convolution of stride 1 in bfloat16, on a CPU, with a slow gradient."""
    size = kernel.shape[-1]
    return (
        in_use("wide-gradient")
        and (size >= WIDE or 2 * size >= max(x.shape[-2:]))
        and kernel.shape[1] >= CHANNELS
        and x.device.type == "cpu"
        and torch.is_grad_enabled()
        and kernel.requires_grad
        and not torch.compiler.is_compiling()
        and not replicas_at_once()
        and _becomes_bfloat16(x, kernel)
    )


def _becomes_bfloat16(x: Tensor, kernel: Tensor) -> bool:
    types = {x.dtype, kernel.dtype}
    if torch.is_autocast_enabled("cpu"):
        # autocast leaves float64 as it is
        return torch.get_autocast_dtype("cpu") == torch.bfloat16 and torch.float64 not in types
    return types == {torch.bfloat16}
