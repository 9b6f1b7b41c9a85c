"""The state a network is measured in: eval mode, no gradients, full float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from secli.models.contract import Model


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch TF32 off inside, and restore the caller's settings after."""
    matmul = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def measuring(model: Model, device: torch.device | str) -> Iterator[torch.dtype]:
    """Put a network on a device in eval mode, without gradients and in full precision; restore its mode after.

    Yields
    ------
    torch.dtype
        The type of the network's weights, which the images must take.
    """
    modes = {}
    dtype = torch.get_default_dtype()
    if isinstance(model, nn.Module):
        modes = {module: module.training for module in model.modules()}
        model.to(device).eval()
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), dtype)
    try:
        with torch.inference_mode(), full_precision():
            yield dtype
    finally:
        for module, training in modes.items():
            module.training = training
