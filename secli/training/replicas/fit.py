"""The training loop for several replicas at once: the steps of ``secli.training.fit``, on stacked parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secli.datasets.loading import pixels
from secli.datasets.manifest import SplitName
from secli.training.augment import Draws
from secli.training.checkpoint import STATE_FILE, load_state, save_state
from secli.training.determinism import Draw, allow_nondeterministic, seed_of
from secli.training.devices import device_name
from secli.training.events import Begun, Event, Remark, Stepped
from secli.training.fit import Job, Outcome
from secli.training.history import Ledger, divergence
from secli.training.loop import Loop, Stopped
from secli.training.optim import make_optimizer
from secli.training.plan import batch_bounds, smallest_batch
from secli.training.replicas.evaluate import count_errors_by_replica
from secli.training.replicas.optimizer_state import join_states, keep_replicas, state_of
from secli.training.replicas.pool import Pool
from secli.training.replicas.stack import Stack

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ReplicaReport = Callable[[Path, Event], None]
"""Receives a run directory and an event of its run."""


class _NoneLeft(Exception):
    """Every replica has diverged."""


class StackedFit(Loop):
    """Several training runs of one model on one device, step by step together.

    Each replica takes the images, augmentations and dropout masks of its own run. A replica is dropped as soon as its
    loss is found not finite. ``seconds`` and ``images_per_second`` are wall time: all replicas share it.

    Parameters
    ----------
    fabric : Fabric
        Launched, of one device.
    jobs : sequence of Job
        One per replica: of equal model and settings (except the seed), on datasets of equal sizes, to be started or
        resumed from one epoch and step.
    networks : sequence of Module
        Each replica's network as it begins, on the CPU.
    stop : callable
        Whether the runs shall stop after the present step.
    """

    def __init__(
        self,
        fabric: Fabric,
        jobs: Sequence[Job],
        networks: Sequence[nn.Module],
        report: ReplicaReport,
        stop: Callable[[], bool],
    ) -> None:
        super().__init__(fabric, jobs[0].training, jobs[0].dataset.image_size, stop)
        self.jobs, self.report = jobs, report
        self.outcomes: dict[int, Outcome] = {}
        self.live = list(range(len(jobs)))  # the jobs of the rows of all that follows
        self.ledgers = [Ledger(job.run, job.model) for job in jobs]
        self.train, self.val = self._pool("train"), self._pool("val")
        least = smallest_batch(networks[0], 1)
        self.bounds = batch_bounds(self.train.count, self.training.batch, least)
        self.network = self.stack = Stack(networks)
        self._seed_dropout(0)
        two = torch.arange(min(2, self.train.count), device=fabric.device)
        some, _ = self.train.take(two.unsqueeze(0))
        remark = allow_nondeterministic(fabric, self.stack, pixels(some))
        if remark is not None:
            report(jobs[0].home, Remark(f"weights will not repeat bit for bit on this device: {remark}"))
        optimizer = make_optimizer(self.stack.parameters(), self.training)
        self.model, self.optimizer = fabric.setup(self.stack, optimizer)

        self.order: Tensor = torch.empty(0)
        self.draws: Draws = ()
        self.losses = torch.zeros(len(jobs), len(self.bounds), device=fabric.device)
        self.wrong = torch.zeros(len(jobs), dtype=torch.int64, device=fabric.device)

    def _pool(self, split: SplitName) -> Pool:
        return Pool([self.jobs[i].dataset for i in self.live], split, self.fabric.device)

    # ---- the whole runs

    def run(self) -> list[Outcome]:
        """Train from the saved states, if any, keep each replica's best weights, test them once."""
        if self.jobs[0].resume:
            self._restore()
        epochs, name = self.training.epochs, device_name(self.training.device)
        for job in self.jobs:
            self.report(job.home, Begun(job.run, self.epoch, self.step, epochs, len(self.bounds), name))
        try:
            self.loop()
        except Stopped:
            self.outcomes |= {which: Outcome("interrupted", self.position(), None) for which in self.live}
        except _NoneLeft:
            pass  # each has its outcome
        return [self.outcomes[which] for which in range(len(self.jobs))]

    # ---- an epoch

    def _draw(self) -> None:
        runs = [self._drawn(self.train.count, self.jobs[which].training.seed) for which in self.live]
        self.order = torch.stack([order for order, _ in runs]).to(self.fabric.device)
        drawn = zip(*(draws for _, draws in runs), strict=True)
        self.draws = tuple(torch.stack(numbers).to(self.fabric.device) for numbers in drawn)

    def _take_step(self) -> None:
        """One optimiser step of every replica on its own next batch."""
        start, end = self.bounds[self.step]
        images, labels = self.train.take(self.order[:, start:end])
        batch = pixels(images)
        if self.augmentation is not None:
            numbers = tuple(drawn[:, start:end].flatten(0, 1) for drawn in self.draws)
            batch = self.augmentation.apply(batch.flatten(0, 1), numbers).reshape(batch.shape)
        self._seed_dropout(self.step)
        self.optimizer.zero_grad()
        logits = self.model(batch)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        means = losses.view(labels.shape).sum(dim=1) / (end - start)
        # replicas share no parameter: the gradient of the sum is each one's own
        self.fabric.backward(means.sum())
        self.optimizer.step()
        self.losses[:, self.step] = means.detach()
        self.wrong += (logits.detach().argmax(dim=2) != labels).sum(dim=1)
        self.step += 1

    def _seed_dropout(self, step: int) -> None:
        if self.stack.drops:
            seeds = [self.jobs[which].training.seed for which in self.live]
            self.stack.streams.seed([seed_of(Draw.STEP, seed, self.epoch, step) for seed in seeds])

    def _report_step(self, rate: float) -> None:
        self._check_losses()
        losses = self.losses[:, : self.step].mean(dim=1).tolist()
        seen = self.bounds[self.step - 1][1]
        errors = (self.wrong / seen).tolist()
        for which, loss, error in zip(self.live, losses, errors, strict=True):
            self.report(self.jobs[which].home, Stepped(self.epoch, self.step, loss, error, rate))

    def _check_losses(self) -> None:
        """End the replicas whose loss is not finite as failed, and continue with the others."""
        losses, kept, lost = self.losses.cpu(), [], []
        for row, which in enumerate(self.live):
            reason = divergence(losses[row], self.epoch, self.lr())
            if reason is None:
                kept.append(row)
            else:
                lost.append(which)
                self.outcomes[which] = Outcome("failed", reason, None)
        if not kept:
            raise _NoneLeft
        if not lost:
            return
        for which in lost:
            run, reason = self.jobs[which].home, self.outcomes[which].reason
            self.report(run, Remark(f"{run}: {reason}; the other replicas go on"))
        self._keep(kept)

    def _keep(self, rows: Sequence[int]) -> None:
        """Drop all replicas but those of these rows."""
        keep_replicas(self.optimizer.optimizer, rows)
        for holder in (self.stack, self.train, self.val):
            holder.keep(rows)
        self.live = [self.live[row] for row in rows]
        self.losses, self.wrong, self.order = (
            tensor[list(rows)] for tensor in (self.losses, self.wrong, self.order)
        )
        self.draws = tuple(numbers[list(rows)] for numbers in self.draws)

    # ---- between epochs

    def _errors(self, pool: Pool) -> list[float | None]:
        """Return the fraction misclassified by each live replica; None without images."""
        if pool.count == 0:
            return [None] * len(self.live)
        wrong = count_errors_by_replica(self.stack, pool, lambda: self._check_stop(0))
        return [count / pool.count for count in wrong.tolist()]

    def _end_epoch(self) -> None:
        val_errors = self._errors(self.val)
        losses, wrong = self.losses.cpu(), self.wrong.tolist()
        ended = []
        for row, (which, val_error) in enumerate(zip(self.live, val_errors, strict=True)):
            ledger = self.ledgers[which]
            figures = (losses[row], wrong[row], val_error, self.lr(), self.seconds)
            weights = partial(self.stack.weights_of, row)
            ended.append(ledger.close_epoch(self.epoch, self.bounds, *figures, weights))
        self._next_epoch()
        self.losses.zero_()
        self.wrong.zero_()
        self._save_state()
        for which, event in zip(self.live, ended, strict=True):
            self.ledgers[which].write(weights=event.best)
            self.report(self.jobs[which].home, event)

    def _test(self) -> None:
        for row, which in enumerate(self.live):
            self.stack.load(row, self.ledgers[which].best_weights)
        pool = self._pool("test")
        for which, error in zip(self.live, self._errors(pool), strict=True):
            results = self.ledgers[which].results(error, pool.count)
            self.outcomes[which] = Outcome("finished", None, results)

    # ---- the run directories

    def _save_state(self) -> None:
        """Save for each run the state of a single run, from which either can be resumed."""
        losses, wrong = self.losses.cpu(), self.wrong.tolist()
        for row, which in enumerate(self.live):
            state = {
                "network": self.stack.weights_of(row),
                "optimizer": state_of(self.optimizer.optimizer, row),
                "scaler": self.fabric.strategy.precision.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "losses": losses[row].clone(),
                "wrong": wrong[row],
                "seconds": self.seconds,
                **self.ledgers[which].state(),
            }
            save_state(self.jobs[which].run / STATE_FILE, state)

    def _restore(self) -> None:
        states = [load_state(job.run / STATE_FILE) for job in self.jobs]
        usable = [state for state in states if state is not None]
        assert len(usable) == len(states)  # they were read when the jobs were made
        for which, state in enumerate(usable):
            self.stack.load(which, state["network"])
            self.ledgers[which].restore(state)
            self.losses[which] = state["losses"]
            self.wrong[which] = state["wrong"]
            if self.ledgers[which].best_weights:
                self.ledgers[which].write(weights=True)
        shapes = [parameter.shape for parameter in self.stack.parameters()]
        joined = join_states([state["optimizer"] for state in usable], shapes)
        self.optimizer.optimizer.load_state_dict(joined)
        self.epoch, self.step, self.seconds = (usable[0][key] for key in ("epoch", "step", "seconds"))
