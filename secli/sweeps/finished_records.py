"""Records of runs that were finished elsewhere: found and verified, they count as done, without their weights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from secli.errors import InputError
from secli.records.identity import measured_like
from secli.records.kept import KeptRun, keep, read_kept
from secli.records.schema import read_training_record
from secli.sweeps.jobs import SweepJob, difference, forget_failure
from secli.sweeps.plan import PlannedRun, run_folder

Tell = Callable[[str], None]
"""Called with one line on a record that does not count."""


def check_places(places: Sequence[Path]) -> None:
    """Refuse a directory of records that is not there.

    Raises
    ------
    InputError
        Naming ``--results``.
    """
    for place in places:
        if not place.is_dir():
            raise InputError(f"--results {place}: no such directory")


def finished_record(job: SweepJob, places: Sequence[Path], tell: Tell = lambda line: None) -> Path | None:
    """Return where the record of a job's finished run is kept, which was trained and measured as the job asks.

    A record counts only if it is whole and its files agree (see :func:`secli.records.kept.read_kept`); one that does
    not costs itself alone.
    """
    for folder in _folders(places, f"{job.run.parent.name}/{job.run.name}"):
        try:
            wrong = _wrong(job, read_kept(folder))
        except InputError as error:
            wrong = str(error).removeprefix(f"{folder}: ")
        if wrong is None:
            return folder
        tell(f"{folder}: does not count as done: {wrong}")
    return None


def _folders(places: Sequence[Path], pattern: str) -> Iterator[Path]:
    """Yield where records of runs may lie: in a sweep's directory, or in one that holds several of these."""
    for place in places:
        found = (*sorted(place.glob(pattern)), *sorted(place.glob(f"*/{pattern}")))
        yield from (folder for folder in found if folder.is_dir())


def _wrong(job: SweepJob, kept: KeptRun) -> str | None:
    """Say why a record is not the job's; None where it is."""
    differs = difference(job, kept.record)
    if differs is not None:
        return differs.removeprefix(f"{job.run}: ")
    if job.data_digest not in (None, kept.record.data.digest):
        return "trained on other data"
    if job.measure is None:
        return None
    if kept.curves is None or not measured_like(kept.curves, job.measure, job.measured_digest):
        return "not measured as this sweep asks"
    return None


def kept_digest(run: PlannedRun, places: Sequence[Path]) -> str | None:
    """Return the digest of a run's data as a kept record says it, where the data are not at hand.

    The record's folder carries the run's key, a hash over settings and digest, so that no other digest fits it.
    """
    name = f"{run.data.name}-r{run.data.realisation}-s{run.seed}-*"
    for folder in _folders(places, f"{run.model.name}/{name}"):
        with contextlib.suppress(InputError):
            digest = read_training_record(folder).data.digest
            if run_folder(run, digest).name == folder.name:
                return digest
    return None


def take_finished(jobs: Sequence[SweepJob], places: Sequence[Path], tell: Tell) -> int:
    """Copy the records of finished runs into the sweep's directory where no run stands; return how many.

    There they are what finished runs are: not made again, and in the tables.
    """
    taken = 0
    for job in jobs:
        if os.path.lexists(job.run):
            continue
        folder = finished_record(job, places, tell)
        if folder is None:
            continue
        with contextlib.suppress(InputError):  # another process was quicker
            keep(folder, job.run)
            forget_failure(job)
            taken += 1
    return taken
