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
    from secli.config import ModelSettings, TrainingSettings
    from secli.datasets.store import ScaleDataset
    from secli.records.schema import TrainingRecord
    from secli.training.events import Event, Stepped
    from secli.training.replicas.fit import ReplicaReport


def one_dataset(places: Sequence[Path]) -> Path:
    """Return the dataset directory of a single run."""
    if not places:
        raise InputError("--data: give the dataset directory, for example data/mnist-scale/r0")
    if len(places) > 1:
        raise InputError(f"--data is given {len(places)} times: add --replicas {len(places)}, or give one")
    return places[0]


def replica_places(places: Sequence[Path], replicas: int) -> list[Path]:
    """Return the dataset directory of each replica: the one given, those given, or r0, r1, … within the one given.

    Raises
    ------
    InputError
        When there are neither one nor as many as replicas.
    """
    if not places:
        one_dataset(places)
    if len(places) == 1 and _holds_realisations(places[0]):
        return [places[0] / f"r{i}" for i in range(replicas)]
    if len(places) not in (1, replicas):
        raise InputError(
            f"--replicas {replicas}: give --data once (seeds differ) or {replicas} times (realisations differ), "
            f"not {len(places)} times"
        )
    return list(places) * (replicas if len(places) == 1 else 1)


def _holds_realisations(place: Path) -> bool:
    return (place / "r0").is_dir() and not (place / "manifest.json").exists()


def train_several(
    model: ModelSettings,
    places: Sequence[Path],
    training: TrainingSettings,
    runs: Path,
    *,
    at_once: bool | None,
    resume: bool,
    force: bool,
    quiet: bool,
    trackers: Sequence[str],
) -> list[tuple[Path, TrainingRecord]]:
    """Train a replica per place, those of equal places with seeds that count up from the one given."""
    from secli.datasets.store import open_dataset
    from secli.training.replicas.train import train_replicas

    opened = {place: open_dataset(place) for place in dict.fromkeys(places)}
    datasets: list[ScaleDataset] = [opened[place] for place in places]
    step = 1 if len(opened) == 1 else 0
    trainings = [training.model_copy(update={"seed": training.seed + step * i}) for i, _ in enumerate(places)]
    with (
        _showing(len(places), training.epochs, quiet) as show,
        _tracked(trackers, runs, show, len(places)) as report,
    ):
        return train_replicas(
            model, datasets, trainings, runs, resume=resume, force=force, at_once=at_once, on_event=report
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
    """Return the epoch, and loss and error on the mean of the replicas that stand in it."""
    if not steps:
        return ""
    epoch = steps[-1].epoch
    here = [step for step in steps if step.epoch == epoch]
    loss, error = fmean(step.loss for step in here), fmean(step.error for step in here)
    return f"epoch {epoch}/{epochs} loss {loss:.3f} err {100 * error:.1f}%"


@contextlib.contextmanager
def _tracked(
    trackers: Sequence[str], runs: Path, show: ReplicaReport, replicas: int
) -> Iterator[ReplicaReport]:
    """Give a function that hands events on, each run's to trackers of its own; at the end they learn the results."""
    from secli.trackers.forward import Follower, following

    if not trackers:
        yield show
        return
    with contextlib.ExitStack() as open_ones:
        current: list[Path] = [runs]
        spare = [
            open_ones.enter_context(following(trackers, runs, lambda event: show(current[0], event)))
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
