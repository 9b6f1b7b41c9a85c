"""The datasets of a sweep: made or verified once, before its first run, and where each of them lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from secli.datasets.build import make_dataset
from secli.datasets.store import ScaleDataset, open_dataset
from secli.errors import InputError
from secli.experiments.jobs import SweepJob
from secli.experiments.plan import PlannedRun, WantedDataset, run_folder


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


Progress = Callable[[str, int, int], None]
"""Called with (dataset, images done, images in all)."""


def wanted_datasets(runs: Sequence[PlannedRun]) -> list[WantedDataset]:
    """Return every realisation that the runs need, for training or for measuring, each once."""
    wanted = [run.data for run in runs] + [run.measure.on for run in runs if run.measure is not None]
    return list(dict.fromkeys(wanted))


def prepare(
    wanted: Sequence[WantedDataset], sources: Sources, on_progress: Progress = lambda name, done, total: None
) -> dict[WantedDataset, ScaleDataset]:
    """Make the datasets that are not there, verify those that are.

    Raises
    ------
    InputError
        When a source or a stand-in is missing or damaged.
    SecliError
        When a download fails.
    """
    ready: dict[WantedDataset, ScaleDataset] = {}
    for alike in _by_protocol(wanted):
        first = alike[0]
        stand_in = (sources.stand_ins or {}).get(first.name)
        if stand_in is not None:
            ready |= {each: _standing_in(stand_in, each) for each in alike}
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


def _by_protocol(wanted: Sequence[WantedDataset]) -> list[list[WantedDataset]]:
    """Group what differs in the realisation only: their source is then read once."""
    groups: dict[tuple[object, ...], list[WantedDataset]] = {}
    for each in wanted:
        groups.setdefault((each.name, each.sizes, each.factors, each.image_size), []).append(each)
    return list(groups.values())


def _standing_in(directory: Path, wanted: WantedDataset) -> ScaleDataset:
    place = directory / f"r{wanted.realisation}"
    if not place.is_dir():
        raise InputError(
            f"{place}: no such dataset directory; it shall stand in for realisation {wanted.realisation} "
            f"of {wanted.name}"
        )
    return open_dataset(place)


def jobs_of(
    runs: Sequence[PlannedRun], ready: Mapping[WantedDataset, ScaleDataset], out: Path
) -> list[SweepJob]:
    """Return the jobs of the runs, each once; two blocks of a sweep may share a run.

    Raises
    ------
    InputError
        When a network cannot take its images.
    """
    jobs: dict[str, SweepJob] = {}
    for run in runs:
        data = ready[run.data]
        key = run.key(data.digest)
        directory = out / run_folder(run, data.digest)
        measure, on = (
            (None, None) if run.measure is None else (run.measure.settings, ready[run.measure.on].path)
        )
        jobs[key] = SweepJob(
            key=key,
            title=run.title,
            run=directory,
            model=run.model,
            training=run.resolved.training,
            data=data.path,
            measure=measure or (jobs[key].measure if key in jobs else None),
            measured_on=on or (jobs[key].measured_on if key in jobs else None),
        )
    return list(jobs.values())
