"""Counting the errors of all replicas on a split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from secli.datasets.loading import pixels
from secli.training.evaluate import BATCH, nothing
from secli.training.replicas.pool import Pool
from secli.training.replicas.stack import Stack


def count_errors_by_replica(
    stack: Stack, pool: Pool, between: Callable[[], None] = nothing, batch: int = BATCH
) -> Int64[Tensor, "r"]:
    """Count for each replica the images whose largest logit is not that of their label, on the device.

    As :func:`secli.training.evaluate.count_errors`, with ``batch`` images per forward pass over all replicas.
    """
    was_training = stack.training
    stack.eval()
    replicas = len(pool.first)
    each = max(1, batch // replicas)
    indices = torch.arange(pool.count, device=pool.first.device).unsqueeze(0)
    wrong = torch.zeros(replicas, dtype=torch.int64, device=pool.first.device)
    try:
        for start in range(0, pool.count, each):
            images, labels = pool.take(indices[:, start : start + each])
            wrong += (stack(pixels(images)).argmax(dim=2) != labels).sum(dim=1)
            between()
        return wrong
    finally:
        stack.train(was_training)
