"""A directory as bytes, for a machine that does not share a file system with this one."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from secli.errors import InputError
from secli.records import RECORD_FILE, atomic_directory


def _visible(directory: Path) -> list[str]:
    """Return the files below a directory, the record first; hidden ones are still being written."""
    files = (file.relative_to(directory) for file in directory.rglob("*") if file.is_file())
    names = [file.as_posix() for file in files if not any(part.startswith(".") for part in file.parts)]
    return sorted(names, key=lambda name: (name != RECORD_FILE, name))


def pack(directory: Path, instead: Mapping[str, bytes] | None = None) -> bytes:
    """Return the files of a directory, hidden ones left out.

    A run may be packed while it is being trained: its record is read first, so that what it says to be finished is
    so in all that is read after it.

    Parameters
    ----------
    directory : Path
        The directory.
    instead : mapping, optional
        Name of a file to what is packed in place of its content.
    """
    replaced = instead or {}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in _visible(directory):
            # opened once: a file that is replaced meanwhile is read whole, the old or the new one
            content = replaced[name] if name in replaced else (directory / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def extract(content: bytes, directory: Path) -> None:
    """Put packed files into a directory.

    Raises
    ------
    InputError
        When the bytes are no packed directory, or a name in them leads out of it; nothing is written outside.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(directory, filter="data")
    except tarfile.TarError as error:
        raise InputError(f"{directory}: not a packed directory that can be unpacked ({error})") from None


def unpack(content: bytes, directory: Path) -> None:
    """Put packed files in place of those of a directory, which is whole at every moment.

    Each file is replaced as a whole, the record last. Of a run that is cut off in between, the record says
    that it is not finished, and its state is the old or the new one: weights and metrics follow from it.

    Raises
    ------
    InputError
        As :func:`extract`; the directory is then untouched.
    """
    incoming = directory.with_name(f".{directory.name}.incoming")
    shutil.rmtree(incoming, ignore_errors=True)  # of a process that was killed here
    try:
        with atomic_directory(incoming) as temporary:
            extract(content, temporary)
            names = _visible(temporary)
            for name in names:
                _sync(temporary / name)
        if not directory.exists():
            incoming.rename(directory)
            return
        for name in reversed(names):
            if name == RECORD_FILE:
                _remove_others(directory, names)
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (incoming / name).replace(directory / name)
        if RECORD_FILE not in names:
            _remove_others(directory, names)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _remove_others(directory: Path, names: list[str]) -> None:
    for name in set(_visible(directory)) - set(names):
        (directory / name).unlink()


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
