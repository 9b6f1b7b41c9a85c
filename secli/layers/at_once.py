"""Whether a network is being run for several replicas at once, under ``torch.vmap``.

A layer whose own form of an operation ``torch.vmap`` cannot look into asks here, and takes torch's operators instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_AT_ONCE: ContextVar[bool] = ContextVar("at_once", default=False)


def replicas_at_once() -> bool:
    """Whether several replicas are being run at once, in this thread."""
    return _AT_ONCE.get()


@contextmanager
def running_at_once() -> Iterator[None]:
    """Say to all layers that several replicas are run at once while the body runs."""
    token = _AT_ONCE.set(True)
    try:
        yield
    finally:
        _AT_ONCE.reset(token)
