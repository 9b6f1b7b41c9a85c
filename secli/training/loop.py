"""The training loop: epochs of steps, from the start or a saved state; subclasses define the step."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from secli.config import TrainingSettings
from secli.records.notes import Note
from secli.training.augment import Augmentation, Draws, augmentation_of
from secli.training.epoch import augmentation_draws, image_order
from secli.training.history import stopped_at
from secli.training.optim import learning_rate, set_learning_rate

if TYPE_CHECKING:
    from jaxtyping import Int64
    from lightning_fabric import Fabric
    from torch import Tensor

SECONDS_BETWEEN_REPORTS = 0.25


class Stopped(Exception):
    """A signal stopped the loop."""


class Loop(ABC):
    """Epochs of steps.

    All randomness of an epoch comes from the seed, the epoch and the step, so that a resumed loop takes the very steps
    of an uninterrupted one. ``size`` is height and width of the images, for their augmentation; ``stop`` returns
    whether to stop after the present step.
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
        """Take the remaining epochs; after a signal, save the state and raise ``Stopped``."""
        try:
            while self.epoch <= self.training.epochs:
                self._train_epoch()
                self._end_epoch()
            self._test()
        except Stopped:
            if self.epoch <= self.training.epochs:
                self._save_state()
            raise

    def position(self) -> Note:
        """Return where the loop was stopped."""
        return stopped_at(self.epoch, self.training.epochs, self.step, len(self.bounds))

    def lr(self) -> float:
        """Return the learning rate of the present epoch."""
        return learning_rate(self.training, self.epoch)

    def _train_epoch(self) -> None:
        self._draw()
        self.network.train()
        set_learning_rate(self.optimizer.optimizer, self.lr())
        self._check_stop(0)
        began, before, first = time.perf_counter(), self.seconds, self.step
        reported = began
        try:
            while self.step < len(self.bounds):
                self._take_step()
                now = time.perf_counter()
                if self.fabric.is_global_zero and now - reported >= SECONDS_BETWEEN_REPORTS:
                    self._report_step((self.bounds[self.step - 1][1] - self.bounds[first][0]) / (now - began))
                    reported = now
                self._check_stop(self.step)
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
        """Report the progress of the epoch, at so many images per second; this waits for the device."""

    @abstractmethod
    def _check_losses(self) -> None:
        """Raise, or drop the replicas, where a loss is not finite."""

    def _check_stop(self, step: int) -> None:
        """Stop after a signal."""
        del step
        if self.stop():
            raise Stopped

    @abstractmethod
    def _end_epoch(self) -> None:
        """Validate, keep the weights if they are the best, write the state and the files that follow from it."""

    @abstractmethod
    def _test(self) -> None:
        """Test the weights that were kept."""

    @abstractmethod
    def _save_state(self) -> None:
        """Save all that resuming needs; weights and metrics can be rewritten from it."""
