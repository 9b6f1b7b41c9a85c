"""One run of a sweep as a job: all that a worker needs to know, and how far it has come."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_core import to_jsonable_python

from secli.catalogue import MODELS
from secli.config import MeasureSettings, ModelSettings, Settings, TrainingSettings
from secli.datasets.store import ScaleDataset, open_dataset
from secli.errors import HeldRunError, InputError
from secli.models.building import resolve_options, usual_options
from secli.records.identity import measured_like, outdated, training_differences
from secli.records.notes import Note
from secli.records.schema import (
    CURVES_FILE,
    DAMAGED,
    RECORD_FILE,
    EquivarianceRecord,
    TrainingRecord,
    read_record,
    read_training_record,
    write_record,
)
from secli.storage.writing import write_text
from secli.sweeps.measure import MeasureRequest, machine, measure_subject, pictures_for
from secli.trackers.forward import following
from secli.training.checkpoint import WEIGHTS_FILE
from secli.training.events import Report
from secli.training.load import load_subject
from secli.training.run import alone_in, train

State = Literal["todo", "interrupted", "failed", "trained", "done"]
"""todo: nothing is there; trained: finished, but its curves are still to be measured."""

PATIENCE = 10.0
"""Seconds that a job waits for a run which another process holds."""

OnMeasure = Callable[[int, int], None]
"""Called with (forward passes done, forward passes in all)."""


class SweepJob(Settings):
    """One run: what to train, on what, where to write it, and what to measure of it."""

    key: str = Field(description="hash of the run's resolved settings and of its data")
    title: str = Field(description="the run in a few words")
    run: Path = Field(description="the run directory")
    model: ModelSettings = Field(description="which network")
    training: TrainingSettings = Field(description="all training settings")
    data: Path = Field(description="the dataset directory")
    data_digest: str | None = Field(None, description="digest of that dataset; none: not checked")
    measure: MeasureSettings | None = Field(None, description="what is measured; none: nothing")
    measured_on: Path | None = Field(None, description="the dataset directory that is measured on")
    measured_digest: str | None = Field(None, description="digest of that dataset; none: not checked")
    command: str = Field(
        "", description="the command whose job it is, for the records; none: the process's own"
    )
    trackers: tuple[str, ...] = Field((), description="trackers that follow the run")
    tracked_in: Path = Field(Path(), description="where they keep what they are told")


class JobState(Settings):
    """How far a job has come, as its run directory says."""

    state: State
    reason: str | None = None
    retriable: bool = Field(True, description="whether a failed job may be tried again as it is")
    damaged: Path | None = Field(
        None, description="what cannot be read of the run; another try begins without it"
    )


def standing(job: SweepJob) -> JobState:
    """Read from the run directory how far a job has come; nothing else remembers it.

    A run that says "running" was killed, unless its worker still holds it. A failure that the run's record cannot
    hold (see :func:`mark_failed`) stands beside the run directory. A run with other settings than the job's is a
    failure of this job, which no other try can mend; one that cannot be read is a failure that another try mends.
    """
    noted = _noted_failure(job)
    if not os.path.lexists(job.run):
        return JobState(state="todo") if noted is None else JobState(state="failed", reason=noted)
    try:
        record = read_training_record(job.run)
    except InputError as error:
        return JobState(state="failed", reason=str(error), damaged=job.run)
    differs = difference(job, record)
    if differs is not None:
        return JobState(state="failed", reason=differs, retriable=False)
    if record.status == "failed":
        return JobState(state="failed", reason=_in_words(record))
    if record.status != "finished":
        return JobState(state="interrupted", reason=_in_words(record))
    try:
        if job.measure is None or _measured(job) is not None:
            return JobState(state="done")
    except InputError as error:
        return JobState(state="failed", reason=str(error), damaged=job.run / CURVES_FILE)
    if not (job.run / WEIGHTS_FILE).exists():
        reason = f"{job.run}: finished, but its weights are not here to be measured as this sweep asks"
        return JobState(state="failed", reason=reason, damaged=job.run)
    return JobState(state="trained") if noted is None else JobState(state="failed", reason=noted)


def _in_words(record: TrainingRecord) -> str | None:
    return None if record.reason is None else str(record.reason)


def difference(job: SweepJob, record: TrainingRecord) -> str | None:
    """Say how a run's settings differ from the job's: a key leaves out defaults, and defaults may change."""
    if reason := outdated(record.training):
        return f"{job.run}: made with {reason}; move it away or remove it"
    options = to_jsonable_python(resolve_options(MODELS[job.model.name], job.model.options))
    usual = usual_options(job.model.name)
    training = job.training.model_dump(mode="json", exclude={"device"})
    for name, now, then in training_differences(job.model.name, options, training, record, usual):
        return (
            f"{job.run}: made with {name} = {then} by an older secli, where this one takes {now}; "
            "move it away or remove it"
        )
    return None


def failure_file(run: Path) -> Path:
    """Return where a failure is written down that the run's own record cannot hold."""
    return run.with_name(f"{run.name}.failed")


