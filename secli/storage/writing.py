"""Writing files and folders whole: made under another name, synced, renamed; the old one stays until then."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from secli.errors import InputError
from secli.signals import at_end
from secli.storage.disk_space import existing, naming
from secli.storage.leftovers import move_set, owned, tidy

MANY_FILES = 1_000
"""From so many files on, the whole system is synced at once: one by one, they would take minutes."""
_NOT_FOR_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EBADF}
"""Errors of file systems that cannot sync folders."""


@contextlib.contextmanager
def atomic_path(path: Path, needs: int | None = None) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on success it is synced and renamed, on failure removed.

    The old file stays until the new one is whole. Missing parent folders are made, and removed again on failure;
    leftovers of dead processes next to it are removed.

    Parameters
    ----------
    needs : int, optional
        Bytes required, for the message when there is no room.

    Raises
    ------
    FullError, OSError
        Naming ``path``.
    """
    with _parents(path), owned(path) as temporary, naming(path, temporary, needs):
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole."""
    needs = content.nbytes if isinstance(content, memoryview) else len(content)
    with atomic_path(path, needs) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def atomic_directory(path: Path, needs: int | None = None) -> Iterator[Path]:
    """Yield a temporary directory next to ``path``; on success it is synced and renamed to ``path``, else removed.

    Missing parent folders are made, and removed again on failure.

    Parameters
    ----------
    needs : int, optional
        Bytes required, for the message when there is no room.

    Raises
    ------
    InputError
        When ``path`` already exists.
    FullError, OSError
        Naming ``path``.
    """
    if os.path.lexists(path):
        raise InputError(f"{path}: already exists")
    with _parents(path), owned(path) as temporary, naming(path, temporary, needs):
        temporary.mkdir()
        yield temporary
        sync_tree(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not os.path.lexists(path):
                raise
            raise InputError(f"{path}: already exists") from None  # another process was quicker
        sync_folder(path.parent)


@contextlib.contextmanager
def atomic_set(folder: Path, name: str) -> Iterator[Path]:
    """Yield a temporary folder; its files appear in ``folder`` together, replacing those of the same names.

    Once all are whole and synced, one rename commits them; if the process is killed while it moves them, the next one
    that writes into ``folder`` or reads it finishes. ``name`` is what the files are called together.
    """
    if not os.path.lexists(folder):
        with atomic_directory(folder) as temporary:
            yield temporary
        return
    tidy(folder)
    together = folder / name
    with owned(together) as temporary, owned(together, "set") as ready, naming(folder, temporary):
        temporary.mkdir()
        yield temporary
        _check_replaceable(temporary, folder)
        sync_tree(temporary)
        temporary.rename(ready)
        sync_folder(folder)
        move_set(ready)
        sync_folder(folder)


def _check_replaceable(fresh: Path, folder: Path) -> None:
    for file in fresh.iterdir():
        if (folder / file.name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / file.name))


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a folder next to ``path`` that is removed in every case."""
    with _parents(path), owned(path) as temporary:
        temporary.mkdir()
        yield temporary


def replace_folder(fresh: Path, path: Path) -> None:
    """Replace a folder by another whole one.

    A process that is killed in between leaves the old one under another name, and the next one puts it back.
    """
    sync_tree(fresh)
    with owned(path, "old") as old:
        path.rename(old)
        fresh.rename(path)
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flush the names in a folder: without that a power cut takes back what was renamed into it."""
    if os.name != "posix":
        return  # folders cannot be opened
    try:
        sync_file(path)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise


def sync_tree(folder: Path) -> None:
    """Flush a folder and all that is in it."""
    files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    if len(files) > MANY_FILES and hasattr(os, "sync"):
        os.sync()
        return
    for file in files:
        sync_file(file)
    for parent, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(parent))


@contextlib.contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the folders above a path; remove those that were made when the body fails."""
    found = existing(path.parent)
    missing = [above for above in path.parents if above != found and above.is_relative_to(found)]
    with removing_empty(missing):
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
        if not missing:
            tidy(path.parent)
        yield


@contextlib.contextmanager
def removing_empty(made: Sequence[Path]) -> Iterator[None]:
    """Remove the folders that were made, the innermost first, when the body fails or a signal ends it."""

    def undo() -> None:
        for folder in made:
            with contextlib.suppress(OSError):  # it is not there, or holds something
                folder.rmdir()

    take_back = at_end(undo)
    try:
        yield
    except BaseException:
        undo()
        raise
    finally:
        take_back()
