"""From a protocol's name to verified dataset directories: read the source, draw, rescale, check, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from secli.datasets.manifest import MAX_REALISATION, SPLITS, SplitName
from secli.datasets.protocols import DATASETS, DatasetSpec, Factors, Parameters, Sizes
from secli.datasets.published_digests import first_difference, is_standard, published_digests
from secli.datasets.splits import SplitPlan, drawn_remarks, plan
from secli.datasets.store import ScaleDataset, Split, open_dataset, write_dataset
from secli.datasets.transforms import TRANSFORMS
from secli.datasets.workers import CHUNK, Batch, InProcess, Workers, workers
from secli.errors import InputError, SecliError
from secli.provenance import library_versions
from secli.sources.contract import RawImages, Request
from secli.sources.registry import SOURCES, read_source
from secli.sources.resizing import resize_all
from secli.storage.disk_space import check_room, check_writable
from secli.storage.leftovers import tidy
from secli.storage.locks import in_turn

MAX_JOBS = 1024
WORTH_A_PROCESS = 8_000  # images: starting a worker takes as long as rescaling about so many

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Result:
    """One realisation on disk.

    Attributes
    ----------
    made
        True when it was made now, False when it existed and was verified.
    remarks
        What the user must know of how the source was read and split, one line each.
    """

    path: Path
    made: bool
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Job:
    """One realisation in work: its plan, and the batches that are being rescaled."""

    realisation: int
    plans: dict[SplitName, SplitPlan]
    batches: dict[SplitName, list[Batch[np.ndarray]]]


def make_dataset(
    name: str,
    out: Path,
    realisations: Sequence[int] = (0,),
    source: Path | None = None,
    offline: bool = False,
    factors: Factors | None = None,
    sizes: Sizes | None = None,
    image_size: int | None = None,
    jobs: int | None = None,
    on_progress: Progress | None = None,
    show_download: bool = False,
    on_wait: Callable[[Path], None] = lambda folder: None,
) -> list[Result]:
    """Make realisations of a dataset, or verify those that exist already.

    Parameters
    ----------
    name : str
        Registry name of the protocol.
    out : Path
        Directory in which ``<dataset>/r<k>/`` are written.
    realisations : sequence of int
        Which realisations r ≥ 0.
    source : Path, optional
        Directory with the raw pictures; none: the cache, then a download.
    offline : bool
        Never download.
    factors, sizes, image_size : optional
        Parameters that differ from the protocol's; they give the dataset a folder of its own.
    jobs : int, optional
        Worker processes; none: one per core, at most as many as there is work for.
    on_progress : callable, optional
        Called with (images done, images in all) from this thread.
    show_download : bool
        Let a download draw its progress on stderr.
    on_wait : callable, optional
        Called with a dataset's folder while another process makes something in it, which is then verified and used.

    Returns
    -------
    list of Result
        In the order of ``realisations``.

    Raises
    ------
    InputError
        On a bad parameter, a missing or damaged source, or an existing directory that does not verify.
    SecliError
        When a download fails, a worker dies, or the images are not the published ones.
    """
    spec = DATASETS[name]
    parameters = spec.parameters(factors, sizes, image_size)
    _check_realisations(realisations)
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: at least one process is needed")
    if jobs is not None and jobs > MAX_JOBS:
        raise InputError(f"--jobs {jobs}: at most {MAX_JOBS} processes are started")
    check_writable(out)
    request = Request(source, offline, parameters.image_size, show_download)
    raw: RawImages | None = None
    digest = None
    if not SOURCES[spec.source].published:
        raw = read_source(spec.source, request)
        digest = "".join(raw.info.digests.values())
    home = out / spec.folder(parameters, digest)
    paths = {realisation: home / f"r{realisation}" for realisation in realisations}
    for folder in (home, *paths.values()):
        tidy(folder)
    verified = _verify(paths, spec, parameters)
    made: set[int] = set()
    if len(verified) < len(paths):
        with in_turn(home, on_wait):
            # what another process has made meanwhile is taken as it is
            missing = {r: path for r, path in paths.items() if not os.path.lexists(path)}
            if missing:
                raw = raw or read_source(spec.source, request)
                if parameters.image_size is not None:
                    raw = replace(raw, images=resize_all(raw.images, parameters.image_size))
                made = _build(spec, parameters, raw, missing, jobs, on_progress)
        _verify({r: path for r, path in paths.items() if r not in verified | made}, spec, parameters)
    remarks = () if raw is None else (*raw.remarks, *drawn_remarks(spec, parameters, raw))
    return [Result(paths[realisation], realisation in made, remarks) for realisation in realisations]


def _verify(paths: dict[int, Path], spec: DatasetSpec, parameters: Parameters) -> set[int]:
    """Check the directories that exist; return their realisations."""
    existing = {realisation for realisation, path in paths.items() if os.path.lexists(path)}
    for realisation in sorted(existing):
        _check_requested(verify_dataset(paths[realisation]), spec, parameters, realisation)
    return existing


def verify_dataset(path: Path) -> ScaleDataset:
    """Open a dataset directory; check every file, and of a standard realisation the published digests too.

    Raises
    ------
    InputError
        When something is missing or damaged; the message names the first such file.
    """
    dataset = open_dataset(path)
    spec = DATASETS.get(dataset.manifest.protocol)
    if spec is None or not is_standard(spec, dataset):
        return dataset
    expected = published_digests(spec, dataset.realisation)
    if expected is None:
        return dataset
    different = first_difference(expected, {name: dataset.split(name) for name in SPLITS})
    if different is not None:
        raise InputError(
            f"{path / f'{different}-images.npy'}: not the published images of {spec.name} "
            f"r{dataset.realisation}; remove {path} and make it again"
        )
    return dataset


def _check_realisations(realisations: Sequence[int]) -> None:
    if not realisations:
        raise InputError("--realisations: at least one is needed")
    for realisation in realisations:
        if not 0 <= realisation <= MAX_REALISATION:
            raise InputError(f"--realisations: {realisation} is not between 0 and {MAX_REALISATION}")
    if len(set(realisations)) < len(realisations):
        raise InputError("--realisations: one of them is given twice")


def _check_requested(
    dataset: ScaleDataset, spec: DatasetSpec, parameters: Parameters, realisation: int
) -> None:
    """Refuse a directory that verifies but holds another dataset than its path names."""
    manifest = dataset.manifest
    same = (manifest.protocol, manifest.realisation) == (spec.name, realisation)
    if not (same and parameters.written_as(manifest.parameters)):
        raise InputError(
            f"{dataset.path}: holds {manifest.name} r{manifest.realisation} with parameters {manifest.parameters}, "
            "not what its path says; move it away"
        )


def _build(
    spec: DatasetSpec,
    parameters: Parameters,
    raw: RawImages,
    paths: dict[int, Path],
    jobs: int | None,
    on_progress: Progress | None,
) -> set[int]:
    """Make the realisations; while one is written the workers are busy with the next. Return those made here."""
    plans = {realisation: plan(spec, parameters, raw, realisation) for realisation in paths}
    _check_room(plans, raw, paths)
    total = sum(len(part.indices) for splits in plans.values() for part in splits.values())
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    if jobs is None:
        jobs = min(os.cpu_count() or 1, total // WORTH_A_PROCESS)
    with workers(jobs if parameters.factors is not None else 1) as pool:
        made: set[int] = set()
        waiting: list[_Job] = []
        for realisation, splits in plans.items():
            waiting.append(_Job(realisation, splits, _rescaled(spec, raw, splits, pool)))
            if len(waiting) > 1:
                job = waiting.pop(0)
                made |= _finish(spec, parameters, raw, job, paths[job.realisation], advance)
        for job in waiting:
            made |= _finish(spec, parameters, raw, job, paths[job.realisation], advance)
    return made


def _check_room(plans: dict[int, dict[SplitName, SplitPlan]], raw: RawImages, paths: dict[int, Path]) -> None:
    """Refuse, before any image is rescaled, what has no room on the disk."""
    image, label_and_factor = (
        raw.images[:1].nbytes,
        np.dtype(np.int64).itemsize + np.dtype(np.float32).itemsize,
    )
    needs = 0
    for realisation, splits in plans.items():
        counts = [len(part.indices) for part in splits.values()]
        needs += sum(counts) * (image + label_and_factor)
        check_room(paths[realisation], needs, max(counts) * image)


def _rescaled(
    spec: DatasetSpec, raw: RawImages, splits: dict[SplitName, SplitPlan], pool: Workers | InProcess
) -> dict[SplitName, list[Batch[np.ndarray]]]:
    """Submit the images of a realisation in batches."""
    if spec.factors is None:
        return {name: [] for name in splits}
    function = TRANSFORMS[spec.transform].function
    batches: dict[SplitName, list[Batch[np.ndarray]]] = {}
    for name, part in splits.items():
        batches[name] = [
            pool.transform(function, raw.images[part.indices[rows]], part.factors[rows])
            for rows in _chunks(len(part.indices))
        ]
    return batches


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def _finish(
    spec: DatasetSpec,
    parameters: Parameters,
    raw: RawImages,
    job: _Job,
    path: Path,
    advance: Callable[[int], None],
) -> set[int]:
    """Collect the images of a realisation, check them against the published digests, and write them.

    Returns the realisation; empty where another process has written it meanwhile, on a file system without locks.
    """
    splits: dict[SplitName, Split] = {}
    for name, part in job.plans.items():
        images = raw.images[part.indices]
        if spec.factors is None:
            advance(len(images))
        for rows, batch in zip(_chunks(len(images)), job.batches[name], strict=False):
            images[rows] = batch.result()
            advance(len(images[rows]))
        splits[name] = Split(images, raw.labels[part.indices], part.factors.astype(np.float32))
    if parameters == spec.standard:
        _check_published(spec, job.realisation, splits)
    height, width = raw.images.shape[1:3]
    description = {
        "name": path.parent.name,
        "protocol": spec.name,
        "realisation": job.realisation,
        "parameters": parameters.as_dict(),
        "scaled": parameters.factors is not None,
        "lossy": raw.lossy,
        "classes": raw.classes,
        "channels": 1 if raw.images.ndim == 3 else raw.images.shape[3],
        "image_size": (height, width),
        "source": raw.info,
        "libraries": library_versions(),
    }
    try:
        write_dataset(path, splits, description)
    except InputError:
        if os.path.lexists(path):
            return set()
        raise
    return {job.realisation}


def _check_published(spec: DatasetSpec, realisation: int, splits: dict[SplitName, Split]) -> None:
    expected = published_digests(spec, realisation)
    if expected is not None and (different := first_difference(expected, splits)) is not None:
        raise SecliError(
            f"{spec.name} r{realisation}: split '{different}' is not the published one; "
            "the installed Pillow or scikit-learn makes other images than those it was published with"
        )
