"""Ctrl-C and SIGTERM ask a run to stop after the present step; a second signal ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from secli.signals import note as signals_seen


class Interruption:
    """Whether a signal has asked the work to stop, and which."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        """Whether the work should stop at the next safe point."""
        return self.signal is not None


_ASKED: list[Interruption] = []
"""Those that catch signals in the main thread, the innermost last."""


@contextmanager
def catching_signals(
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
    on_first: Callable[[], None] = lambda: None,
) -> Iterator[Interruption]:
    """Turn the first of these signals into a flag; the second raises ``KeyboardInterrupt``.

    Handlers are set in the main thread only (Python allows no other), and the old ones are restored.

    Parameters
    ----------
    signals : sequence
        Which signals.
    on_first : callable
        Called from the handler when the first one comes.
    """
    interruption = Interruption()

    def handle(number: int, frame: FrameType | None) -> None:
        signals_seen(number)
        if interruption.requested:
            raise KeyboardInterrupt
        interruption.signal = signal.Signals(number)
        on_first()

    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    _ASKED.append(interruption)
    old = {number: signal.signal(number, handle) for number in signals}
    try:
        yield interruption
    finally:
        for number, handler in old.items():
            # None: the old handler was not set from Python and cannot be set back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _ASKED.remove(interruption)
        if (
            _ASKED and interruption.signal is not None
        ):  # what came to the inner one is meant for the outer one, too
            _ASKED[-1].signal = interruption.signal
