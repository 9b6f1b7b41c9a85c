"""One process at a time in a folder: the lock ends with the process, and no file is left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from secli.storage.writing import removing_empty


def hold(folder: Path, wait: bool) -> int | None:
    """Lock a folder until the returned descriptor is closed; None where the file system has no locks.

    Raises
    ------
    BlockingIOError
        When another process holds it and ``wait`` is not given.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def in_turn(folder: Path, on_wait: Callable[[Path], None] = lambda folder: None) -> Iterator[None]:
    """Hold a folder for this process alone while the body runs; others wait.

    Parameters
    ----------
    folder : Path
        Made if it does not exist; removed when the body fails, if it is empty.
    on_wait : callable
        Called with the folder when another process holds it.
    """
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    with removing_empty(missing):
        descriptor = _have(folder, on_wait)
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _have(folder: Path, on_wait: Callable[[Path], None]) -> int | None:
    """Lock a folder, and check that it is still the one of that name: its former holder may have removed it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            try:
                descriptor = hold(folder, wait=False)
            except BlockingIOError:
                on_wait(folder)
                descriptor = hold(folder, wait=True)
            if descriptor is None:
                return None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), folder.stat()):
                    return descriptor
            os.close(descriptor)
