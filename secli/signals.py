"""SIGINT and SIGTERM at any moment of a command: what is half made is removed, one line is told, the process leaves.

The process leaves from within the handler. An exception would have to pass through whatever runs at that moment, and
the C code of numpy and torch, which is being imported for the first seconds of a command, swallows it or turns it into
another one. Imports nothing but the standard library's smallest modules, so that it can come first.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # typing takes as long to import as all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

INTERRUPTED = 130
CAUGHT = (signal.SIGINT, signal.SIGTERM)

_first: list[int] = []
_installed: list[bool] = []
_undoing: list[Callable[[], None]] = []
_advice: list[str] = []


def exit_code() -> int:
    """Return the exit code of an interrupted command: 128 + the number of the first signal; 130 without one."""
    return 128 + _first[0] if _first else INTERRUPTED


def note(number: int) -> None:
    """Remember a signal that another handler has taken."""
    if not _first:
        _first.append(int(number))


def forget() -> None:
    """Forget the signals of a command that is over; another may follow in this process."""
    _first.clear()


def at_end(undo: Callable[[], None]) -> Callable[[], None]:
    """Have something undone when a signal ends the process; return what takes that back."""
    _undoing.append(undo)

    def take_back() -> None:
        if undo in _undoing:
            _undoing.remove(undo)

    return take_back


def undo_all() -> None:
    """Undo what this process has begun, the last first."""
    for undo in reversed(_undoing):
        try:
            undo()
        except Exception:  # whatever it is, the rest is still to be undone
            continue


class advising:
    """Let the line that a signal's handler writes end in this advice, while the body runs."""

    def __init__(self, advice: str) -> None:
        self.advice = advice

    def __enter__(self) -> None:
        _advice.append(self.advice)

    def __exit__(self, *_: object) -> None:
        _advice.remove(self.advice)


def install(quiet: bool = False) -> None:
    """Set the handlers, in a process of our own.

    Parameters
    ----------
    quiet : bool
        Of a process that others started and whose end they tell: it writes nothing, and dies of the signal itself.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for each in CAUGHT:
            signal.signal(each, signal.SIG_IGN)
        note(number)
        undo_all()
        if quiet:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        _tell()
        os._exit(128 + number)

    for each in CAUGHT:
        signal.signal(each, leave)
    _installed.append(True)


def finish() -> None:
    """Ignore signals from here on: the command is over, and its exit code is known."""
    if _installed:
        for each in CAUGHT:
            signal.signal(each, signal.SIG_IGN)


def _tell() -> None:
    """Write the line with the least that can fail: streams may be locked by what the signal has interrupted."""
    line = ": ".join(["interrupted", *_advice[-1:]]) + "\n"
    try:
        if os.isatty(2):  # a progress bar stands there, and has hidden the cursor
            line = "\r\x1b[2K\x1b[?25h" + line
        os.write(2, line.encode())
    except OSError:
        pass
