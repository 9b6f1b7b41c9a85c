"""Training several replicas of one model: each with its own run directory, at once or one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Sequence
from pathlib import Path

import torch
from torch import nn

from secli.config import ModelSettings, TrainingSettings
from secli.datasets.store import ScaleDataset
from secli.errors import InputError, InterruptedRunError, SecliError
from secli.models.building import build
from secli.records.notes import Note
from secli.records.schema import TrainingRecord
from secli.training.checkpoint import STATE_FILE, load_state
from secli.training.determinism import reproducible
from secli.training.devices import make_fabric
from secli.training.events import Remark
from secli.training.fit import Job, Outcome
from secli.training.interruption import Interruption, catching_signals
from secli.training.launch import launch
from secli.training.replicas.fit import ReplicaReport, StackedFit
from secli.training.replicas.stack import without_advice
from secli.training.replicas.stackable import cannot_stack, not_at_once
from secli.training.run import Accounts, Intent, accounting, begin, intended

NOT_BEGUN = Note.of("not-begun")


def train_replicas(
    model: ModelSettings,
    datasets: Sequence[ScaleDataset],
    trainings: Sequence[TrainingSettings],
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    at_once: bool | None = None,
    on_event: ReplicaReport | None = None,
) -> list[tuple[Path, TrainingRecord]]:
    """Train several replicas of a model in this process, each like ``secli.training.run.train``.

    Parameters
    ----------
    model, out
        As for ``train``; the run directories have the names and the content of single runs.
    datasets : sequence of ScaleDataset
        One per replica (the same one may occur several times), with equal numbers of images of one shape.
    trainings : sequence of TrainingSettings
        One per replica; only their seeds may differ.
    resume : bool
        Resume the existing runs: finished ones are left as they are, missing ones are started. Those at one epoch and
        step continue together.
    force : bool
        Replace the existing runs.
    at_once : bool, optional
        True: with stacked parameters, all replicas in each step. False: one after the other, to the very bytes of
        single runs. None: at once on a CUDA device, which small networks leave idle; one after the other on others.
    on_event : callable, optional
        Receives a run directory and its events; a remark on all of them comes with the first one's.

    Returns
    -------
    list of (Path, TrainingRecord)
        In the order of the arguments. A replica whose loss was not finite has ``status: failed``; the others continue.

    Raises
    ------
    InputError
        When something does not fit, or a run exists already: before anything is written. When another process
        holds one of the runs: those that had begun then end as failed, and can be resumed.
    InterruptedRunError
        When a signal stopped the runs; their states are saved, and each can be resumed by itself or with the others.
    SecliError
        When all had to end (the disk is full, memory is short), with the reason in their records.

    Notes
    -----
    At once, each replica has its own images in its own order, its own augmentation and dropout, and its batch norms
    their own statistics; results agree with those of single runs to rounding. Models whose results differ under
    ``torch.vmap``, which is tested in float64 before the first step, and settings that it excludes, are trained one
    after the other, with a remark.
    """
    report = on_event or (lambda run, event: None)
    intents = _intended(model, datasets, trainings, out, resume, force)
    for intent in intents:
        if intent.finished:
            report(intent.run, Remark(f"{intent.run}: finished already, nothing to do"))
    open_ones = [intent for intent in intents if not intent.finished]
    records = {intent.run: intent.record for intent in intents}
    jobs: list[Job] = []
    if open_ones:
        accounts = accounting(jobs, [intent.record for intent in open_ones])
        with contextlib.ExitStack() as locks, accounts as kept:
            for intent in open_ones:
                jobs.append(_begin(intent, locks, report))
            _carry_out(jobs, kept, at_once, report)
        records |= {job.home: record for job, record in zip(jobs, kept.records, strict=True)}
    _raise_if_interrupted(records, replacing=any(job.replaces is not None for job in jobs))
    return [(intent.run, records[intent.run]) for intent in intents]


# ---- before anything starts


def _intended(
    model: ModelSettings,
    datasets: Sequence[ScaleDataset],
    trainings: Sequence[TrainingSettings],
    out: Path,
    resume: bool,
    force: bool,
) -> list[Intent]:
    """Check every replica, and that all fit together."""
    if len(datasets) != len(trainings) or not datasets:
        raise ValueError(f"{len(datasets)} datasets, but {len(trainings)} settings")
    if any(training.devices > 1 for training in trainings):
        raise InputError("--replicas: works on one device; leave out --devices")
    if len({_apart_from_seed(training) for training in trainings}) > 1:
        raise ValueError("the settings of replicas may differ in their seeds alone")
    for dataset in datasets[1:]:
        _check_alike(datasets[0], dataset)
    pairs = zip(datasets, trainings, strict=True)
    intents = [intended(model, *pair, out, resume=resume, force=force) for pair in pairs]
    twice = [
        intent.run for i, intent in enumerate(intents) if intent.run in {each.run for each in intents[:i]}
    ]
    if twice:
        raise InputError(f"--replicas: {twice[0]} would be trained twice; give each --data once")
    return intents


def _apart_from_seed(training: TrainingSettings) -> str:
    return training.model_dump_json(exclude={"seed"})


def _check_alike(first: ScaleDataset, other: ScaleDataset) -> None:
    """Refuse datasets that cannot be trained on step by step together."""
    pairs = [
        (f"{split} images", first.manifest.sizes[split], other.manifest.sizes[split])
        for split in first.manifest.sizes
    ]
    pairs.append(("channels", first.channels, other.channels))
    pairs.append(("pixels a side", first.image_size[0], other.image_size[0]))
    pairs.append(("pixels a row", first.image_size[1], other.image_size[1]))
    for what, one, two in pairs:
        if one != two:
            raise InputError(
                f"--replicas: {other.path} has {two} {what}, but {first.path} has {one}; train them in single runs"
            )


def _begin(intent: Intent, locks: contextlib.ExitStack, report: ReplicaReport) -> Job:
    return begin(intent, locks, lambda event: report(intent.run, event))


def _raise_if_interrupted(records: dict[Path, TrainingRecord], replacing: bool) -> None:
    stopped = [(run, record) for run, record in records.items() if record.status == "interrupted"]
    if stopped:
        run, record = stopped[0]
        others = f" and {len(stopped) - 1} more" if len(stopped) > 1 else ""
        again = "the states are saved: repeat the command with --resume to go on"
        if replacing:
            again = "the runs that were to be replaced are kept"
        raise InterruptedRunError(f"{run}{others}: {record.reason}; {again}")


# ---- the work


def _carry_out(jobs: Sequence[Job], accounts: Accounts, at_once: bool | None, report: ReplicaReport) -> None:
    """Train the jobs, those at one epoch and step together; close the account of each."""
    with catching_signals() as interruption, without_advice():
        stopped = False
        for group in _groups(jobs, at_once, report):
            if stopped or interruption.requested:
                outcomes = [Outcome("interrupted", NOT_BEGUN, None)] * len(group)
            elif len(group) == 1:
                outcomes = [_alone(jobs[group[0]], report, interruption)]
            else:
                outcomes = _together([jobs[which] for which in group], report, interruption)
            for which, outcome in zip(group, outcomes, strict=True):
                accounts.close(which, outcome)
            stopped = stopped or outcomes[0].status == "interrupted"


def _alone(job: Job, report: ReplicaReport, interruption: Interruption) -> Outcome:
    return launch(job, lambda event: report(job.home, event), lambda: interruption.requested)


def _together(jobs: Sequence[Job], report: ReplicaReport, interruption: Interruption) -> list[Outcome]:
    try:
        with reproducible(jobs[0].training):
            fabric = make_fabric(jobs[0].training)
            fabric.launch()
            networks = [_network(job) for job in jobs]
            return StackedFit(fabric, jobs, networks, report, lambda: interruption.requested).run()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise SecliError(
                f"out of memory on {jobs[0].training.device} with {len(jobs)} replicas at once and batches of "
                f"{jobs[0].training.batch}; give fewer --replicas, or --no-at-once"
            ) from None
        raise


def _groups(jobs: Sequence[Job], at_once: bool | None, report: ReplicaReport) -> list[list[int]]:
    """Return which jobs are trained at once: those at one epoch and step, if they can be at all."""
    singly = [[which] for which in range(len(jobs))]
    device = torch.device(jobs[0].training.device)
    if at_once is None:
        at_once = device.type == "cuda"
    if not at_once or len(jobs) == 1:
        return singly
    reason = not_at_once(jobs[0].training)
    if reason is None:
        dataset = jobs[0].dataset
        shape = (dataset.channels, *dataset.image_size)
        with reproducible(jobs[0].training, strict=False):
            reason = cannot_stack([_network(job) for job in jobs[:2]], shape, device)
    if reason is not None:
        report(jobs[0].home, Remark(f"the replicas are trained one after the other: {reason}"))
        return singly
    alike: dict[Hashable, list[int]] = {}
    for which, job in enumerate(jobs):
        alike.setdefault((_progress(job), _apart_from_seed(job.training)), []).append(which)
    return list(alike.values())


def _progress(job: Job) -> tuple[int, int] | None:
    """Return the next epoch and how many of its steps are done; None for a run to be started."""
    state = load_state(job.run / STATE_FILE) if job.resume else None
    return None if state is None else (state["epoch"], state["step"])


def _network(job: Job) -> nn.Module:
    return build(job.model.name, job.model.options, seed=job.training.seed)
