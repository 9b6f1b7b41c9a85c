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


def count_errors(
    stack: Stack, pool: Pool, between: Callable[[], None] = nothing, batch: int = BATCH
) -> Int64[Tensor, "r"]:
    """Count for each replica the images whose largest logit is not that of their label.

    Parameters
    ----------
    stack : Stack
        On the pool's device; evaluated in eval mode, float32 outside autocast; its mode is restored.
    pool : Pool
        Each replica's images.
    between : callable
        Called after each batch; it may raise to stop.
    batch : int
        Images per forward pass, over all replicas.

    Returns
    -------
    Tensor
        The counts, on the device: nothing waits for them here.
    """
    was_training = stack.training
    stack.eval()
    replicas = len(pool.first)
    each = max(1, batch // replicas)
    places = torch.arange(pool.count, device=pool.first.device).unsqueeze(0)
    wrong = torch.zeros(replicas, dtype=torch.int64, device=pool.first.device)
    try:
        for start in range(0, pool.count, each):
            images, labels = pool.take(places[:, start : start + each])
            wrong += (stack(pixels(images)).argmax(dim=2) != labels).sum(dim=1)
            between()
        return wrong
    finally:
        stack.train(was_training)
