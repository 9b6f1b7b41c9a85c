"""Running a sweep: what is left to do of it, handing that to an engine, and what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from secli.errors import HeldRunError, InputError
from secli.models.building import usual_options
from secli.provenance import secli_version
from secli.records.identity import training_differences
from secli.records.schema import (
    SWEEP_FILE,
    DataInfo,
    SweepRecord,
    SweptRun,
    read_sweep_record,
    read_training_record,
    write_record,
)
from secli.sweeps.engine import Done, Engine, Failed, Left, Notice, Started, SweepEvent, SweepReport
from secli.sweeps.jobs import JobState, SweepJob, forget_failure, mark_failed, put_aside, standing
from secli.sweeps.plan import UNKEYED, PlannedRun, matches
from secli.sweeps.spec import Sweep
from secli.sweeps.tracker_replay import settle
from secli.training.events import Event, Remark
from secli.yaml_files import parse_yaml


@dataclass
class SweepOutcome:
    """How a sweep stands after a call.

    Attributes
    ----------
    finished
        Jobs that are done, with those that were done before.
    failed
        Jobs that failed, with the reason, also those that failed in an earlier call and were not tried again.
    left
        Jobs that are still to do, with the reason of those that were let go: interrupted, or in other hands.
    hopeless
        Keys of the failed jobs that no other try can mend: a run with other settings stands in their place.
    """

    finished: list[SweepJob] = field(default_factory=list)
    failed: dict[str, tuple[SweepJob, str]] = field(default_factory=dict)
    left: dict[str, tuple[SweepJob, str]] = field(default_factory=dict)
    hopeless: set[str] = field(default_factory=set)


def chosen(runs: Sequence[PlannedRun], only: Sequence[str], limit: int | None) -> list[PlannedRun]:
    """Return the runs that ``--only`` and ``--limit`` leave, in the file's order.

    Parameters
    ----------
    runs : sequence
        All runs.
    only : sequence of str
        ``KEY=PATTERN`` (``model=dss_*``, ``realisation=0``, ``training.augment=scale``); a run matches all keys, and
        one of the patterns where a key is given several times.
    limit : int, optional
        How many at most.

    Raises
    ------
    InputError
        When an entry cannot be read, or no run is left.
    """
    choices: dict[str, list[Any]] = {}
    known = {name for run in runs for name in run.facts()}
    for text in only:
        key, equals, value = text.partition("=")
        if not equals:
            key, value = "model", text
        if key not in known:
            raise InputError(
                f"--only {text}: no run has '{key}'; write model=PATTERN, realisation=0, model.OPTION=…"
            )
        choices.setdefault(key, []).extend(_readings(value))
    left = [run for run in runs if matches(run, choices)]
    if not left:
        raise InputError(f"--only {' '.join(only)}: no run of the sweep matches")
    return left if limit is None else left[:limit]


def _readings(text: str) -> list[Any]:
    """Return what a value on the command line may mean: itself, a pattern (``*_28``), or what YAML makes of it.

    A list may mean several values, or a setting that is a list.
    """
    try:
        read = parse_yaml(text)
    except ValueError:
        return [text]
    return [text, read, *(read if isinstance(read, list) else [])]


def job_states(jobs: Iterable[SweepJob]) -> dict[str, JobState]:
    """Return how far each job has come, by its key."""
    return {job.key: standing(job) for job in jobs}


def given_up(standing: JobState, retry_failed: bool) -> bool:
    """Say whether a job has failed and is not tried again: nobody asks for it, or it would be of no use."""
    return standing.state == "failed" and not (retry_failed and standing.retriable)


def run_jobs(
    jobs: Sequence[SweepJob],
    engine: Engine,
    report: SweepReport,
    stop: Callable[[], bool],
    retry_failed: bool = False,
) -> SweepOutcome:
    """Carry out what is left of the jobs.

    Finished ones are skipped, interrupted ones gone on with, failed ones tried again only on request. What is
    finished is read from the run directories, so that a sweep can be killed at any moment and called again.

    Parameters
    ----------
    jobs : sequence of SweepJob
        From :func:`secli.sweeps.prepare_data.jobs_of`.
    engine : Engine
        What carries them out.
    report : callable
        Receives the events.
    stop : callable
        Whether to stop; running jobs then save their state.
    retry_failed : bool
        Whether failed jobs are tried again, but those for which a run with other settings stands.

    Raises
    ------
    SecliError
        When the engine cannot work at all.
    """
    before = job_states(jobs)
    outcome = SweepOutcome()
    todo: list[SweepJob] = []
    for job in jobs:
        state = before[job.key]
        if state.state == "done":
            outcome.finished.append(job)
        elif given_up(state, retry_failed):
            outcome.failed[job.key] = (job, state.reason or "no reason recorded")
            if not state.retriable:
                outcome.hopeless.add(job.key)
        elif state.damaged is None or _cleared(job, outcome, report):
            todo.append(job)
    finished: set[str] = set()
    let_go: dict[str, str] = {}

    def follow(event: SweepEvent) -> None:
        if isinstance(event, Started):
            forget_failure(event.job)
        elif isinstance(event, Done):
            finished.add(event.job.key)
        elif isinstance(event, Failed):
            outcome.failed[event.job.key] = (event.job, event.reason)
            with contextlib.suppress(OSError):  # a full disk: the next call tries the job again
                mark_failed(event.job, event.reason)
        elif isinstance(event, Left):
            let_go[event.job.key] = event.reason
        report(event)

    if todo:
        engine.run(todo, follow, stop)
    for job in todo:
        if job.key in finished:
            outcome.finished.append(job)
        elif job.key not in outcome.failed:
            outcome.left[job.key] = (job, let_go.get(job.key, ""))
    failed = [job for key, (job, _) in outcome.failed.items() if key not in outcome.hopeless]
    settle(outcome.finished, failed, lambda event: _pass_on(event, report))
    return outcome


def _cleared(job: SweepJob, outcome: SweepOutcome, report: SweepReport) -> bool:
    """Say whether nothing unreadable is in the way of a job that is tried; what is, is moved away and kept."""
    try:
        kept = put_aside(job)
    except HeldRunError as error:
        outcome.left[job.key] = (job, str(error))
        return False
    except OSError as error:
        outcome.failed[job.key] = (job, f"{job.run}: cannot be moved away: {error.strerror or error}")
        return False
    if kept is not None:
        report(Notice(f"{job.title}: what could not be read is kept as {kept}"))
    return True


def _pass_on(event: Event, report: SweepReport) -> None:
    """Report what a tracker has to say as the sweep's own."""
    if isinstance(event, Remark):
        report(Notice(event.text))


