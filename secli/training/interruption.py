"""Ctrl-C and SIGTERM stop a run after the present step; a second signal ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from secli.signals import note as signals_seen


class Interruption:
    """Whether a signal requests to stop the work, and which."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        """Whether the work should stop at the next safe point."""
        return self.signal is not None


_ACTIVE: list[Interruption] = []
"""Those that catch signals in the main thread, the innermost last."""


@contextmanager
def catching_signals(
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
    on_first: Callable[[], None] = lambda: None,
) -> Iterator[Interruption]:
    """Turn the first of these signals into a flag; the second raises ``KeyboardInterrupt``.

    Handlers are set in the main thread only (Python allows no other), and the old ones are restored. ``on_first`` is
    called from the handler at the first signal.
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
    _ACTIVE.append(interruption)
    old = {number: signal.signal(number, handle) for number in signals}
    try:
        yield interruption
    finally:
        for number, handler in old.items():
            # None: the old handler was not set from Python and cannot be set back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _ACTIVE.remove(interruption)
        if (
            _ACTIVE and interruption.signal is not None
        ):  # a signal to the inner one is meant for the outer one, too
            _ACTIVE[-1].signal = interruption.signal
