"""What a directory of pictures holds: classes or splits of classes, and the files of each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from secli.errors import InputError
from secli.sources.contract import PartName

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
)
SPLIT_NAMES: dict[str, PartName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Names of the splits, in lower case; case makes no difference."""
# left behind by macOS, Windows, Synology and file systems; what begins with a dot is left out anyway
_CLUTTER = frozenset(
    (
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
    )
)


@dataclass(frozen=True)
class FolderLayout:
    """How a directory of pictures is laid out.

    Attributes
    ----------
    splits
        The directories that hold class folders: one per split, or the directory itself as ``all``.
    classes
        Class names of all splits together, sorted; empty where the pictures are in the directory itself.
    remarks
        Which links were not followed, one line each.
    """

    splits: dict[PartName, Path]
    classes: tuple[str, ...]
    remarks: tuple[str, ...] = ()


class Listing(NamedTuple):
    """The pictures below a directory, in the order of their paths, and which links were not followed, one line each."""

    files: list[Path]
    remarks: list[str]


def visible(directory: Path) -> list[Path]:
    """Return what a directory holds, sorted, without hidden files and what operating systems leave behind."""
    return sorted(
        path
        for path in directory.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _CLUTTER
    )


def read_layout(directory: Path, option: str) -> FolderLayout:
    """Determine whether a directory holds splits, classes, or pictures; ``option`` named it, for errors.

    It holds splits when every folder in it bears a split's name (``train``, ``val``, ``valid``, ``validation``,
    ``test``) and holds folders itself. Otherwise its folders are classes, and without any that hold pictures its own
    pictures have none. Files that are no pictures (a README, a table of labels) make no difference.

    Raises
    ------
    InputError
        When it can be read in two ways, or a class folder holds no picture; the message names the folder.
    """
    splits = _splits(directory, option)
    if splits is not None:
        names = {folder.name for root in splits.values() for folder in class_folders(root)}
        remarks = [text for root in (directory, *splits.values()) for text in _loops(root)]
        return FolderLayout(splits, tuple(sorted(names)), tuple(remarks))
    filled = {folder: _holds_a_picture(folder) for folder in class_folders(directory)}
    loose = [path for path in visible(directory) if _is_picture(path)]
    with_pictures = [folder for folder, any_picture in filled.items() if any_picture]
    if loose and with_pictures:
        raise InputError(
            f"{option} {directory}: holds pictures ({loose[0].name}) beside folders of pictures "
            f"({with_pictures[0].name}); move them into a class folder, or elsewhere"
        )
    if loose or not with_pictures:
        return FolderLayout({"all": directory}, ())
    for folder, any_picture in filled.items():
        if not any_picture:
            raise no_pictures(folder)
    classes = tuple(folder.name for folder in with_pictures)
    return FolderLayout({"all": directory}, classes, tuple(_loops(directory)))


def class_folders(root: Path) -> list[Path]:
    """Return the class folders of a split, in the order of their names; a link back up is none."""
    return [path for path in visible(root) if path.is_dir() and not _leads_up(path)]


def pictures_below(folder: Path) -> Listing:
    """Return all pictures below a folder; linked folders are followed, each once, and never back up."""
    remarks: list[str] = []
    files = sorted(_walk(folder, {os.path.realpath(folder): folder}, remarks))
    return Listing(files, remarks)


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures directly in a folder."""
    return [path for path in visible(folder) if _is_picture(path)]


def no_pictures(folder: Path) -> InputError:
    """Return the error of a class folder that holds no picture."""
    return InputError(f"{folder}: no pictures in this class folder ({', '.join(sorted(SUFFIXES))})")


def _splits(directory: Path, option: str) -> dict[PartName, Path] | None:
    """Return the split folders of a directory; None where its folders are something else."""
    folders = class_folders(directory)
    named = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    deep = [folder for folder in named if class_folders(folder)]
    others = [folder for folder in folders if folder not in deep]
    others += [path for path in visible(directory) if _is_picture(path)]
    if not deep or (others and len(named) < 2):
        return None
    if others:
        raise InputError(
            f"{option} {directory}: {deep[0].name} holds class folders as a split does, but {others[0].name} is no "
            "such split (train, val or test, each with class folders); move it elsewhere, or give one split's directory"
        )
    splits: dict[PartName, Path] = {}
    for folder in deep:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in splits:
            raise InputError(
                f"{option} {directory}: {splits[split].name} and {folder.name} are both the {split} split; "
                "leave one of them"
            )
        splits[split] = folder
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _leads_up(path: Path) -> bool:
    """Return whether a path is a link to the directory that holds it, or to one above."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(os.path.realpath(path))


def _loops(directory: Path) -> list[str]:
    return [_loop(path) for path in visible(directory) if path.is_dir() and _leads_up(path)]


def _loop(path: Path) -> str:
    return f"{path}: links back to {os.path.realpath(path)}, which holds it; not followed"


def _holds_a_picture(folder: Path) -> bool:
    return next(_walk(folder, {os.path.realpath(folder): folder}, []), None) is not None


def _walk(folder: Path, known: dict[str, Path], remarks: list[str]) -> Iterator[Path]:
    """Yield the pictures below a folder; ``known`` maps the real directories read so far to the path that led to them.

    Links come last, so that a folder is read under its own name where it has one here.
    """
    for path in sorted(visible(folder), key=lambda path: (path.is_symlink(), path)):
        if not path.is_dir():
            if _is_picture(path):
                yield path
            continue
        real = os.path.realpath(path)
        if _leads_up(path):
            remarks.append(_loop(path))
        elif real in known:
            remarks.append(f"{path}: the same folder as {known[real]}; its pictures are taken once")
        else:
            known[real] = path
            yield from _walk(path, known, remarks)


def _is_picture(path: Path) -> bool:
    """Judge a path by its name; a link to a missing file counts as a picture, and reading it then fails."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True
