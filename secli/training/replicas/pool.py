"""One split of several datasets on a device; content that replicas share is stored once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from secli.datasets.loading import to_device
from secli.datasets.manifest import SplitName
from secli.datasets.store import ScaleDataset


class Pool:
    """The images of one split on a device, replica by replica.

    There is one dataset per replica, with splits of one size and images of one shape; equal ones are stored once.
    """

    def __init__(self, datasets: Sequence[ScaleDataset], split: SplitName, device: torch.device) -> None:
        different = {dataset.digest: dataset for dataset in datasets}
        read = [to_device(dataset.split(split)) for dataset in different.values()]
        self.count = len(read[0][1])
        self.images = torch.cat([images for images, _ in read]).to(device)
        self.labels = torch.cat([labels for _, labels in read]).to(device)
        first = {digest: i * self.count for i, digest in enumerate(different)}
        self.first = torch.tensor([[first[dataset.digest]] for dataset in datasets], device=device)

    def take(self, chosen: Int64[Tensor, "#r n"]) -> tuple[UInt8[Tensor, "r n c h w"], Int64[Tensor, "r n"]]:
        """Return each replica's images and labels at these indices of its own split."""
        indices = self.first + chosen
        return self.images[indices], self.labels[indices]

    def keep(self, replicas: Sequence[int]) -> None:
        """Drop all replicas but these."""
        self.first = self.first[list(replicas)]
