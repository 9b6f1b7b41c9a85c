"""The datasets of a sweep: made or verified once, before its first run, and where each of them lies."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from secli.datasets.build import make_dataset
from secli.datasets.manifest import read_manifest
from secli.datasets.protocols import DATASETS
from secli.datasets.store import ScaleDataset, open_dataset
from secli.errors import InputError
from secli.sources.registry import SOURCES
from secli.storage.disk_space import check_writable
from secli.sweeps.finished_records import finished_record, kept_digest
from secli.sweeps.jobs import JobState, SweepJob, standing
from secli.sweeps.plan import DatasetRequest, PlannedRun, Shape, ShapeOf, known_shape, run_folder
from secli.sweeps.scheduler import data_before


@dataclass(frozen=True)
class Sources:
    """Where the pictures of a sweep come from.

    Attributes
    ----------
    out
        Directory in which datasets are made.
    source
        Directory with raw pictures; none: the cache, then a download.
    offline
        Never download.
    stand_ins
        Protocol name to a directory of realisations (``r0``, ``r1``, …) that stands in for it.
    """

    out: Path
    source: Path | None = None
    offline: bool = False
    stand_ins: Mapping[str, Path] | None = None

    def shape_of(self) -> ShapeOf:
        """Return what gives the shapes of datasets that need not be there yet; that of a stand-in is its own."""
        return lambda data: None if data.name in (self.stand_ins or {}) else known_shape(data)


Progress = Callable[[str, int, int], None]
"""Called with (dataset, images done, images in all)."""


def requested_datasets(runs: Sequence[PlannedRun]) -> list[DatasetRequest]:
    """Return every realisation that the runs need, for training or for measuring, each once."""
    requested = [run.data for run in runs] + [run.measure.on for run in runs if run.measure is not None]
    return list(dict.fromkeys(requested))


def prepare(
    requested: Sequence[DatasetRequest],
    sources: Sources,
    on_progress: Progress = lambda name, done, total: None,
) -> dict[DatasetRequest, ScaleDataset]:
    """Make the datasets that are not there, verify those that are.

    Raises
    ------
    InputError
        When a source or a stand-in is missing or damaged.
    SecliError
        When a download fails.
    """
    ready: dict[DatasetRequest, ScaleDataset] = {}
    for alike in _by_protocol(requested):
        first = alike[0]
        stand_in = (sources.stand_ins or {}).get(first.name)
        if stand_in is not None:
            ready |= {each: open_dataset(_checked_path(stand_in, each)) for each in alike}
            continue
        made = make_dataset(
            first.name,
            sources.out,
            [each.realisation for each in alike],
            source=sources.source,
            offline=sources.offline,
            factors=first.factors,
            sizes=first.sizes,
            image_size=first.image_size,
            on_progress=lambda done, total, name=first.name: on_progress(name, done, total),  # type: ignore[misc]
        )
        ready |= {each: open_dataset(result.path) for each, result in zip(alike, made, strict=True)}
    return ready


def check_sources(
    requested: Sequence[DatasetRequest], sources: Sources, path: Path, *, writes: bool = True
) -> None:
    """Refuse what can be seen to be wrong before anything is made, in ``path`` or among the datasets.

    Raises
    ------
    InputError
        When a stand-in is missing or stands in for nothing, or a directory is missing or cannot be written.
    """
    names = {each.name for each in requested}
    for name in sources.stand_ins or {}:
        if name not in names:
            raise InputError(f"--stand-in {name}: the sweep takes no {name}, only {', '.join(sorted(names))}")
    for each in requested:
        stand_in = (sources.stand_ins or {}).get(each.name)
        if stand_in is not None:
            _checked_path(stand_in, each)
    if sources.source is not None and not sources.source.is_dir():
        raise InputError(f"--source {sources.source}: no such directory")
    if writes:
        check_writable(sources.out)
        check_writable(path)


def present(requested: Sequence[DatasetRequest], sources: Sources) -> list[DatasetRequest]:
    """Return the datasets that stand already, so that naming them costs no more than verifying them."""
    paths = ((each, _dataset_path(each, sources)) for each in requested)
    return [each for each, path in paths if path is not None and path.is_dir()]


def _dataset_path(requested: DatasetRequest, sources: Sources) -> Path | None:
    """Return where a dataset lies, or will lie; None where its name depends on the pictures."""
    stand_in, spec = (sources.stand_ins or {}).get(requested.name), DATASETS[requested.name]
    if stand_in is not None:
        return stand_in / f"r{requested.realisation}"
    if not SOURCES[spec.source].published:
        return None
    folder = spec.folder(spec.parameters(requested.factors, requested.sizes, requested.image_size))
    return sources.out / folder / f"r{requested.realisation}"


def shape_in(dataset: ScaleDataset) -> Shape:
    """Return the shape of a dataset that is there."""
    return Shape(dataset.channels, *dataset.image_size, len(dataset.classes))


def _by_protocol(requested: Sequence[DatasetRequest]) -> list[list[DatasetRequest]]:
    """Group what differs in the realisation only: their source is then read once."""
    groups: dict[tuple[object, ...], list[DatasetRequest]] = {}
    for each in requested:
        groups.setdefault((each.name, each.sizes, each.factors, each.image_size), []).append(each)
    return list(groups.values())


def _checked_path(directory: Path, requested: DatasetRequest) -> Path:
    path = directory / f"r{requested.realisation}"
    if not path.is_dir():
        raise InputError(
            f"{path}: no such dataset directory; it shall stand in for realisation {requested.realisation} "
            f"of {requested.name}"
        )
    return path


def jobs_of(
    runs: Sequence[PlannedRun], ready: Mapping[DatasetRequest, ScaleDataset], out: Path
) -> list[SweepJob]:
    """Return the jobs of the runs, each once; two blocks of a sweep may share a run, and one of them measure it."""
    jobs: dict[str, SweepJob] = {}
    for run in runs:
        data = ready[run.data]
        key = run.key(data.digest)
        job = jobs.get(key) or _job(run, data.digest, data.path, out)
        if run.measure is not None:
            on = ready[run.measure.on]
            measured = {"measure": run.measure.settings, "measured_on": on.path, "measured_digest": on.digest}
            job = job.model_copy(update=measured)
        jobs[key] = job
    return list(jobs.values())


def _job(run: PlannedRun, digest: str, data: Path, out: Path) -> SweepJob:
    return SweepJob(
        key=run.key(digest),
        title=run.title,
        run=out / run_folder(run, digest),
        model=run.model,
        training=run.resolved.training,
        data=data,
        data_digest=digest,
    )


def so_far(
    runs: Sequence[PlannedRun], sources: Sources, out: Path, places: Sequence[Path] = ()
) -> list[JobState]:
    """Return how far each run has come, as far as that shows without its images being made or verified.

    Parameters
    ----------
    places : sequence of Path
        Directories of finished records that count as done.

    Raises
    ------
    InputError
        When a record there is damaged.
    """
    states = []
    for run, before in zip(runs, data_before(out, runs), strict=True):
        digest = before.digest if before is not None else _digest_of(run.data, sources)
        if digest is None:
            digest = kept_digest(run, places)
        if digest is None:
            states.append(JobState(state="todo"))
            continue
        measure = None if run.measure is None else run.measure.settings
        job = _job(run, digest, Path(), out).model_copy(update={"measure": measure})
        kept = not os.path.lexists(job.run) and finished_record(job, places) is not None
        states.append(JobState(state="done") if kept else standing(job))
    return states


def _digest_of(requested: DatasetRequest, sources: Sources) -> str | None:
    """Return the digest of a dataset that stands already, as its manifest says; None where there is none."""
    path = _dataset_path(requested, sources)
    try:
        return None if path is None else read_manifest(path).digest
    except InputError:  # told when it is made or opened
        return None
