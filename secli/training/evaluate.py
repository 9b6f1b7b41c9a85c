"""Counting errors on a split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from secli.datasets.loading import pixels

BATCH = 500


def nothing() -> None:
    """Do nothing between batches."""


@torch.no_grad()
def count_errors(
    network: nn.Module,
    images: UInt8[Tensor, "n c h w"],
    labels: Int64[Tensor, "n"],
    between: Callable[[], None] = nothing,
    batch: int = BATCH,
) -> Int64[Tensor, ""]:
    """Count the images whose largest logit is not that of their label, on the device, without waiting for it.

    The network is evaluated in eval mode, in float32 outside autocast; its mode is restored. ``between`` is called
    after each batch and may raise to stop.
    """
    was_training = network.training
    network.eval()
    try:
        wrong = torch.zeros((), dtype=torch.int64, device=labels.device)
        for start in range(0, len(labels), batch):
            part = slice(start, start + batch)
            wrong += (network(pixels(images[part])).argmax(dim=1) != labels[part]).sum()
            between()
        return wrong
    finally:
        network.train(was_training)
