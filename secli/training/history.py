"""A run's history: the metrics of its epochs, the weights kept so far, and the files written from both."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from secli.records.epochs import KEY, METRICS_FILE
from secli.records.notes import Note
from secli.records.schema import ModelInfo, TrainingResults
from secli.storage.writing import write_text
from secli.training.checkpoint import WEIGHTS_FILE, Weights, save_weights
from secli.training.events import EpochEnded

Bounds = Sequence[tuple[int, int]]
"""Where each batch of an epoch begins and ends."""


@dataclass
class Ledger:
    """The epochs of one run and the best weights among them.

    Attributes
    ----------
    model
        For the weights' header.
    history
        The metrics of each epoch, as in ``metrics.jsonl``.
    best_epoch, best_error, best_weights
        The epoch of the strictly lowest validation error; infinite where there are no validation images.
    """

    run: Path
    model: ModelInfo
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_error: float = math.inf
    best_weights: Weights = field(default_factory=dict)

    def close_epoch(
        self,
        epoch: int,
        bounds: Bounds,
        losses: Float[Tensor, "steps"],
        wrong: int,
        val_error: float | None,
        lr: float,
        seconds: float,
        weights: Callable[[], Weights],
    ) -> EpochEnded:
        """Add the metrics of an epoch (from 1), and keep its weights if they are the best.

        Parameters
        ----------
        losses : Tensor
            Mean loss of each batch, on the CPU.
        wrong : int
            Training images misclassified.
        val_error : float, optional
            Fraction of validation images misclassified; None without such images: then the last epoch is kept.
        weights : callable
            Returns a copy of the weights; called only if they are kept.
        """
        sizes = torch.tensor([end - start for start, end in bounds])
        count = bounds[-1][1]
        ended = EpochEnded(
            epoch=epoch,
            train_loss=float((losses.double() * sizes).sum()) / count,
            train_error=wrong / count,
            val_error=val_error,
            lr=lr,
            seconds=seconds,
            images_per_second=count / seconds,
            best=val_error is None or val_error < self.best_error,
        )
        self.history.append({key: value for key, value in asdict(ended).items() if key != "best"})
        if ended.best:
            self.best_epoch, self.best_weights = epoch, weights()
            self.best_error = math.inf if val_error is None else val_error
        return ended

    def add_reading(self, reading: dict[str, Any]) -> None:
        """Add what was measured of the network to the epoch that was closed last."""
        self.history[-1][KEY] = reading

    def results(self, test_error: float | None, test_images: int) -> TrainingResults:
        """Return the results of the finished run."""
        return TrainingResults(
            test_error=test_error,
            test_images=test_images,
            validation_error=None if self.best_error == math.inf else self.best_error,
            best_epoch=self.best_epoch,
            epochs=len(self.history),
            train_seconds=sum(row["seconds"] for row in self.history),
            images_per_second=statistics.median(row["images_per_second"] for row in self.history),
        )

    def write(self, weights: bool) -> None:
        """Write the metrics, and with ``weights`` the kept weights."""
        lines = (json.dumps(row) for row in self.history)
        write_text(self.run / METRICS_FILE, "".join(f"{line}\n" for line in lines))
        if weights:
            save_weights(self.run / WEIGHTS_FILE, self.best_weights, self.model)

    def state(self) -> dict[str, Any]:
        """Return its share of the saved state."""
        return {
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_error": self.best_error,
            "best_weights": self.best_weights,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore its share of a saved state."""
        self.history = state["history"]
        self.best_epoch, self.best_error = state["best_epoch"], state["best_error"]
        self.best_weights = state["best_weights"]


def divergence(losses: Float[Tensor, "steps"], epoch: int, lr: float) -> Note | None:
    """Return the step of an epoch at which the loss stopped being finite, None where it did not."""
    bad = torch.nonzero(~torch.isfinite(losses))
    if not len(bad):
        return None
    return Note.of("loss-not-finite", epoch=epoch, step=int(bad[0]) + 1, steps=len(losses), lr=lr)


def stopped_at(epoch: int, epochs: int, step: int, steps: int) -> Note:
    """Return where a run was stopped."""
    if epoch > epochs:
        return Note.of("stopped-before-test")
    return Note.of("stopped", epoch=epoch, epochs=epochs, step=step, steps=steps)
