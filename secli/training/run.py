"""A run directory: named by its settings, created whole, resumed, replaced only on request, and read back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from secli.config import ModelSettings, TrainingSettings
from secli.datasets.store import ScaleDataset
from secli.errors import HeldRunError, InputError, InterruptedRunError, SecliError, one_line
from secli.models.building import build
from secli.models.contract import StagedModel
from secli.provenance import gather, library_versions
from secli.records.kept import CONFIG_FILE, config_text
from secli.records.notes import Note
from secli.records.schema import RECORD_FILE, TrainingRecord, read_training_record, write_record
from secli.storage.disk_space import FullError
from secli.storage.leftovers import owned, tidy
from secli.storage.locks import hold
from secli.storage.writing import atomic_directory, replace_folder, write_text
from secli.training.checkpoint import STATE_FILE, WEIGHTS_FILE, load_state, load_weights
from secli.training.devices import device_name, on_this_machine
from secli.training.events import Remark, Report, silent
from secli.training.fit import BetweenEpochs, Job, Outcome
from secli.training.interruption import catching_signals
from secli.training.launch import launch
from secli.training.plan import Resolved, as_recorded, build_for, model_info, resolve, run_directory

__all__ = ["CONFIG_FILE", "load_run", "run_directory", "train"]


def train(
    model: ModelSettings,
    dataset: ScaleDataset,
    training: TrainingSettings,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    run: Path | None = None,
    on_event: Report | None = None,
    measure: BetweenEpochs | None = None,
) -> tuple[Path, TrainingRecord]:
    """Train a model on a dataset, keep the weights of the best validation epoch and test them once.

    Parameters
    ----------
    model : ModelSettings
        Registry name, and options that differ from the defaults.
    dataset : ScaleDataset
        Images and labels; the epoch with the strictly lowest validation error is kept (the first of equals),
        or the last epoch without a validation split.
    training : TrainingSettings
        All settings; ``secli.training.plan.default_training`` gives the model's published ones.
    out : Path
        Parent of the run directory (see ``run_directory``).
    resume : bool
        Resume the existing run; a finished one is left as it is, a missing one is started.
    force : bool
        Replace the existing run: a finished one when the new one is finished, so that one of both exists
        at every moment; another one once the new one is ready to start.
    run : Path, optional
        The run directory itself, instead of the one that ``run_directory`` names in ``out``.
    on_event : callable, optional
        Receives ``secli.training.events``; with several devices it is called from another thread.
    measure : BetweenEpochs, optional
        Measures the network between epochs, into ``metrics.jsonl``; the weights are the same with and without.

    Returns
    -------
    Path, TrainingRecord
        The run directory and its record, ``status: finished``.

    Raises
    ------
    InputError
        When something does not fit, or a run exists and neither ``resume`` nor ``force`` is given.
    InterruptedRunError
        When a signal (SIGINT, SIGTERM) stopped the run; its state is saved.
    SecliError
        When the run failed (the loss is not finite, the disk is full), with the reason in its record.

    Notes
    -----
    On the CPU, equal settings give equal weights, byte for byte, interrupted or not. A last batch too small
    for a batch norm joins the batch before it. Validation and test run in float32.
    """
    report = on_event or silent
    intent = intended(model, dataset, training, out, resume=resume, force=force, run=run)
    if intent.finished:
        report(Remark(f"{intent.run}: finished already, nothing to do"))
        return intent.run, intent.record
    with contextlib.ExitStack() as locks, catching_signals() as interruption:
        job = begin(intent, locks, report)._replace(measure=measure)
        with accounting([job], [intent.record]) as accounts:
            accounts.close(0, launch(job, report, lambda: interruption.requested))
    return intent.run, or_raise(intent.run, accounts.records[0], job.replaces is not None)


@dataclass(frozen=True)
class Intent:
    """A run that has been checked and has not begun: nothing is written yet.

    Attributes
    ----------
    record
        The record that it will begin with; of a finished run, the existing one.
    training
        All settings, resolved for this machine.
    going_on, replacing
        Whether an existing run is resumed, or may be replaced.
    finished
        Whether it is finished already.
    """

    run: Path
    record: TrainingRecord
    dataset: ScaleDataset
    training: TrainingSettings
    going_on: bool
    replacing: bool
    finished: bool = False


def intended(
    model: ModelSettings,
    dataset: ScaleDataset,
    training: TrainingSettings,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    run: Path | None = None,
) -> Intent:
    """Check all that can be checked before a run begins; arguments and errors are those of :func:`train`."""
    resolved = resolve(model, training)
    run = run or run_directory(out, resolved.model, dataset, resolved)
    for folder in (run.parent, run, (run / STATE_FILE).parent):
        tidy(folder)
    going_on = _may_go_on(run, resume, force)
    settings = resolved.training
    if going_on:
        record = read_training_record(run)
        settings = as_recorded(resolved, record, dataset, run)
        if record.status == "finished":
            return Intent(run, record, dataset, settings, going_on, force, finished=True)
    resolved = replace(resolved, training=on_this_machine(settings))
    record = _new_record(resolved, dataset)
    return Intent(run, record, dataset, resolved.training, going_on, force)


def begin(intent: Intent, locks: contextlib.ExitStack, report: Report) -> Job:
    """Make or take over the run directory, and hold it until the locks are released."""
    run, record = intent.run, intent.record
    if run.exists():
        if not (intent.going_on or intent.replacing):  # it was not there a moment ago
            raise HeldRunError(f"{run}: another process is training here")
        locks.enter_context(alone_in(run))
    usable = intent.going_on and _inspect_state(run, report)
    if intent.going_on:
        write_record(run / RECORD_FILE, record)
        return Job(run, record.model, intent.dataset, intent.training, resume=usable)
    if not run.exists():
        _create(run, run, record, locks)
        return Job(run, record.model, intent.dataset, intent.training, resume=False)
    fresh = locks.enter_context(owned(run))
    _create(fresh, run, record, locks)
    if _is_finished(run):  # it is replaced when the new one is finished, too
        return Job(fresh, record.model, intent.dataset, intent.training, resume=False, replaces=run)
    replace_folder(fresh, run)
    return Job(run, record.model, intent.dataset, intent.training, resume=False)


def _is_finished(run: Path) -> bool:
    try:
        return read_training_record(run).status == "finished"
    except InputError:  # damaged: it is no loss
        return False


def load_run(run: Path) -> tuple[StagedModel, TrainingRecord]:
    """Return a run's network with its kept weights, in eval mode on the CPU, and its record; it need not be finished.

    Raises
    ------
    InputError
        When the directory, its record or its weights are missing or damaged, or the weights are those of
        another model than the record's.
    """
    record = read_training_record(run)
    if record.status == "finished" and not (run / WEIGHTS_FILE).exists():
        raise InputError(
            f"{run}: its record stands here without the weights ({WEIGHTS_FILE}); take the folder in which it was "
            f"trained, or repeat it: secli train --config {run / CONFIG_FILE}"
        )
    network = build(record.model.name, record.model.options)
    load_weights(run / WEIGHTS_FILE, network, record.model)
    return network.eval(), record


def _may_go_on(run: Path, resume: bool, force: bool) -> bool:
    """Return whether an existing run is resumed; refuse one that may neither be resumed nor replaced."""
    if resume and force:
        raise InputError("--resume and --force exclude each other: go on with the run, or replace it")
    if not run.exists():
        return False
    if not (resume or force):
        raise InputError(f"{run}: a run exists here already; add --resume to go on, or --force to replace it")
    if not (run / RECORD_FILE).is_file():
        raise InputError(f"{run}: not a run directory (no {RECORD_FILE}); move it away or give another --out")
    return resume


def _new_record(resolved: Resolved, dataset: ScaleDataset) -> TrainingRecord:
    """Return the record of a run that is about to start, after checking that model and data fit."""
    network = build_for(dataset, resolved)
    training = resolved.training
    return TrainingRecord(
        status="running",
        model=model_info(resolved, network),
        data=dataset.info(),
        training=training.model_dump(mode="json"),
        provenance=gather(device_name(training.device), training.threads),
    )


class Accounts:
    """The records of runs that are being trained; each is closed when its outcome is known."""

    def __init__(self, jobs: Sequence[Job], records: Sequence[TrainingRecord]) -> None:
        self.jobs, self.records = jobs, list(records)

    def close(self, which: int, outcome: Outcome) -> None:
        """Record how a run ended."""
        changes = {"status": outcome.status, "reason": outcome.reason, "results": outcome.results}
        self.records[which] = self.records[which].model_copy(update=changes)
        job = self.jobs[which]
        write_record(job.run / RECORD_FILE, self.records[which])
        if job.replaces is not None and outcome.status == "finished":
            replace_folder(job.run, job.replaces)

    def close_rest(self, status: Literal["failed", "interrupted"], reason: Note) -> None:
        """Record the end of those that are still running, as far as the disk allows."""
        for which in range(len(self.jobs)):  # others have not begun
            if self.records[which].status == "running":
                with contextlib.suppress(OSError):
                    self.close(which, Outcome(status, reason, None))


@contextlib.contextmanager
def accounting(jobs: Sequence[Job], records: Sequence[TrainingRecord]) -> Iterator[Accounts]:
    """Yield the accounts of runs; an error is recorded in all that are open, and an OSError becomes a SecliError."""
    accounts = Accounts(jobs, records)
    try:
        yield accounts
    except KeyboardInterrupt:
        accounts.close_rest("interrupted", Note.of("second-signal"))
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        accounts.close_rest("failed", Note.of("failed", error=reason))
        if isinstance(error, OSError) and jobs:
            hint = "what was saved before is kept: add --resume to go on"
            if jobs[0].replaces is not None:
                hint = "the run that it was to replace is kept"
            where = "" if isinstance(error, FullError) else f"{jobs[0].home}: "  # it names the file
            raise SecliError(f"{where}the run stopped: {reason}; {hint}") from None
        raise


def or_raise(run: Path, record: TrainingRecord, replacing: bool = False) -> TrainingRecord:
    """Return the record of a finished run; raise the error of another, which may have been to replace one."""
    kept = "; the run that it was to replace is kept" if replacing else ""
    if record.status == "interrupted":
        hint = kept or "; the state is saved: repeat the command with --resume to go on"
        raise InterruptedRunError(f"{run}: {record.reason}{hint}")
    if record.status == "failed":
        raise SecliError(f"{run}: {record.reason}; a lower --lr may help{kept}")
    return record


def _inspect_state(run: Path, report: Report) -> bool:
    """Return whether the saved state can be used; remark when it cannot, or may not repeat bit for bit."""
    if load_state(run / STATE_FILE) is None:
        report(Remark(f"{run}: no usable state; starting over"))
        return False
    before = read_training_record(run).provenance.libraries.get("torch")
    now = library_versions().get("torch")
    if before != now:
        report(
            Remark(
                f"{run}: begun with torch {before}, going on with {now}; weights may differ in the last bits"
            )
        )
    return True


def _create(folder: Path, run: Path, record: TrainingRecord, locks: contextlib.ExitStack) -> None:
    """Make a run directory, whole from the start, and hold it."""
    try:
        with atomic_directory(folder) as temporary:
            write_text(temporary / CONFIG_FILE, config_text(record))
            write_record(temporary / RECORD_FILE, record)
            locks.enter_context(alone_in(temporary, run))
    except (InputError, OSError):
        if folder == run and run.exists():  # another process was quicker
            raise HeldRunError(f"{run}: another process is training here") from None
        raise


@contextlib.contextmanager
def alone_in(run: Path, known_as: Path | None = None) -> Iterator[None]:
    """Hold a run directory, so that no second process trains in it; the system releases it when this one dies.

    HeldRunError, when another process holds it, names it, or its later path ``known_as``.
    """
    try:
        descriptor = hold(run, wait=False)
    except BlockingIOError:
        raise HeldRunError(f"{known_as or run}: another process is training here") from None
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
