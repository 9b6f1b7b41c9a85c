"""A dataset as a tree of PNG files in class folders, the layout that other code of the field reads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from secli.datasets.manifest import SPLITS
from secli.datasets.store import ScaleDataset
from secli.datasets.workers import Batch, InProcess, Workers, workers
from secli.errors import InputError
from secli.storage.writing import atomic_directory

BLOCK = 500
"""Pictures that are encoded, and reported, at once."""
AHEAD = 8
"""Blocks that are encoded ahead of the one that is written."""
WORTH_A_PROCESS = 5_000
"""Pictures from which on it pays to start a process for them."""


def export_path(directory: Path, name: str, realisation: int) -> Path:
    """Return the path of a realisation's tree; InputError when it exists already."""
    path = directory / name / f"r{realisation}"
    if os.path.lexists(path):
        raise InputError(
            f"--export-png {directory}: {path} already exists; remove it, or choose another directory"
        )
    return path


def class_folder_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folder names of the classes, in whose alphabetical order the labels are kept.

    A slash becomes a dash. Where the names' order is not that of the labels, each name begins with its label, because
    readers of such trees number the classes alphabetically.

    Examples
    --------
    >>> class_folder_names(("cat", "dog"))
    ('cat', 'dog')
    >>> class_folder_names(("T-shirt/top", "Bag"))
    ('0-T-shirt-top', '1-Bag')
    """
    names = tuple(name.replace("/", "-").replace("\\", "-") for name in classes)
    if list(names) == sorted(set(names)):
        return names
    digits = len(str(len(names) - 1))
    return tuple(f"{label:0{digits}d}-{name}" for label, name in enumerate(names))


def export_png(
    dataset: ScaleDataset,
    directory: Path,
    on_progress: Callable[[int, int], None] | None = None,
    jobs: int | None = None,
) -> Path:
    """Write ``DIR/<dataset>/r<k>/{train,val,test}/<class>/<index>.png``, all of it or nothing.

    The index is the image's in its split; a split without images gets no folder.

    Parameters
    ----------
    directory : Path
        DIR.
    on_progress : callable, optional
        Called with (images written, images in all).
    jobs : int, optional
        Processes that encode; default: as many as there are cores, fewer for few pictures.

    Raises
    ------
    InputError
        When the tree exists already.
    """
    path = export_path(directory, dataset.name, dataset.realisation)
    folders = class_folder_names(dataset.classes)
    total, done = sum(dataset.manifest.sizes.values()), 0
    if jobs is None:
        jobs = min(os.cpu_count() or 1, total // WORTH_A_PROCESS)
    with atomic_directory(path) as temporary, workers(jobs) as pool:
        for name in SPLITS:
            split = dataset.split(name)
            if not len(split):
                continue
            for folder in folders:
                (temporary / name / folder).mkdir(parents=True)
            digits = len(str(len(split) - 1))
            files = [
                f"{temporary / name / folders[label]}/{index:0{digits}d}.png"
                for index, label in enumerate(split.labels.tolist())
            ]
            before = done
            for done in _write_all(files, split.images, pool, before):
                if on_progress is not None:
                    on_progress(done, total)
    return path


def _write_all(
    files: Sequence[str], images: np.ndarray, pool: Workers | InProcess, done: int
) -> Iterator[int]:
    """Write pictures, which workers encode meanwhile; yield how many are written."""
    blocks = [slice(start, start + BLOCK) for start in range(0, len(files), BLOCK)]
    waiting: deque[tuple[slice, Batch[list[bytes]]]] = deque()
    for block in [*blocks, *[None] * AHEAD]:
        if block is not None:
            waiting.append((block, pool.png(images[block])))
        if waiting and (block is None or len(waiting) > AHEAD):
            written, batch = waiting.popleft()
            for file, content in zip(files[written], batch.result(), strict=True):
                _write(file, content)
                done += 1
            yield done


def _write(file: str, content: bytes) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(handle, left) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, file) from None
    finally:
        os.close(handle)
