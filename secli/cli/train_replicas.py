"""``secli train --replicas``: which replicas are meant, what is shown while they train, and what came of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from secli.cli.console import note, progress
from secli.errors import InputError, SecliError

if TYPE_CHECKING:
    from secli.cli.train import RunOptions
    from secli.config import ModelSettings, TrainingSettings
    from secli.datasets.store import ScaleDataset
    from secli.records.schema import TrainingRecord
    from secli.training.events import Event, Stepped
    from secli.training.replicas.fit import ReplicaReport


def replica_datasets(given: Sequence[Path], replicas: int | None) -> list[Path]:
    """Return the dataset directory of each replica: the one given, those given, or r0, r1, … within the one given.

    Parameters
    ----------
    given : sequence of Path
        As on the command line.
    replicas : int, optional
        None: a single run.

    Raises
    ------
    InputError
        When there are neither one nor as many as replicas.
    """
    if not given:
        raise InputError("--data: give the dataset directory, for example data/mnist-scale/r0")
    if len(given) == 1 and replicas is not None:
        (only,) = given
        if (only / "r0").is_dir() and not (only / "manifest.json").exists():
            return [only / f"r{i}" for i in range(replicas)]
        return [only] * replicas
    if replicas is None and len(given) > 1:
        raise InputError(f"--data is given {len(given)} times: add --replicas {len(given)}, or give one")
    if replicas is not None and len(given) != replicas:
        raise InputError(
            f"--replicas {replicas}: give --data once (seeds differ) or {replicas} times (realisations differ), "
            f"not {len(given)} times"
        )
    return list(given)


def train_several(
    model: ModelSettings,
    directories: Sequence[Path],
    training: TrainingSettings,
    options: RunOptions,
    at_once: bool | None,
) -> list[tuple[Path, TrainingRecord]]:
    """Train a replica on each dataset, those of equal datasets with seeds that count up from the one given."""
    from secli.datasets.store import open_dataset
    from secli.training.replicas.train import train_replicas

    opened = {each: open_dataset(each) for each in dict.fromkeys(directories)}
    datasets: list[ScaleDataset] = [opened[each] for each in directories]
    step = 1 if len(opened) == 1 else 0
    trainings = [training.model_copy(update={"seed": training.seed + step * i}) for i in range(len(datasets))]
    with (
        _showing(len(datasets), training.epochs, options.quiet) as show,
        _tracked(options, show, len(datasets)) as report,
    ):
        return train_replicas(
            model,
            datasets,
            trainings,
            options.runs,
            resume=options.resume,
            force=options.force,
            at_once=at_once,
            on_event=report,
        )


@contextlib.contextmanager
def _showing(replicas: int, epochs: int, quiet: bool) -> Iterator[ReplicaReport]:
    """Give a function that shows the events of all runs as one bar: epochs of all, loss and error on the mean."""
    from secli.training.events import Begun, EpochEnded, Remark, Stepped

    with progress(quiet, count=False) as display:
        task = display.add_task(f"{replicas} replicas", total=replicas * epochs, detail="")
        steps, done = 1, dict[Path, float]()
        latest: dict[Path, Stepped] = {}

        def show(run: Path, event: Event) -> None:
            nonlocal steps
            if isinstance(event, Remark):
                if not quiet:
                    note(event.text)
                return
            if isinstance(event, Begun):
                steps = event.steps
                done[run] = min(event.epoch - 1 + event.step / steps, epochs)
            elif isinstance(event, Stepped):
                done[run] = event.epoch - 1 + event.step / steps
                latest[run] = event
            elif isinstance(event, EpochEnded):
                done[run] = event.epoch
            display.update(task, completed=sum(done.values()), detail=_detail(list(latest.values()), epochs))

        yield show


def _detail(steps: Sequence[Stepped], epochs: int) -> str:
    """Return the epoch, and loss and error on the mean of the replicas that are in it."""
    if not steps:
        return ""
    epoch = steps[-1].epoch
    here = [step for step in steps if step.epoch == epoch]
    loss, error = fmean(step.loss for step in here), fmean(step.error for step in here)
    return f"epoch {epoch}/{epochs} loss {loss:.3f} err {100 * error:.1f}%"


@contextlib.contextmanager
def _tracked(options: RunOptions, show: ReplicaReport, replicas: int) -> Iterator[ReplicaReport]:
    """Give a function that hands events on, each run's to trackers of its own; at the end they learn the results."""
    from secli.trackers.forward import Follower, following

    runs = options.runs
    if not options.trackers:
        yield show
        return
    with contextlib.ExitStack() as open_ones:
        current: list[Path] = [runs]
        spare = [
            open_ones.enter_context(following(options.trackers, runs, lambda event: show(current[0], event)))
            for _ in range(replicas)
        ]
        followers: dict[Path, Follower] = {}

        def report(run: Path, event: Event) -> None:
            current[0] = run
            if run not in followers:
                followers[run] = spare.pop()
            followers[run].on_event(event)

        try:
            yield report
        finally:
            for run, follower in followers.items():
                if _finished(run):
                    current[0] = run
                    follower.finish(run)


def _finished(run: Path) -> bool:
    from secli.records.schema import read_training_record

    try:
        return read_training_record(run).status == "finished"
    except SecliError:
        return False


def raise_failures(trained: Sequence[tuple[Path, TrainingRecord]]) -> None:
    """Raise one error for the replicas that failed, if any did."""
    failed = [(run, record.reason) for run, record in trained if record.status == "failed"]
    if not failed:
        return
    run, reason = failed[0]
    others = f" (and {len(failed) - 1} more failed)" if len(failed) > 1 else ""
    raise SecliError(
        f"{run}: {reason}{others}; {len(trained) - len(failed)} of {len(trained)} replicas finished"
    )
