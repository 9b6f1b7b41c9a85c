"""Standard output is for results: inside, all other output goes to standard error."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Callable
from typing import Any


class _ToStderr(io.TextIOBase):
    """The ``sys.stdout`` of foreign code: it writes to standard error, and closing it closes nothing."""

    def write(self, text: str) -> int:
        """Write to the present standard error."""
        return 0 if sys.stderr is None else sys.stderr.write(text)

    def flush(self) -> None:
        """Flush standard error."""
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()

    def close(self) -> None:
        """Leave standard error open."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether standard error is a terminal."""
        return sys.stderr is not None and sys.stderr.isatty()

    def fileno(self) -> int:
        """Return the descriptor of standard error."""
        return sys.stderr.fileno()

    @property
    def buffer(self) -> Any:
        """The stream of bytes below."""
        return sys.stderr.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of standard error."""
        return getattr(sys.stderr, "encoding", None) or "utf-8"


STDERR_FOR_STDOUT = _ToStderr()


def _flush_of_c() -> Callable[[None], object]:
    """Return the function that flushes the buffers of C code; one without effect where there is none."""
    try:
        return ctypes.CDLL(None).fflush
    except (OSError, TypeError, AttributeError):
        return lambda _every: None


_flush_c = _flush_of_c()


class StdoutToStderr:
    """Redirect output inside to standard error: of Python, of C code, and of child processes."""

    def __enter__(self) -> None:
        """Redirect standard output."""
        self._streams = sys.stdin, sys.stdout, sys.stderr
        _flush(sys.stdout, sys.__stdout__)
        sys.stdout = STDERR_FOR_STDOUT
        self._saved = _duplicate(1)
        if self._saved is not None:
            _send(2, 1)

    def __exit__(self, *_error: object) -> None:
        """Flush, and restore it."""
        _flush(sys.stdout, sys.__stdout__)
        _flush_c(None)
        if self._saved is not None:
            os.dup2(self._saved, 1)
            os.close(self._saved)
        sys.stdin, sys.stdout, sys.stderr = self._streams


def no_more_results() -> None:
    """Redirect output to standard error while the interpreter ends."""
    _flush(sys.stdout)
    _send(2, 1)


def _flush(*streams: Any) -> None:
    for stream in streams:
        # None, closed, or its reader has gone: the next writer gets the error
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _duplicate(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:  # closed from the start
        return None


def _send(source: int, target: int) -> None:
    """Redirect a descriptor to another one's target, or to none."""
    try:
        os.dup2(source, target)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, target)
        os.close(nowhere)
