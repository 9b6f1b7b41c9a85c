"""Telling trackers later: of a run that was carried out on another machine, or whose process was killed."""

from __future__ import annotations

import json
from collections.abc import Iterable

from secli.errors import InputError, one_line
from secli.records.epochs import KEY, METRICS_FILE
from secli.records.schema import read_training_record
from secli.sweeps.jobs import SweepJob
from secli.trackers.forward import following
from secli.training.events import Begun, EpochEnded, Remark, Report


def replay(job: SweepJob, report: Report) -> None:
    """Tell a finished job's trackers what they would have been told here: epochs, results, curves.

    Parameters
    ----------
    job : SweepJob
        The job; its run directory is home.
    report : callable
        Receives a remark when a tracker fails, or the run's files cannot be read; the run is finished all the same.
    """
    if not job.trackers:
        return
    try:
        record = read_training_record(job.run)
        lines = (job.run / METRICS_FILE).read_text(encoding="utf-8").splitlines()
        epochs = [json.loads(line) for line in lines]
    except (OSError, ValueError, InputError) as problem:
        reason = one_line(problem)
        report(Remark(f"--track {', '.join(job.trackers)}: {job.run} is left out: {reason}"))
        return
    with following(job.trackers, job.tracked_in, report, strict=False) as follower:
        follower.on_event(Begun(job.run, 1, 0, len(epochs), 1, record.provenance.device))
        lowest = float("inf")
        for row in epochs:
            error = row["val_error"]
            best = error is None or error < lowest
            lowest = error if best and error is not None else lowest
            follower.on_event(EpochEnded(**{key: row[key] for key in row if key != KEY}, best=best))
        follower.finish(job.run)


def settle(finished: Iterable[SweepJob], failed: Iterable[SweepJob], report: Report) -> None:
    """Tell the end of jobs to the trackers that followed them and do not know it: a process was killed before that.

    Parameters
    ----------
    finished, failed : iterable of SweepJob
        Jobs that are over.
    report : callable
        Receives a remark when a tracker fails.
    """
    over = [*((job, False) for job in finished), *((job, True) for job in failed)]
    kinds = dict.fromkeys((job.trackers, job.tracked_in) for job, _ in over if job.trackers)
    for kind in kinds:
        with following(*kind, report, strict=False) as follower:
            for job, has_failed in over:
                if (job.trackers, job.tracked_in) == kind:
                    follower.settle(job.run, has_failed)