def data_before(out: Path, runs: Sequence[PlannedRun]) -> list[DataInfo | None]:
    """Return the data of each run that the sweep's record lists and whose directory stands; None for the others.

    The dataset itself need not be at hand: a run's key is checked with the digest that its own record holds.
    """
    try:
        before = read_sweep_record(out)
    except InputError:  # damaged, and about to be replaced
        before = None
    made: dict[str, list[tuple[str, DataInfo]]] = {}
    for entry in before.runs if before is not None else ():
        with contextlib.suppress(InputError):  # it never began, or is gone
            data = read_training_record(out / entry.run).data
            made.setdefault(entry.model, []).append((entry.key, data))
    return [
        next((data for key, data in made.get(run.model.name, []) if run.key(data.digest) == key), None)
        for run in runs
    ]


def write_sweep(
    out: Path,
    sweep: Sweep,
    runs: Sequence[PlannedRun],
    folders: Mapping[str, Path],
    keys: Sequence[str],
    command: str,
    datasets: Mapping[str, str] | None = None,
) -> None:
    """Write down in the sweep's directory which runs belong to it and what its tables are called.

    Parameters
    ----------
    out : Path
        The sweep's directory.
    sweep : Sweep
        Its file.
    runs, keys : sequences
        The runs and, for each, the key of its job.
    folders : mapping
        Key to the run's directory below ``out``.
    command : str
        The command line.
    datasets : mapping, optional
        Key to the name of the run's dataset, as its manifest says; else the protocol's.
    """
    listed = [
        SweptRun(
            key=key,
            run=str(folders[key]),
            label=run.label,
            tag=run.tag,
            model=run.model.name,
            options=to_jsonable_python(run.resolved.options),
            training=run.identity()["training"],
            dataset=(datasets or {}).get(key, run.data.name),
            realisation=run.data.realisation,
            seed=run.seed,
        )
        for run, key in zip(runs, keys, strict=True)
    ]
    record = SweepRecord(
        name=sweep.name,
        about=sweep.about,
        command=command,
        secli=secli_version(),
        runs=listed,
        tables=[table.model_dump(mode="json") for table in sweep.tables],
    )
    write_record(out / SWEEP_FILE, record)


def seconds_below(out: Path) -> Callable[[PlannedRun], float | None]:
    """Return a function that tells how long a run trained whose directory stands below a sweep's, if it is finished.

    The data of a run that is only planned may not be there yet, so a run is known by all but their digest.
    """

    def seconds(run: PlannedRun) -> float | None:
        settings = run.resolved.training.model_dump(mode="json", exclude=set(UNKEYED))
        pattern = f"{run.data.name}-r{run.data.realisation}-s{run.seed}-*"
        for directory in sorted((out / run.model.name).glob(pattern)):
            try:
                record = read_training_record(directory)
            except InputError:
                continue
            differ = training_differences(
                run.model.name, run.resolved.options, settings, record, usual_options(run.model.name)
            )
            if record.results is not None and not differ:
                return record.results.train_seconds
        return None

    return seconds
