"""Standard output belongs to results: inside, whatever is printed goes to standard error."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Callable
from typing import Any


class _ToStderr(io.TextIOBase):
    """A stream for code that asks for ``sys.stdout``: it writes to standard error, and closing it closes nothing."""

    def write(self, text: str) -> int:
        """Write to whatever standard error is now."""
        return 0 if sys.stderr is None else sys.stderr.write(text)

    def flush(self) -> None:
        """Write out what is held back."""
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()

    def close(self) -> None:
        """Leave standard error open."""

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def isatty(self) -> bool:
        """Say whether a person reads along."""
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
    """Return what writes out the buffers of C code; nothing where the system does not give it."""
    try:
        return ctypes.CDLL(None).fflush
    except (OSError, TypeError, AttributeError):
        return lambda _every: None


_flush_c = _flush_of_c()


class StdoutToStderr:
    """Send to standard error what is printed inside: by Python, by C code, and by programs that are started."""

    def __enter__(self) -> None:
        """Turn standard output round."""
        self._streams = sys.stdin, sys.stdout, sys.stderr
        _flush(sys.stdout, sys.__stdout__)
        sys.stdout = STDERR_FOR_STDOUT
        self._saved = _duplicate(1)
        if self._saved is not None:
            _send(2, 1)

    def __exit__(self, *_error: object) -> None:
        """Turn it back, after all that was printed is out."""
        _flush(sys.stdout, sys.__stdout__)
        _flush_c(None)
        if self._saved is not None:
            os.dup2(self._saved, 1)
            os.close(self._saved)
        sys.stdin, sys.stdout, sys.stderr = self._streams


def no_more_results() -> None:
    """Send to standard error what is still printed while the interpreter ends."""
    _flush(sys.stdout)
    _send(2, 1)


def _flush(*streams: Any) -> None:
    for stream in streams:
        # None, closed, or its reader has gone: whoever writes to it next is told
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _duplicate(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:  # closed from the start
        return None


def _send(source: int, target: int) -> None:
    """Let a descriptor lead where another one leads, or nowhere."""
    try:
        os.dup2(source, target)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, target)
        os.close(nowhere)
