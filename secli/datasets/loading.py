"""From a split on disk to tensors on a device: images stay uint8 there, batches become pixels in [0, 1]."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from secli.datasets.store import Split


def to_device(
    split: Split, device: torch.device | str = "cpu"
) -> tuple[UInt8[Tensor, "n c h w"], Int64[Tensor, "n"]]:
    """Return a split's images, contiguous (N, C, H, W) with values 0 to 255, and its labels on a device."""
    images = torch.from_numpy(split.images)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous().to(device), torch.from_numpy(split.labels).to(device)


def pixels(images: UInt8[Tensor, "*shape"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "*shape"]:
    """Return uint8 images as pixels in [0, 1]: x / 255."""
    return images.to(dtype).div_(255)
