"""The training loop: from a seed, or a saved state, to the kept weights and their test error."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from secli.config import TrainingSettings
from secli.datasets.loading import pixels, to_device
from secli.datasets.store import ScaleDataset
from secli.models.building import build
from secli.records.schema import ModelInfo, TrainingResults
from secli.training.augment import Draws, augmentation_of
from secli.training.checkpoint import STATE_FILE, load_state, save_state, weights_of
from secli.training.compiling import compiled
from secli.training.determinism import Draw, allow_what_must_be, seed_device, seed_of
from secli.training.devices import device_name
from secli.training.epoch import augmentation_draws, image_order
from secli.training.evaluate import count_errors
from secli.training.events import Begun, Remark, Report, Stepped
from secli.training.history import METRICS_FILE, Ledger, divergence, position
from secli.training.optim import learning_rate, make_optimizer, set_learning_rate
from secli.training.plan import batch_bounds, parts_of, smallest_batch
from secli.training.recompute import recompute_activations

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["METRICS_FILE", "Fit", "Job", "Outcome"]

SECONDS_BETWEEN_REPORTS = 0.25
# On an accelerator, asking all devices whether to stop waits for them: only every so many steps.
STEPS_BETWEEN_QUESTIONS = 20


class Job(NamedTuple):
    """All that a training process needs; it can be sent to another process.

    Attributes
    ----------
    run
        The directory to write in.
    replaces
        A finished run whose directory that one will replace; none: it is in its place already.
    """

    run: Path
    model: ModelInfo
    dataset: ScaleDataset
    training: TrainingSettings
    resume: bool
    replaces: Path | None = None

    @property
    def home(self) -> Path:
        """The run directory as the user knows it."""
        return self.replaces or self.run


class Outcome(NamedTuple):
    """How the loop ended, with the reason when it did not finish."""

    status: Literal["finished", "failed", "interrupted"]
    reason: str | None
    results: TrainingResults | None


class _Stopped(Exception):
    """A signal asked the run to stop."""


class _Diverged(Exception):
    """The loss is not finite."""


class Fit:
    """One training run on one process; with several devices, one of the processes that share each batch.

    Parameters
    ----------
    fabric : Fabric
        Launched.
    job : Job
        What to train, on what, how, and where to write.
    report : callable
        Receives the events (of rank 0).
    stop : callable
        Whether the run shall stop after the present step.

    Notes
    -----
    With several devices every process takes every n-th image of each batch, batch norms use the statistics of
    their own share, and the gradient is that of the mean over the whole batch. Rank 0 alone writes. With
    ``accumulate`` each share goes through in parts: their gradients add up to that of the whole batch, but a batch
    norm sees one part at a time.
    """

    def __init__(self, fabric: Fabric, job: Job, report: Report, stop: Callable[[], bool]) -> None:
        self.fabric, self.job, self.report, self.stop = fabric, job, report, stop
        self.training = job.training
        self.augmentation = augmentation_of(job.training)
        device = fabric.device
        self.train_images, self.train_labels = to_device(job.dataset.split("train"), device)
        self.val_images, self.val_labels = to_device(job.dataset.split("val"), device)
        self.network = build(job.model.name, job.model.options, seed=self.training.seed)
        self.least = smallest_batch(self.network, fabric.world_size)
        self.bounds = batch_bounds(len(self.train_labels), self.training.batch, self.least)
        remark = allow_what_must_be(fabric, self.network, pixels(self.train_images[:2]))
        if remark is not None and fabric.is_global_zero:
            report(Remark(f"weights will not repeat bit for bit on this device: {remark}"))
        optimizer = make_optimizer(self.network.parameters(), self.training)
        if self.training.checkpoint_activations:
            recompute_activations(self.network)
        stepping = (
            compiled(self.network, device, self.training.accumulate)
            if self.training.compile
            else self.network
        )
        self.model, self.optimizer = fabric.setup(stepping, optimizer)

        self.epoch, self.step = 1, 0
        self.losses = torch.zeros(len(self.bounds), device=device)
        self.wrong = torch.zeros((), dtype=torch.int64, device=device)
        self.seconds = 0.0
        self.ledger = Ledger(job.run, job.model)

    # ---- the whole run

    def run(self) -> Outcome:
        """Train from where the state stands, keep the best weights, test them once."""
        if self.job.resume:
            self._restore()
        if self.fabric.is_global_zero:
            name = device_name(self.training.device)
            epochs = self.training.epochs
            self.report(Begun(self.job.run, self.epoch, self.step, epochs, len(self.bounds), name))
        try:
            while self.epoch <= self.training.epochs:
                self._train_epoch()
                self._end_epoch(self._validation_error())
            return Outcome("finished", None, self._test())
        except _Stopped:
            if self.epoch <= self.training.epochs:
                self._save_state()
            return Outcome("interrupted", self._position(), None)
        except _Diverged as error:
            return Outcome("failed", str(error), None)

    def _position(self) -> str:
        return position(self.epoch, self.training.epochs, self.step, len(self.bounds))

    # ---- an epoch

    def _train_epoch(self) -> None:
        """Take the remaining steps of the epoch; all its randomness comes from the seed and where it stands."""
        seed, device = self.training.seed, self.fabric.device
        count = len(self.train_labels)
        order = image_order(count, seed, self.epoch).to(device)
        drawn = augmentation_draws(self.augmentation, count, self.job.dataset.image_size, seed, self.epoch)
        draws = tuple(numbers.to(device) for numbers in drawn)
        self.network.train()
        set_learning_rate(self.optimizer.optimizer, self._lr())
        self._question(0)
        began, before, first = time.perf_counter(), self.seconds, self.step
        reported = began
        try:
            while self.step < len(self.bounds):
                self._take_step(order, draws)
                now = time.perf_counter()
                if self.fabric.is_global_zero and now - reported >= SECONDS_BETWEEN_REPORTS:
                    self._report_step(first, now - began)
                    reported = now
                self._question(self.step)
            self._check_losses(self._sum(self.losses))
        finally:
            self.seconds = before + time.perf_counter() - began

    def _take_step(self, order: Int64[Tensor, "n"], draws: Draws) -> None:
        """One optimiser step on this process's share of the next batch; nothing here waits for the device."""
        start, end = self.bounds[self.step]
        rank, world = self.fabric.global_rank, self.fabric.world_size
        parts = parts_of(end - start, self.training.batch, self.training.accumulate, self.least)
        mine = range(start + rank, end, world)
        seed_device(self.fabric.device, seed_of(Draw.STEP, self.training.seed, self.epoch, self.step, rank))
        self.optimizer.zero_grad()
        for part in range(parts):
            within = mine[part * len(mine) // parts : (part + 1) * len(mine) // parts]
            with self.fabric.no_backward_sync(self.model, enabled=part < parts - 1):
                self._pass_through(order, draws, within, end - start)
        self.optimizer.step()
        self.step += 1

    def _pass_through(self, order: Int64[Tensor, "n"], draws: Draws, within: range, batch: int) -> None:
        """Add to gradients, loss and errors what some places of the epoch's order contribute to a batch."""
        places = slice(within.start, within.stop, within.step)
        chosen = order[places]
        images, labels = pixels(self.train_images[chosen]), self.train_labels[chosen]
        if self.augmentation is not None:
            images = self.augmentation.apply(images, tuple(numbers[places] for numbers in draws))
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels, reduction="sum") / batch
        # DDP averages the gradients over the processes; the shares' losses add up to the batch's mean
        self.fabric.backward(loss * self.fabric.world_size)
        self.losses[self.step] += loss.detach()
        self.wrong += (logits.detach().argmax(dim=1) != labels).sum()

    def _report_step(self, first: int, seconds: float) -> None:
        """Report where the epoch stands (this process's share of it); this waits for the device."""
        losses = self.losses[: self.step]
        if self.fabric.world_size == 1:
            self._check_losses(self.losses)
        seen = self.bounds[self.step - 1][1]
        loss = float(losses.mean()) * self.fabric.world_size
        error = int(self.wrong) / seen * self.fabric.world_size
        rate = (seen - self.bounds[first][0]) / seconds
        self.report(Stepped(self.epoch, self.step, loss, min(error, 1.0), rate))

    def _check_losses(self, losses: Float[Tensor, "steps"]) -> None:
        reason = divergence(losses, self.epoch, self._lr())
        if reason is not None:
            raise _Diverged(reason)

    def _question(self, step: int) -> None:
        """Stop when a signal asked for it; several processes agree on the step at which they do."""
        if self.fabric.world_size == 1:
            wanted = self.stop()
        elif self.fabric.device.type == "cpu" or step % STEPS_BETWEEN_QUESTIONS == 0:
            flag = torch.tensor(float(self.stop()), device=self.fabric.device)
            wanted = bool(self._sum(flag))
        else:
            wanted = False
        if wanted:
            raise _Stopped

    # ---- between epochs

    def _lr(self) -> float:
        return learning_rate(self.training, self.epoch)

    def _error(self, images: Tensor, labels: Tensor) -> float | None:
        """Return the fraction misclassified, each process counting its share; None of no images."""
        if len(labels) == 0:
            return None
        rank, world = self.fabric.global_rank, self.fabric.world_size

        def between() -> None:
            # shares may differ by a batch, so several processes cannot ask each other here
            if world == 1:
                self._question(0)

        wrong = count_errors(self.network, images[rank::world], labels[rank::world], between)
        return int(self._sum(wrong)) / len(labels)

    def _sum(self, share: Tensor) -> Tensor:
        """Return the sum over all processes (Fabric's own reduction works in place)."""
        total = self.fabric.all_reduce(share.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def _validation_error(self) -> float | None:
        if self.fabric.world_size > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
        return self._error(self.val_images, self.val_labels)

    def _end_epoch(self, val_error: float | None) -> None:
        """Keep the weights if they are the best, write the state and what follows from it."""
        ended = self.ledger.close_epoch(
            self.epoch,
            self.bounds,
            self._sum(self.losses).cpu(),
            int(self._sum(self.wrong)),
            val_error,
            self._lr(),
            self.seconds,
            lambda: weights_of(self.network),
        )
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.losses.zero_()
        self.wrong.zero_()
        self._save_state()
        if self.fabric.is_global_zero:
            self.ledger.write(weights=ended.best)
            self.report(ended)

    def _test(self) -> TrainingResults:
        self.network.load_state_dict(self.ledger.best_weights)
        images, labels = to_device(self.job.dataset.split("test"), self.fabric.device)
        return self.ledger.results(self._error(images, labels), len(labels))

    # ---- the run directory

    def _save_state(self) -> None:
        """Save all that going on needs. The state is the truth: weights and metrics can be rewritten from it."""
        losses = self._sum(self.losses)
        wrong = self._sum(self.wrong)
        if not self.fabric.is_global_zero:
            return
        state = {
            "network": weights_of(self.network),
            "optimizer": self.optimizer.optimizer.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "losses": losses.cpu(),
            "wrong": int(wrong),
            "seconds": self.seconds,
            **self.ledger.state(),
        }
        save_state(self.job.run / STATE_FILE, state)

    def _restore(self) -> None:
        state = load_state(self.job.run / STATE_FILE)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.ledger.restore(state)
        if self.fabric.is_global_zero:
            # the sums of all processes; the others go on from zero
            self.losses.copy_(state["losses"])
            self.wrong.fill_(state["wrong"])
            if self.ledger.best_weights:
                self.ledger.write(weights=True)
