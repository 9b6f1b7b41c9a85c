"""The optimiser and the step schedule of the learning rate."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from secli.config import TrainingSettings


def make_optimizer(parameters: Iterable[nn.Parameter], training: TrainingSettings) -> Optimizer:
    """Return Adam, or SGD with momentum; the weight decay is an L2 penalty added to the gradient.

    On CUDA one kernel updates all parameters (``fused``), where torch would else start several for each operation.
    """
    # nowhere else: on a CPU other sums would change the last bits of earlier runs
    fused = True if training.device == "cuda" else None
    if training.optimizer == "adam":
        return Adam(parameters, lr=training.lr, weight_decay=training.weight_decay, fused=fused)
    return SGD(
        parameters,
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
        fused=fused,
    )


def learning_rate(training: TrainingSettings, epoch: int) -> float:
    """Return the rate of an epoch (from 1): η γ^m, m the number of milestones before it.

    η is ``lr``, γ is ``gamma``; a milestone is the last epoch before the rate is multiplied.
    """
    return training.lr * training.gamma ** bisect_left(training.milestones, epoch)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
