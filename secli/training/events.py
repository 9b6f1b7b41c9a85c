"""The events that a training run reports; the caller decides what to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Begun:
    """The loop is about to take its first step.

    Attributes
    ----------
    run
        The run directory.
    epoch
        The next epoch, from 1 (above 1 after a resumption; ``epochs + 1`` when only the test is left).
    step
        Steps of that epoch that are done already.
    epochs, steps
        Epochs in all, and optimiser steps per epoch.
    device
        The device's own name.
    """

    run: Path
    epoch: int
    step: int
    epochs: int
    steps: int
    device: str


@dataclass(frozen=True)
class Stepped:
    """Some optimiser steps are done (epoch and step from 1); sent a few times per second at most.

    Loss and error are mean cross-entropy and fraction of training images misclassified, over this epoch so far;
    ``images_per_second`` counts since it began or was resumed.
    """

    epoch: int
    step: int
    loss: float
    error: float
    images_per_second: float


@dataclass(frozen=True)
class EpochEnded:
    """An epoch (from 1) is over, its validation is done and the state is saved.

    Attributes
    ----------
    train_loss, train_error
        Mean cross-entropy and fraction misclassified over the epoch's steps, in training mode.
    val_error
        Fraction of validation images misclassified; None without a validation split.
    seconds
        Wall time of the optimiser steps of this epoch.
    best
        Whether these weights are the ones kept so far.
    """

    epoch: int
    train_loss: float
    train_error: float
    val_error: float | None
    lr: float
    seconds: float
    images_per_second: float
    best: bool


@dataclass(frozen=True)
class Remark:
    """Something that the user should know and that does not stop the run; one line."""

    text: str


Event = Begun | Stepped | EpochEnded | Remark
Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """Show nothing."""
    del event
