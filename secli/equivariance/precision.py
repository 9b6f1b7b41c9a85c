"""The state a network is measured in: eval mode, no gradients, full float32."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from secli.equivariance.memory import keep_freed_memory
from secli.errors import InputError
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
def measuring(model: Model, device: torch.device | str, *, inference: bool = True) -> Iterator[torch.dtype]:
    """Put a network on a device in eval mode, without gradients and in full precision; restore its mode after.

    Parameters
    ----------
    model : Model
        The network.
    device : torch.device
        Where to compute.
    inference : bool
        Use torch's inference mode, the cheapest; off for forward-mode derivatives, which it would stop.

    Yields
    ------
    torch.dtype
        The type of the network's weights, which the images must take.

    Raises
    ------
    InputError
        When the weights are neither float32 nor float64.
    """
    modes = {}
    dtype = torch.get_default_dtype()
    if isinstance(model, nn.Module):
        weights = itertools.chain(model.parameters(), model.buffers())
        dtype = next((weight.dtype for weight in weights if weight.is_floating_point()), dtype)
        if dtype not in (torch.float32, torch.float64):
            name = str(dtype).removeprefix("torch.")
            raise InputError(
                f"the network's weights are {name}, too coarse to measure with; use .float() first"
            )
        modes = {module: module.training for module in model.modules()}
        model.to(device).eval()
    keep_freed_memory(device)
    try:
        with torch.inference_mode() if inference else torch.no_grad(), full_precision():
            yield dtype
    finally:
        for module, training in modes.items():
            module.training = training
