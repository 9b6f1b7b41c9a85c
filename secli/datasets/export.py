"""A dataset as a tree of PNG files in class folders, which other code of the field reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from secli.datasets.manifest import SPLITS
from secli.datasets.store import ScaleDataset
from secli.errors import InputError
from secli.records import atomic_directory


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
            for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
                file = temporary / name / folders[label] / f"{index:0{digits}d}.png"
                Image.fromarray(image).save(file, compress_level=1)
                done += 1
                if on_progress is not None and (done % 500 == 0 or done == total):
                    on_progress(done, total)
    return path
