"""The state of a network during a measurement: eval mode, no gradients, full float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from secli.equivariance.memory import keep_freed_memory
from secli.external.restoring import image_dtype, in_eval_mode
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

    Yields the dtype of its weights, and of the images; InputError when none are float32 or float64. ``inference`` is
    torch's inference mode, the cheapest; off for forward-mode derivatives, which it excludes.
    """
    dtype = torch.get_default_dtype()
    stack = ExitStack()
    if isinstance(model, nn.Module):
        dtype = image_dtype(model)
        stack.enter_context(in_eval_mode(model))
        model.to(device)
    keep_freed_memory(device)
    with stack, torch.inference_mode() if inference else torch.no_grad(), full_precision():
        yield dtype
