"""The networks of a plan counted on several cores: forked children begin at the other end, and meet on disk.

A count goes through the cache on disk (:mod:`secli.sweeps.operation_counts`), so a child has nothing to send: what it
has counted, the planning process finds there. A child that fails, or a cache that cannot be written, costs time alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence

from secli.sweeps.operation_counts import Counts, Shapes
from secli.training.devices import cores

WORTH_A_CHILD = 4
"""A child for so many networks: below it, forking and waiting costs what it saves."""
PATIENCE = 10.0
"""Seconds in which a child has to end its last network."""


@contextlib.contextmanager
def helped(networks: Sequence[Shapes]) -> Iterator[None]:
    """While the caller counts the networks from the first on, count them from the last on in forked children.

    Only on Linux: elsewhere a fork of a process that has loaded PyTorch is not safe. The children compute shapes
    alone, print nothing, and end with the context or with the caller's process.
    """
    children = min(cores() - 1, len(networks) // WORTH_A_CHILD) if sys.platform == "linux" else 0
    if children < 1:
        yield
        return
    read, write = os.pipe()
    started = [_forked(networks[::-1][turn::children], read, write) for turn in range(children)]
    os.close(read)
    try:
        yield
    finally:
        os.close(write)  # the sign to end, which the death of this process gives too
        until = time.monotonic() + PATIENCE
        for child in started:
            _wait(child, until)


def _forked(networks: Sequence[Shapes], read: int, write: int) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork while other threads run: the child calls none of them
        child = os.fork()
    if child:
        return child
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.close(write)
        counts = Counts()
        for shapes in networks:
            if select.select([read], [], [], 0)[0]:
                break
            with contextlib.suppress(Exception):  # the caller meets the same error, and tells it
                counts.of(shapes)
    finally:
        os._exit(0)


def _wait(child: int, until: float) -> None:
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        time.sleep(0.005)
