"""One run of a sweep as a job: all that a worker needs to know, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from secli.config import MeasureSettings, ModelSettings, Settings, TrainingSettings
from secli.datasets.store import open_dataset
from secli.errors import InputError
from secli.experiments.measuring import Wanted, machine, measure_subject, pictures_for
from secli.records import (
    CURVES_FILE,
    RECORD_FILE,
    EquivarianceRecord,
    read_record,
    read_training_record,
    write_record,
)
from secli.trackers.following import following
from secli.training.events import Report
from secli.training.loading import load_subject
from secli.training.run import train

State = Literal["todo", "interrupted", "failed", "trained", "done"]
"""todo: nothing is there; trained: finished, but its curves are still to be measured."""

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
    measure: MeasureSettings | None = Field(None, description="what is measured; none: nothing")
    measured_on: Path | None = Field(None, description="the dataset directory that is measured on")
    trackers: tuple[str, ...] = Field((), description="trackers that follow the run")
    tracked_in: Path = Field(Path(), description="where they keep what they are told")


class Standing(Settings):
    """How far a job has come, as its run directory says."""

    state: State
    reason: str | None = None


def standing(job: SweepJob) -> Standing:
    """Read from the run directory how far a job has come; nothing else remembers it.

    A run that says "running" was killed, unless its worker still holds it.

    Raises
    ------
    InputError
        When a record there is damaged.
    """
    if not (job.run / RECORD_FILE).is_file():
        return Standing(state="todo")
    record = read_training_record(job.run)
    if record.status == "failed":
        return Standing(state="failed", reason=record.reason)
    if record.status != "finished":
        return Standing(state="interrupted", reason=record.reason)
    if job.measure is None or _measured(job) is not None:
        return Standing(state="done")
    return Standing(state="trained")


def _measured(job: SweepJob) -> EquivarianceRecord | None:
    """Return the curves of the run, if they were measured as the job wants them."""
    file = job.run / CURVES_FILE
    if job.measure is None or not file.is_file():
        return None
    record = read_record(file)
    if not isinstance(record, EquivarianceRecord):
        raise InputError(f"{file}: a record of kind '{record.kind}', not of equivariance curves")
    wanted = job.measure.model_dump(mode="json", exclude={"batch"})
    found = {key: value for key, value in record.measure.items() if key != "batch"}
    return record if found == wanted else None


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
    InputError, SecliError
        As :func:`secli.training.run.train`; the run's record then says why.
    InterruptedRunError
        When a signal stopped the training; its state is saved.
    """
    where = standing(job).state
    if where == "done":
        return
    with following(job.trackers, job.tracked_in, report) as follower:
        if where != "trained":
            data, out = open_dataset(job.data), job.run.parent
            train(job.model, data, job.training, out, run=job.run, resume=True, on_event=follower.on_event)
        _measure(job, on_measure)
        follower.finish(job.run)


def _measure(job: SweepJob, on_measure: OnMeasure) -> None:
    """Measure a trained run as the job wants it, and write the curves into it."""
    if job.measure is None or job.measured_on is None:
        return
    subject = load_subject(str(job.run))
    pictures = pictures_for(subject, job.measured_on, job.measure)
    here = machine(job.training.device, job.training.threads)
    record = measure_subject(
        subject, pictures, Wanted(job.measure), here, lambda _, __, done, total: on_measure(done, total)
    )
    write_record(job.run / CURVES_FILE, record)
