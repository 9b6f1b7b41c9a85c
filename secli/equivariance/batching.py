"""Images on their way into a network: batch by batch, in its own type, on its device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from secli.datasets.loading import pixels


def batches(
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    size: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield pixels, uint8 ones divided by 255.

    Parameters
    ----------
    images : tensor (N, C, H, W)
        Pixels, float in [0, 1] or uint8.
    size : int
        Images per batch; the last one may be smaller.
    device : torch.device
        Where the network is.
    dtype : torch.dtype
        Type of its weights.
    """
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        yield pixels(batch.to(device), dtype) if batch.dtype == torch.uint8 else batch.to(device, dtype)
