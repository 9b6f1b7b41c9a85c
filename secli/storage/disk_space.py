"""Full disks, quotas and limits: one line with the path and what was needed, before the work where it can be."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from secli.errors import InputError, SecliError
from secli.storage.leftovers import owned, tidy

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""numpy's message when a file took less than it was given; there is no error number."""


class FullError(SecliError, OSError):
    """There is no room for a file: the disk or the quota is full, or the file is too large for a limit.

    Attributes
    ----------
    filename
        The file, or the folder that contains it.
    reason
        What is full, what was needed.
    """

    def __init__(self, filename: str, reason: str) -> None:
        super().__init__(f"{filename}: {reason}")
        self.filename, self.reason = filename, reason

    def __str__(self) -> str:
        return f"{self.filename}: {self.reason}"  # OSError has a form of its own

    def __reduce__(self) -> tuple[type[FullError], tuple[str, str]]:
        return FullError, (self.filename, self.reason)


@contextlib.contextmanager
def naming(path: Path, temporary: Path, needs: int | None = None) -> Iterator[None]:
    """Let errors while ``temporary`` is written name ``path``, which the user knows.

    Parameters
    ----------
    needs : int, optional
        Bytes required, for the message; none: those written so far.

    Raises
    ------
    FullError
        When there is no room.
    OSError
        When it cannot be written for another reason; of the same kind, naming ``path``.
    """
    try:
        yield
    except OSError as error:
        known = _known_as(error.filename, path, temporary)
        if isinstance(error, FullError):
            raise FullError(known or error.filename, error.reason) from None
        if error.filename is not None and known is None:
            raise
        if error.errno in _NO_ROOM or _SHORT_WRITE.search(str(error)):
            raise FullError(
                known or str(path), _no_room(path, error.errno, needs, _size(temporary))
            ) from None
        if error.errno is None or (known is None and error.errno != errno.EIO):
            raise
        raise OSError(error.errno, error.strerror, known or str(path)) from None


def _known_as(filename: Any, path: Path, temporary: Path) -> str | None:
    """Return the user's name of a file that is being made; None where it is none of these."""
    if filename is None or isinstance(filename, int):
        return None
    name = os.fsdecode(filename)
    return str(path) + name.removeprefix(str(temporary)) if name.startswith(str(temporary)) else None


def check_room(path: Path, needs: int, largest: int | None = None) -> None:
    """Refuse, before any work, what the disk or the limit on files of this process leaves no room for.

    Parameters
    ----------
    needs : int
        Bytes required in all.
    largest : int, optional
        Bytes of its largest file; none: it is one file.

    Raises
    ------
    FullError
        With the path and both numbers.
    """
    limit = file_limit()
    if limit is not None and (largest or needs) > limit:
        raise FullError(str(path), _no_room(path, errno.EFBIG, largest or needs, 0))
    if needs > _free(path):
        raise FullError(str(path), _no_room(path, errno.ENOSPC, needs, 0))


def check_writable(directory: Path) -> None:
    """Refuse, before any work, a directory that cannot be written or made.

    Raises
    ------
    InputError
        When it, or the first directory above it that exists, is a file or may not be written.
    FullError
        When not even an empty file has room there.
    """
    found = existing(directory)
    if not found.is_dir():
        raise InputError(f"{found}: is a file, not a directory to write into")
    if not os.access(found, os.W_OK | os.X_OK):
        raise InputError(f"{found}: this directory cannot be written")
    tidy(found)
    with owned(found / "trial") as trial, naming(found, trial):
        try:
            trial.write_bytes(b"x")
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            raise InputError(f"{found}: this directory cannot be written ({error.strerror})") from None


def check_file(path: Path, option: str = "") -> None:
    """Refuse, before any work, a file that cannot be written; InputError or FullError name the path and the option."""
    before = f"{option} " if option else ""
    try:
        if path.is_dir():
            raise InputError(f"{before}{path}: is a directory; name a file")
        check_writable(path.parent)
        path.lstat()  # a name may be too long
    except FileNotFoundError:
        return
    except SecliError:
        raise
    except OSError as error:
        raise InputError(f"{before}{path}: {error.strerror}") from None


def existing(directory: Path) -> Path:
    """Return a path, or the first one above it that exists."""
    found = directory
    while not found.exists() and found != found.parent:
        found = found.parent
    return found


def file_limit() -> int | None:
    """Return how many bytes a file of this process may have (``ulimit -f``); None without a limit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def size_text(count: int) -> str:
    """Return a number of bytes in words.

    Examples
    --------
    >>> size_text(512), size_text(1536), size_text(3 * 2**30)
    ('512 bytes', '1.5 KiB', '3.0 GiB')
    """
    if count < 1024:
        return f"{count} bytes"
    size, units = count / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, _ = size / 1024, units.pop(0)
    return f"{size:.1f} {units[0]}"


def _no_room(path: Path, number: int | None, needs: int | None, written: int) -> str:
    amount = size_text(needs) if needs is not None else f"more than {size_text(written)}"
    if number == errno.EFBIG:
        limit = file_limit()
        allowed = "" if limit is None else f", {size_text(limit)} are allowed (ulimit -f)"
        return f"file too large: {amount} are needed{allowed}"
    if number == errno.EDQUOT:
        return f"disk quota exceeded: {amount} are needed"
    return f"no space left on device: {amount} are needed, {size_text(_free(path) + written)} are free"


def _free(path: Path) -> int:
    return shutil.disk_usage(existing(path)).free


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += file.lstat().st_size
    return total
