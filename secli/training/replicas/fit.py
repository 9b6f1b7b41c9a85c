"""The training loop for several replicas at once: the steps of ``secli.training.fit``, on stacked parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secli.datasets.loading import pixels
from secli.datasets.manifest import SplitName
from secli.training.augment import Draws, augmentation_of
from secli.training.checkpoint import STATE_FILE, load_state, save_state
from secli.training.determinism import Draw, allow_what_must_be, seed_of
from secli.training.devices import device_name
from secli.training.epoch import augmentation_draws, image_order
from secli.training.events import Begun, Event, Remark, Stepped
from secli.training.fit import SECONDS_BETWEEN_REPORTS, Job, Outcome
from secli.training.history import Ledger, divergence, position
from secli.training.optim import learning_rate, make_optimizer, set_learning_rate
from secli.training.plan import batch_bounds, smallest_batch
from secli.training.replicas.evaluate import count_errors
from secli.training.replicas.optimizer_state import join_states, keep_replicas, state_of
from secli.training.replicas.pool import Pool
from secli.training.replicas.stack import Stack

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ReplicaReport = Callable[[Path, Event], None]
"""Receives a run directory and an event of its run."""


class _Stopped(Exception):
    """A signal asked the runs to stop."""


class _NoneLeft(Exception):
    """Every replica has diverged."""


class StackedFit:
    """Several training runs of one model on one device, step by step together.

    Parameters
    ----------
    fabric : Fabric
        Launched, of one device.
    jobs : sequence of Job
        One per replica: of equal model and settings (the seed apart), on datasets of equal sizes, to be begun or to
        go on from one place.
    networks : sequence of Module
        Each replica's network as it begins, on the CPU.
    report : callable
        Receives each run's events.
    stop : callable
        Whether the runs shall stop after the present step.

    Notes
    -----
    Each replica takes the images, augmentations and dropout masks of its own run. A replica whose loss is not finite
    is left out from where that is noticed. ``seconds`` and ``images_per_second`` are those of the wall: all replicas
    share the time.
    """

    def __init__(
        self,
        fabric: Fabric,
        jobs: Sequence[Job],
        networks: Sequence[nn.Module],
        report: ReplicaReport,
        stop: Callable[[], bool],
    ) -> None:
        self.fabric, self.jobs, self.report, self.stop = fabric, jobs, report, stop
        self.outcomes: dict[int, Outcome] = {}
        self.training = jobs[0].training
        self.augmentation = augmentation_of(self.training)
        self.live = list(range(len(jobs)))  # which jobs the rows of all that follows stand for
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.ledgers = [Ledger(job.run, job.model) for job in jobs]
        self.train, self.val = self._pool("train"), self._pool("val")
        least = smallest_batch(networks[0], 1)
        self.bounds = batch_bounds(self.train.count, self.training.batch, least)
        self.stack = Stack(networks)
        self._seed_dropout(0)
        two = torch.arange(min(2, self.train.count), device=fabric.device)
        some, _ = self.train.take(two.unsqueeze(0))
        remark = allow_what_must_be(fabric, self.stack, pixels(some))
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
        """Train from where the states stand, keep each replica's best weights, test them once."""
        if self.jobs[0].resume:
            self._restore()
        epochs, name = self.training.epochs, device_name(self.training.device)
        for job in self.jobs:
            self.report(job.home, Begun(job.run, self.epoch, self.step, epochs, len(self.bounds), name))
        try:
            while self.epoch <= epochs:
                self._train_epoch()
                self._end_epoch(self._errors(self.val))
            self._test()
        except _Stopped:
            if self.epoch <= epochs:
                self._save_states()
            reason = position(self.epoch, epochs, self.step, len(self.bounds))
            self.outcomes |= {which: Outcome("interrupted", reason, None) for which in self.live}
        except _NoneLeft:
            pass  # each has its outcome
        return [self.outcomes[which] for which in range(len(self.jobs))]

    # ---- an epoch

    def _train_epoch(self) -> None:
        """Take the remaining steps of the epoch; all randomness comes from each seed and where it stands."""
        self._draw()
        self.stack.train()
        set_learning_rate(self.optimizer.optimizer, self._lr())
        self._question()
        began, before, first = time.perf_counter(), self.seconds, self.step
        reported = began
        try:
            while self.step < len(self.bounds):
                self._take_step()
                now = time.perf_counter()
                if now - reported >= SECONDS_BETWEEN_REPORTS:
                    self._report_step(first, now - began)
                    reported = now
                self._question()
            self._leave_out_diverged()
        finally:
            self.seconds = before + time.perf_counter() - began

    def _draw(self) -> None:
        """Draw the order of every replica's images and the numbers of its augmentation, and put them on the device."""
        count, device = self.train.count, self.fabric.device
        seeds = [self.jobs[which].training.seed for which in self.live]
        self.order = torch.stack([image_order(count, seed, self.epoch) for seed in seeds]).to(device)
        size = self.jobs[0].dataset.image_size
        drawn = [augmentation_draws(self.augmentation, count, size, seed, self.epoch) for seed in seeds]
        self.draws = tuple(torch.stack(numbers).to(device) for numbers in zip(*drawn, strict=True))

    def _take_step(self) -> None:
        """One optimiser step of every replica on its own next batch; nothing here waits for the device."""
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

    def _report_step(self, first: int, seconds: float) -> None:
        """Report where each run stands; this waits for the device."""
        self._leave_out_diverged()
        losses = self.losses[:, : self.step].mean(dim=1).tolist()
        seen = self.bounds[self.step - 1][1]
        rate = (seen - self.bounds[first][0]) / seconds
        errors = (self.wrong / seen).tolist()
        for which, loss, error in zip(self.live, losses, errors, strict=True):
            self.report(self.jobs[which].home, Stepped(self.epoch, self.step, loss, error, rate))

    def _leave_out_diverged(self) -> None:
        """Let the replicas whose loss is not finite end as failed, and go on with the others."""
        losses, kept, lost = self.losses.cpu(), [], []
        for place, which in enumerate(self.live):
            reason = divergence(losses[place], self.epoch, self._lr())
            if reason is None:
                kept.append(place)
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

    def _keep(self, places: Sequence[int]) -> None:
        """Leave out all replicas but those at these places."""
        keep_replicas(self.optimizer.optimizer, places)
        for holder in (self.stack, self.train, self.val):
            holder.keep(places)
        self.live = [self.live[place] for place in places]
        self.losses, self.wrong, self.order = (
            rows[list(places)] for rows in (self.losses, self.wrong, self.order)
        )
        self.draws = tuple(numbers[list(places)] for numbers in self.draws)

    def _question(self) -> None:
        if self.stop():
            raise _Stopped

    # ---- between epochs

    def _lr(self) -> float:
        return learning_rate(self.training, self.epoch)

    def _errors(self, pool: Pool) -> list[float | None]:
        """Return the fraction misclassified by each live replica; None of no images."""
        if pool.count == 0:
            return [None] * len(self.live)
        return [wrong / pool.count for wrong in count_errors(self.stack, pool, self._question).tolist()]

    def _end_epoch(self, val_errors: Sequence[float | None]) -> None:
        """Keep the weights that are the best, write the states and what follows from them."""
        losses, wrong = self.losses.cpu(), self.wrong.tolist()
        ended = []
        for place, (which, val_error) in enumerate(zip(self.live, val_errors, strict=True)):
            ledger = self.ledgers[which]
            figures = (losses[place], wrong[place], val_error, self._lr(), self.seconds)
            weights = partial(self.stack.weights_of, place)
            ended.append(ledger.close_epoch(self.epoch, self.bounds, *figures, weights))
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.losses.zero_()
        self.wrong.zero_()
        self._save_states()
        for which, event in zip(self.live, ended, strict=True):
            self.ledgers[which].write(weights=event.best)
            self.report(self.jobs[which].home, event)

    def _test(self) -> None:
        for place, which in enumerate(self.live):
            self.stack.load(place, self.ledgers[which].best_weights)
        pool = self._pool("test")
        for which, error in zip(self.live, self._errors(pool), strict=True):
            results = self.ledgers[which].results(error, pool.count)
            self.outcomes[which] = Outcome("finished", None, results)

    # ---- the run directories

    def _save_states(self) -> None:
        """Save for each run what a run by itself would save: either can go on from it."""
        losses, wrong = self.losses.cpu(), self.wrong.tolist()
        for place, which in enumerate(self.live):
            state = {
                "network": self.stack.weights_of(place),
                "optimizer": state_of(self.optimizer.optimizer, place),
                "scaler": self.fabric.strategy.precision.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "losses": losses[place].clone(),
                "wrong": wrong[place],
                "seconds": self.seconds,
                **self.ledgers[which].state(),
            }
            save_state(self.jobs[which].run / STATE_FILE, state)

    def _restore(self) -> None:
        states = [load_state(job.run / STATE_FILE) for job in self.jobs]
        usable = [state for state in states if state is not None]
        assert len(usable) == len(states)  # who made the jobs has read them
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
