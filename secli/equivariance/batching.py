"""Images as batches for a network: in its own type, on its device, of a size that fits into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from secli.datasets.loading import pixels
from secli.equivariance.memory import free_bytes, peak_bytes

BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}
"""Memory of a batch, at most. More is not faster: on a CPU the operators' outputs no longer fit into its cache."""
IMAGES = {"cpu": 64, "cuda": 1024}
"""The largest batch."""
SHARE_OF_FREE = 4
"""A batch takes at most one part in so many of the free memory: other processes grow, too."""


def batches(
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    size: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield batches of pixels, uint8 ones divided by 255; the last one may be smaller."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        yield pixels(batch.to(device), dtype) if batch.dtype == torch.uint8 else batch.to(device, dtype)


def batch_size(
    requested: int | None,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    work: Callable[[Float[Tensor, "b c h w"]], object],
    device: torch.device | str,
    dtype: torch.dtype,
) -> int:
    """Return the number of images in a batch: as requested, else as measured memory allows.

    The work is done on one image and on two; the difference of the tensors' peak memory is the cost of an image. A
    batch is a power of two, and its bytes are bounded by a fixed number well below the free memory of most machines, so
    that it is the same each time: the last bits of a convolution may depend on it.
    """
    if requested is not None:
        return requested
    first = next(batches(images[:1], 1, device, dtype))
    work(first)  # kernels and operators that are built once are no cost of an image
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
