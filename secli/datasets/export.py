"""A dataset as a tree of PNG files in class folders, which other code of the field reads."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from secli.datasets.manifest import SPLITS
from secli.datasets.store import ScaleDataset
from secli.errors import InputError
from secli.records import atomic_directory

BLOCK = 500
"""Pictures that a thread writes before it tells."""


def export_path(directory: Path, name: str, realisation: int) -> Path:
    """Return where a realisation's tree stands, or raise when something stands there already.

    Raises
    ------
    InputError
        When the path exists.
    """
    path = directory / name / f"r{realisation}"
    if os.path.lexists(path):
        raise InputError(
            f"--export-png {directory}: {path} already exists; remove it, or choose another directory"
        )
    return path


def class_folders(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folder names of the classes, in whose alphabetical order the labels are kept.

    A slash becomes a dash. Where the names' order is not that of the labels, each name gets its label in
    front, because readers of such trees number the classes alphabetically.

    Examples
    --------
    >>> class_folders(("cat", "dog"))
    ('cat', 'dog')
    >>> class_folders(("T-shirt/top", "Bag"))
    ('0-T-shirt-top', '1-Bag')
    """
    names = tuple(name.replace("/", "-").replace("\\", "-") for name in classes)
    if list(names) == sorted(set(names)):
        return names
    digits = len(str(len(names) - 1))
    return tuple(f"{label:0{digits}d}-{name}" for label, name in enumerate(names))


def export_png(
    dataset: ScaleDataset, directory: Path, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write ``DIR/<dataset>/r<k>/{train,val,test}/<class>/<index>.png``, all of it or nothing.

    The index is the image's place in its split; a split without images gets no folder.

    Parameters
    ----------
    dataset : ScaleDataset
        What to write.
    directory : Path
        DIR.
    on_progress : callable, optional
        Called with (images written, images in all).

    Raises
    ------
    InputError
        When the tree exists already.
    """
    path = export_path(directory, dataset.name, dataset.realisation)
    folders = class_folders(dataset.classes)
    total, done = sum(dataset.manifest.sizes.values()), 0
    with atomic_directory(path) as temporary:
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
            for done in _write_all(files, split.images, before):
                if on_progress is not None:
                    on_progress(done, total)
    return path


def png(image: UInt8[np.ndarray, "h w *c"]) -> bytes:
    """Return a picture, grey or RGB, as a PNG file that is compressed for speed."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _write_all(files: Sequence[str], images: np.ndarray, done: int) -> Iterator[int]:
    """Write pictures in as many threads as cores, which wait for the system most of the time; yield how many stand."""
    stop = threading.Event()

    def write(rows: range) -> int:
        for row in rows:
            if stop.is_set():
                break
            _write(files[row], png(images[row]))
        return len(rows)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        waiting = {
            pool.submit(write, range(start, min(start + BLOCK, len(files))))
            for start in range(0, len(files), BLOCK)
        }
        try:
            while waiting:
                # a short wait, so that Ctrl-C is heard
                finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    done += future.result()
                    yield done
        finally:  # no thread writes on while the unfinished tree is removed
            stop.set()
            for future in waiting:
                future.cancel()


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
