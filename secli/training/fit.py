"""The training loop: from a seed, or a saved state, to the kept weights and their test error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from secli.config import TrainingSettings
from secli.datasets.loading import pixels, to_device
from secli.datasets.store import ScaleDataset
from secli.errors import SecliError, one_line
from secli.models.building import build
from secli.models.contract import StagedModel
from secli.records.epochs import METRICS_FILE
from secli.records.notes import Note
from secli.records.schema import ModelInfo, TrainingResults
from secli.training.augment import Draws
from secli.training.checkpoint import STATE_FILE, load_state, save_state, weights_of
from secli.training.compiling import compiled
from secli.training.determinism import Draw, allow_nondeterministic, seed_device, seed_of
from secli.training.devices import device_name
from secli.training.evaluate import count_errors
from secli.training.events import Begun, Remark, Report, Stepped
from secli.training.history import Ledger, divergence
from secli.training.loop import Loop, Stopped
from secli.training.optim import make_optimizer
from secli.training.plan import batch_bounds, parts_of, smallest_batch
from secli.training.recompute import recompute_activations

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["METRICS_FILE", "Fit", "Job", "Outcome"]

# On an accelerator, checking whether to stop waits for all devices: only every so many steps.
STEPS_BETWEEN_CHECKS = 20


@runtime_checkable
class BetweenEpochs(Protocol):
    """What is measured of the network between epochs, without changing it."""

    def after(self, epoch: int, network: StagedModel) -> dict[str, Any] | None:
        """Return what ``metrics.jsonl`` holds of it under ``equivariance``, after an epoch from 1; None: nothing."""


class Job(NamedTuple):
    """All that a training process needs; it can be sent to another process.

    ``run`` is the directory to write in, which will replace that of a finished run, ``replaces``, if any; ``measure``
    is asked after each epoch.
    """

    run: Path
    model: ModelInfo
    dataset: ScaleDataset
    training: TrainingSettings
    resume: bool
    replaces: Path | None = None
    measure: BetweenEpochs | None = None

    @property
    def home(self) -> Path:
        """The final run directory."""
        return self.replaces or self.run


class Outcome(NamedTuple):
    """How the loop ended, with the reason when it did not finish."""

    status: Literal["finished", "failed", "interrupted"]
    reason: Note | None
    results: TrainingResults | None


class _Diverged(Exception):
    """The loss is not finite."""

    def __init__(self, reason: Note) -> None:
        super().__init__(reason)
        self.reason = reason


class Fit(Loop):
    """One training run on one process; with several devices, one of the processes that share each batch.

    With several devices every process takes every n-th image of each batch, batch norms use the statistics of
    their own share, and the gradient is that of the mean over the whole batch. Rank 0 alone writes and reports. With
    ``accumulate`` each share is processed in parts: their gradients add up to that of the whole batch, but a batch
    norm sees one part at a time. ``stop`` returns whether the run shall stop after the present step.
    """

    network: StagedModel

    def __init__(self, fabric: Fabric, job: Job, report: Report, stop: Callable[[], bool]) -> None:
        super().__init__(fabric, job.training, job.dataset.image_size, stop)
        self.job, self.report = job, report
        device = fabric.device
        self.train_images, self.train_labels = to_device(job.dataset.split("train"), device)
        self.val_images, self.val_labels = to_device(job.dataset.split("val"), device)
        self.network = build(job.model.name, job.model.options, seed=self.training.seed)
        self.least = smallest_batch(self.network, fabric.world_size)
        self.bounds = batch_bounds(len(self.train_labels), self.training.batch, self.least)
        remark = allow_nondeterministic(fabric, self.network, pixels(self.train_images[:2]))
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

        self.order: Tensor = torch.empty(0)
        self.draws: Draws = ()
        self.results: TrainingResults | None = None
        self.losses = torch.zeros(len(self.bounds), device=device)
        self.wrong = torch.zeros((), dtype=torch.int64, device=device)
        self.ledger = Ledger(job.run, job.model)

    # ---- the whole run

    def run(self) -> Outcome:
        """Train from the saved state, if any, keep the best weights, test them once."""
        if self.job.resume:
            self._restore()
        if self.fabric.is_global_zero:
            name = device_name(self.training.device)
            epochs = self.training.epochs
            self.report(Begun(self.job.run, self.epoch, self.step, epochs, len(self.bounds), name))
        try:
            self.loop()
        except Stopped:
            return Outcome("interrupted", self.position(), None)
        except _Diverged as error:
            return Outcome("failed", error.reason, None)
        return Outcome("finished", None, self.results)

    # ---- an epoch

    def _draw(self) -> None:
        order, draws = self._drawn(len(self.train_labels), self.training.seed)
        self.order = order.to(self.fabric.device)
        self.draws = tuple(numbers.to(self.fabric.device) for numbers in draws)

    def _take_step(self) -> None:
        """One optimiser step on this process's share of the next batch."""
        start, end = self.bounds[self.step]
        rank, world = self.fabric.global_rank, self.fabric.world_size
        parts = parts_of(end - start, self.training.batch, self.training.accumulate, self.least)
        mine = range(start + rank, end, world)
        seed_device(self.fabric.device, seed_of(Draw.STEP, self.training.seed, self.epoch, self.step, rank))
        self.optimizer.zero_grad()
        for part in range(parts):
            within = mine[part * len(mine) // parts : (part + 1) * len(mine) // parts]
            with self.fabric.no_backward_sync(self.model, enabled=part < parts - 1):
                self._pass_through(within, end - start)
        self.optimizer.step()
        self.step += 1

    def _pass_through(self, within: range, batch: int) -> None:
        """Add the gradients, loss and errors of a part of the epoch's order to those of a batch."""
        part = slice(within.start, within.stop, within.step)
        chosen = self.order[part]
        images, labels = pixels(self.train_images[chosen]), self.train_labels[chosen]
        if self.augmentation is not None:
            images = self.augmentation.apply(images, tuple(numbers[part] for numbers in self.draws))
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels, reduction="sum") / batch
        # DDP averages the gradients over the processes; the shares' losses add up to the batch's mean
        self.fabric.backward(loss * self.fabric.world_size)
        self.losses[self.step] += loss.detach()
        self.wrong += (logits.detach().argmax(dim=1) != labels).sum()

    def _report_step(self, rate: float) -> None:
        """Report the progress of the epoch, estimated from this process's share."""
        losses = self.losses[: self.step]
        if self.fabric.world_size == 1:
            self._check_losses()
        seen = self.bounds[self.step - 1][1]
        loss = float(losses.mean()) * self.fabric.world_size
        error = int(self.wrong) / seen * self.fabric.world_size
        self.report(Stepped(self.epoch, self.step, loss, min(error, 1.0), rate))

    def _check_losses(self) -> None:
        reason = divergence(self._sum(self.losses), self.epoch, self.lr())
        if reason is not None:
            raise _Diverged(reason)

    def _check_stop(self, step: int) -> None:
        """Stop after a signal; several processes agree on the step at which they do."""
        if self.fabric.world_size == 1:
            requested = self.stop()
        elif self.fabric.device.type == "cpu" or step % STEPS_BETWEEN_CHECKS == 0:
            flag = torch.tensor(float(self.stop()), device=self.fabric.device)
            requested = bool(self._sum(flag))
        else:
            requested = False
        if requested:
            raise Stopped

    # ---- between epochs

    def _error(self, images: Tensor, labels: Tensor) -> float | None:
        """Return the fraction misclassified, each process counting its share; None without images."""
        if len(labels) == 0:
            return None
        rank, world = self.fabric.global_rank, self.fabric.world_size

        def between() -> None:
            # shares may differ by a batch, so several processes cannot agree here
            if world == 1:
                self._check_stop(0)

        wrong = count_errors(self.network, images[rank::world], labels[rank::world], between)
        return int(self._sum(wrong)) / len(labels)

    def _sum(self, share: Tensor) -> Tensor:
        """Return the sum over all processes (Fabric's own reduction works in place)."""
        total = self.fabric.all_reduce(share.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def _end_epoch(self) -> None:
        if self.fabric.world_size > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
        val_error = self._error(self.val_images, self.val_labels)
        ended = self.ledger.close_epoch(
            self.epoch,
            self.bounds,
            self._sum(self.losses).cpu(),
            int(self._sum(self.wrong)),
            val_error,
            self.lr(),
            self.seconds,
            lambda: weights_of(self.network),
        )
        self._next_epoch()
        self.losses.zero_()
        self.wrong.zero_()
        self._save_state()
        if self.fabric.is_global_zero:
            self.ledger.write(weights=ended.best)
            self.report(ended)
            self._measure(ended.epoch)

    def _measure(self, epoch: int) -> None:
        """Add what is measured after an epoch to its metrics; the epoch is saved already, whatever happens here."""
        if self.job.measure is None:
            return
        try:
            reading = self.job.measure.after(epoch, self.network)
        except (SecliError, torch.OutOfMemoryError) as problem:
            self.report(Remark(f"nothing measured after epoch {epoch}: {one_line(problem)}"))
            return
        if reading is not None:
            self.ledger.add_reading(reading)
            # an epoch begins with sums of 0 everywhere, so the other processes, which do not wait here, are not asked
            self._write_state(self.losses, self.wrong)
            self.ledger.write(weights=False)

    def _test(self) -> None:
        self.network.load_state_dict(self.ledger.best_weights)
        images, labels = to_device(self.job.dataset.split("test"), self.fabric.device)
        self.results = self.ledger.results(self._error(images, labels), len(labels))

    # ---- the run directory

    def _save_state(self) -> None:
        losses, wrong = self._sum(self.losses), self._sum(self.wrong)
        if self.fabric.is_global_zero:
            self._write_state(losses, wrong)

    def _write_state(self, losses: Tensor, wrong: Tensor) -> None:
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
            # the sums of all processes; the others continue from zero
            self.losses.copy_(state["losses"])
            self.wrong.fill_(state["wrong"])
            if self.ledger.best_weights:
                self.ledger.write(weights=True)