def _noted_failure(job: SweepJob) -> str | None:
    try:
        text = failure_file(job.run).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{failure_file(job.run)}: cannot be read: {error.strerror or error}"
    return text.strip() or "no reason recorded"


def mark_failed(job: SweepJob, reason: str) -> None:
    """Write down that a job failed, where its process could not do so itself.

    A record that says "running" or "interrupted" then says "failed". A run that has no record (it failed before it
    began), or a finished one (its measurement failed; the training stays finished), gets a file beside its directory,
    which goes when the job is tried again. A run that another process holds is left as it is.
    """
    if not (job.run / RECORD_FILE).is_file():
        _note_failure(job, reason)
        return
    # of a run that cannot be read nothing is changed
    with contextlib.suppress(HeldRunError, InputError), alone_in(job.run):
        record = read_training_record(job.run)
        if difference(job, record) is not None:  # another run than this job's
            return
        if record.status in ("running", "interrupted"):
            write_record(
                job.run / RECORD_FILE,
                record.model_copy(update={"status": "failed", "reason": Note.of("failed", error=reason)}),
            )
        elif standing(job).state == "trained":
            _note_failure(job, reason)


def _note_failure(job: SweepJob, reason: str) -> None:
    write_text(failure_file(job.run), f"{' '.join(reason.split())}\n")


def forget_failure(job: SweepJob) -> None:
    """Remove what :func:`mark_failed` wrote beside the run directory: the job is tried again, or done."""
    failure_file(job.run).unlink(missing_ok=True)


def put_aside(job: SweepJob) -> Path | None:
    """Move away what cannot be read of a job's run, so that it can be made again; return where it is kept.

    Raises
    ------
    HeldRunError
        When another process holds the run.
    OSError
        When it cannot be moved.
    """
    damaged = standing(job).damaged
    if damaged is None:
        return None
    names = (f"{damaged.name}{DAMAGED}{number}" for number in ("", *range(2, 1000)))
    kept = next(path for name in names if not os.path.lexists(path := damaged.with_name(name)))
    with alone_in(job.run):
        damaged.rename(kept)
    forget_failure(job)
    return kept


def _measured(job: SweepJob) -> EquivarianceRecord | None:
    """Return the curves of the run, if they were measured as the job wants them."""
    file = job.run / CURVES_FILE
    if job.measure is None or not os.path.lexists(file):
        return None
    record = read_record(file)
    if not isinstance(record, EquivarianceRecord):
        raise InputError(f"{file}: a record of kind '{record.kind}', not of equivariance curves")
    return record if measured_like(record, job.measure, job.measured_digest) else None


def carry_out(job: SweepJob, report: Report, on_measure: OnMeasure = lambda done, total: None) -> None:
    """Train the job's network, going on where it stood, then measure it; a finished part is not done again.

    Parameters
    ----------
    job : SweepJob
        The run.
    report : callable
        Receives the events of training.
    on_measure : callable
        Receives the progress of the measurement.

    Raises
    ------
    InputError
        When a run with other settings stands there.
    InputError, SecliError
        As :func:`secli.training.run.train`; the run's record then says why.
    HeldRunError
        When another process is training the run, and goes on doing so for :data:`PATIENCE` seconds.
    InterruptedRunError
        When a signal stopped the training; its state is saved.
    """
    found = standing(job)
    if found.state == "done":
        return
    if not found.retriable or found.damaged is not None:
        raise InputError(found.reason or "")
    with following(job.trackers, job.tracked_in, report, strict=False) as follower:
        if not _is_trained(job):
            _train(job, open_dataset(job.data), follower.on_event)
        _measure(job, on_measure)
        follower.finish(job.run)


def _is_trained(job: SweepJob) -> bool:
    return (job.run / RECORD_FILE).is_file() and read_training_record(job.run).status == "finished"


def _train(job: SweepJob, data: ScaleDataset, report: Report) -> None:
    """Train, or go on with what stands there, on the device that it was begun on.

    The worker of a sweep that was killed needs a moment to save its state and let go of the run.
    """
    training = job.training
    if (job.run / RECORD_FILE).is_file():
        training = training.model_copy(update={"device": "auto"})
    began = time.monotonic()
    while True:
        try:
            train(job.model, data, training, job.run.parent, run=job.run, resume=True, on_event=report)
            return
        except HeldRunError:
            if time.monotonic() - began > PATIENCE:
                raise
            time.sleep(0.5)


def _measure(job: SweepJob, on_measure: OnMeasure) -> None:
    """Measure a trained run as the job wants it, and write the curves into it."""
    if job.measure is None or job.measured_on is None:
        return
    subject = load_subject(str(job.run))
    pictures = pictures_for(subject, job.measured_on, job.measure)
    here = machine(job.training.device, job.training.threads)
    record = measure_subject(
        subject,
        pictures,
        MeasureRequest(job.measure),
        here,
        lambda _, __, done, total: on_measure(done, total),
    )
    write_record(job.run / CURVES_FILE, record)
