"""The one training loop: epochs of steps, from where a saved state stands; subclasses say what a step is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from secli.config import TrainingSettings
from secli.training.augment import Augmentation, Draws, augmentation_of
from secli.training.epoch import augmentation_draws, image_order
from secli.training.history import position
from secli.training.optim import learning_rate, set_learning_rate

if TYPE_CHECKING:
    from jaxtyping import Int64
    from lightning_fabric import Fabric
    from torch import Tensor

SECONDS_BETWEEN_REPORTS = 0.25


class Stopped(Exception):
    """A signal asked the loop to stop."""


class Loop(ABC):
    """Epochs of steps.

    Parameters
    ----------
    fabric : Fabric
        Launched.
    training : TrainingSettings
        The settings.
    size : tuple of int
        Height and width of the images, for their augmentation.
    stop : callable
        Whether to stop after the present step.

    Notes
    -----
    All randomness of an epoch comes from the seed and from where the loop stands, so that a loop which goes on from a
    saved state takes the very steps that it would have taken.
    """

    network: nn.Module
    optimizer: Any
    bounds: list[tuple[int, int]]

    def __init__(
        self, fabric: Fabric, training: TrainingSettings, size: tuple[int, int], stop: Callable[[], bool]
    ) -> None:
        self.fabric, self.training, self.size, self.stop = fabric, training, size, stop
        self.augmentation: Augmentation | None = augmentation_of(training)
        self.epoch, self.step, self.seconds = 1, 0, 0.0

    def loop(self) -> None:
        """Take all that is left of the epochs.

        Raises
        ------
        Stopped
            When a signal asked for it; the state is saved.
        """
        try:
            while self.epoch <= self.training.epochs:
                self._train_epoch()
                self._end_epoch()
            self._test()
        except Stopped:
            if self.epoch <= self.training.epochs:
                self._save_state()
            raise

    def position(self) -> str:
        """Say where the loop stands."""
        return position(self.epoch, self.training.epochs, self.step, len(self.bounds))

    def lr(self) -> float:
        """Return the learning rate of the present epoch."""
        return learning_rate(self.training, self.epoch)

    def _train_epoch(self) -> None:
        self._draw()
        self.network.train()
        set_learning_rate(self.optimizer.optimizer, self.lr())
        self._question(0)
        began, before, first = time.perf_counter(), self.seconds, self.step
        reported = began
        try:
            while self.step < len(self.bounds):
                self._take_step()
                now = time.perf_counter()
                if self.fabric.is_global_zero and now - reported >= SECONDS_BETWEEN_REPORTS:
                    self._report_step((self.bounds[self.step - 1][1] - self.bounds[first][0]) / (now - began))
                    reported = now
                self._question(self.step)
            self._check_losses()
        finally:
            self.seconds = before + time.perf_counter() - began

    def _drawn(self, count: int, seed: int) -> tuple[Int64[Tensor, "n"], Draws]:
        """Return the order of one run's images in this epoch and the numbers of their augmentation, on the CPU."""
        order = image_order(count, seed, self.epoch)
        return order, augmentation_draws(self.augmentation, count, self.size, seed, self.epoch)

    def _next_epoch(self) -> None:
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0

    @abstractmethod
    def _draw(self) -> None:
        """Draw the order of the images and the numbers of their augmentation, and put them on the device."""

    @abstractmethod
    def _take_step(self) -> None:
        """Take one optimiser step on the next batch; nothing in it waits for the device."""

    @abstractmethod
    def _report_step(self, rate: float) -> None:
        """Report where the epoch stands, at so many images per second; this waits for the device."""

    @abstractmethod
    def _check_losses(self) -> None:
        """Raise, or leave out what has diverged, where a loss is not finite."""

    def _question(self, step: int) -> None:
        """Stop when a signal asked for it."""
        del step
        if self.stop():
            raise Stopped

    @abstractmethod
    def _end_epoch(self) -> None:
        """Validate, keep the weights if they are the best, write the state and what follows from it."""

    @abstractmethod
    def _test(self) -> None:
        """Test the weights that were kept."""

    @abstractmethod
    def _save_state(self) -> None:
        """Save all that going on needs. The state is the truth: weights and metrics can be rewritten from it."""
