"""The optimiser and the schedule of the learning rate, as the settings say."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from secli.config import TrainingSettings


def make_optimizer(parameters: Iterable[nn.Parameter], training: TrainingSettings) -> Optimizer:
    """Return Adam, or SGD with momentum; the weight decay is an L2 penalty added to the gradient."""
    if training.optimizer == "adam":
        return Adam(parameters, lr=training.lr, weight_decay=training.weight_decay)
    return SGD(
        parameters,
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
    )


def make_schedule(optimizer: Optimizer, training: TrainingSettings) -> MultiStepLR:
    """Return the step schedule: the rate is multiplied by ``gamma`` after each of the ``milestones`` (epochs)."""
    return MultiStepLR(optimizer, milestones=list(training.milestones), gamma=training.gamma)
