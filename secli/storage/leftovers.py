"""What killed processes leave behind: removed, put back or finished by the next process."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from secli.signals import at_end
from secli.storage.owners import Kind, Owned, is_dead, is_mine, owned_name, read_name


@contextlib.contextmanager
def owned(path: Path, kind: Kind = "tmp") -> Iterator[Path]:
    """Yield a temporary name next to ``path``; what exists under it at the end is settled."""
    suffix = path.suffix if kind == "tmp" and path.suffix[1:].isalnum() and len(path.suffix) <= 16 else ""
    temporary = path.with_name(owned_name(path.name, kind, suffix))
    pid = os.getpid()

    def settle() -> None:
        if os.getpid() == pid:  # a forked process has copied this from its parent
            _settle(temporary)

    take_back = at_end(settle)
    try:
        yield temporary
    finally:
        settle()
        take_back()


def tidy(folder: Path) -> None:
    """Settle what dead processes left in a folder, as far as it may be written."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".")]
    except OSError:
        return
    for name in names:
        owner = read_name(name)
        if owner is not None and not is_mine(owner) and is_dead(folder / name, owner):
            _settle(folder / name, owner)


def tidy_below(folder: Path) -> None:
    """Settle what dead processes left in a folder and below, so that readers find whole results."""
    for parent, folders, files in os.walk(folder):
        if any(name.startswith(".") and read_name(name) for name in (*folders, *files)):
            tidy(Path(parent))
        folders[:] = [name for name in folders if not name.startswith(".")]


def _settle(temporary: Path, owner: Owned | None = None) -> None:
    """Remove what is half made, put back what was moved away for nothing, finish what was only to be moved.

    Two processes may do so at the same time: what is gone already was settled by the other.
    """
    owner = owner or read_name(temporary.name)
    if owner is None:
        return
    with contextlib.suppress(OSError):
        if owner.kind == "set":
            move_set(temporary)
            return
        if owner.kind == "old" and not os.path.lexists(temporary.with_name(owner.name)):
            temporary.rename(temporary.with_name(owner.name))
            return
        remove(temporary)


def move_set(ready: Path) -> None:
    """Move the whole files of a set into the folder around it; the record or text that names the others comes last.

    On an OSError the set stays, and can be moved later.
    """
    for file in sorted(ready.iterdir(), key=lambda file: (file.suffix in (".json", ".md"), file.name)):
        with contextlib.suppress(FileNotFoundError):
            file.replace(ready.parent / file.name)
    ready.rmdir()


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
