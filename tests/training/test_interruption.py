"""Signals become flags, one inside the other, and the old handlers come back."""

from __future__ import annotations

import signal

import pytest

from secli.training.interruption import catching_signals


def test_the_first_signal_is_a_flag_and_the_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with catching_signals() as interruption:
        assert not interruption.requested
        signal.raise_signal(signal.SIGINT)
        assert interruption.signal is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("when", ["inside", "never", "outside"])
def test_what_comes_to_the_inner_one_stops_the_outer_one_too(when: str) -> None:
    """A signal during the last moments of one run must not be lost on those that would follow it."""
    with catching_signals() as outer:
        with catching_signals() as inner:
            if when == "inside":
                signal.raise_signal(signal.SIGTERM)
            assert inner.requested == (when == "inside")
            assert not outer.requested
        if when == "outside":
            signal.raise_signal(signal.SIGTERM)
        assert outer.requested == (when != "never")
        with catching_signals() as next_one:
            assert not next_one.requested
    with catching_signals() as later:  # nothing is left behind
        pass
    assert not later.requested
