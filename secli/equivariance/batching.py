"""Images on their way into a network: batch by batch, in its own type, on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from secli.datasets.loading import pixels
from secli.equivariance.memory import free_bytes, peak_bytes

BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}
"""What a batch may take. More is not faster: what a CPU's operators hand on then no longer fits into its cache."""
IMAGES = {"cpu": 64, "cuda": 1024}
"""The largest batch."""
SHARE_OF_FREE = 4
"""Of the memory that is free a batch takes no more than one part in so many: other processes grow, too."""


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


def batch_size(
    asked: int | None,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    work: Callable[[Float[Tensor, "b c h w"]], object],
    device: torch.device | str,
    dtype: torch.dtype,
) -> int:
    """Return how many images go into a batch: as asked for, else as measured memory allows.

    The work is done on one image and on two; the difference of what the tensors take at their peak is the price of
    an image. A batch is a power of two, and its bytes are bounded by a fixed number well below what most machines
    have free, so that it is the same each time: the last bits of a convolution may depend on it.

    Parameters
    ----------
    asked : int, optional
        The batch that was asked for.
    images : tensor (N, C, H, W)
        The images.
    work : callable
        What is done with a batch.
    device : torch.device
        Where the network is.
    dtype : torch.dtype
        Type of its weights.
    """
    if asked is not None:
        return asked
    first = next(batches(images[:1], 1, device, dtype))
    work(first)  # what is built once and kept (kernels, operators) is no price of an image
    one, two = (peak_bytes(lambda count=count: work(first.repeat(count, 1, 1, 1))) for count in (1, 2))  # type: ignore[misc]
    return min(fitting(max(two - one, first.nbytes), device), len(images))


def fitting(each: int, device: torch.device | str) -> int:
    """Return the power of two of images, each of so many bytes, that fits on a device."""
    kind = torch.device(device).type
    allowed, free = BYTES.get(kind, BYTES["cpu"]), free_bytes(device)
    if free is not None:
        allowed = min(allowed, free // SHARE_OF_FREE)
    largest = min(allowed // each, IMAGES.get(kind, IMAGES["cpu"]))
    return 1 << (max(1, largest).bit_length() - 1)
