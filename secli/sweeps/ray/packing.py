"""A directory as bytes, for a machine that does not share a file system with this one."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from secli.errors import InputError
from secli.records.schema import RECORD_FILE
from secli.storage.writing import atomic_directory, scratch_folder, sync_folder, sync_tree


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
            archive.extractall(directory, filter=_as_new_files)
    except tarfile.TarError as error:
        raise InputError(f"{directory}: not a packed directory that can be unpacked ({error})") from None


def _as_new_files(entry: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """Refuse what leads out of the directory; permissions follow the umask, as those of any new file."""
    return tarfile.data_filter(entry, path).replace(mode=None, deep=False)  # type: ignore[arg-type]


def unpack(content: bytes, directory: Path) -> None:
    """Put packed files in place of those of a directory, which is whole at every moment.

    Each file is replaced as a whole, the record last. Of a run that is cut off in between, the record says
    that it is not finished, and its state is the old or the new one: weights and metrics follow from it.

    Raises
    ------
    InputError
        As :func:`extract`; the directory is then untouched.
    """
    if not directory.exists():
        with atomic_directory(directory) as temporary:
            extract(content, temporary)
        return
    with scratch_folder(directory) as incoming:
        extract(content, incoming)
        sync_tree(incoming)
        names = _visible(incoming)
        for name in reversed(names):
            if name == RECORD_FILE:
                _remove_others(directory, names)
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (incoming / name).replace(directory / name)
            sync_folder((directory / name).parent)
        if RECORD_FILE not in names:
            _remove_others(directory, names)


def _remove_others(directory: Path, names: list[str]) -> None:
    for name in set(_visible(directory)) - set(names):
        (directory / name).unlink()
