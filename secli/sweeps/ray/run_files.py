"""Keeps the runs of a sweep where its directory lies, while nodes of a cluster carry them out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from secli.records.schema import RECORD_FILE
from secli.sweeps.ray.packing import pack, unpack
from secli.training.run import alone_in


class Attempt(NamedTuple):
    """An attempt at a run: its number, from 1, and the packed run to go on with; None where there is none yet."""

    number: int
    saved: bytes | None


class RunFiles:
    """Hands out runs, takes them back after every epoch, and passes messages on; an actor of the cluster.

    Only the newest attempt at a run is listened to: a node that was given up for lost but works on can neither
    overwrite what a later one has saved nor be heard.

    Parameters
    ----------
    runs : mapping
        Key of each job to its run directory.
    """

    def __init__(self, runs: Mapping[str, str]) -> None:
        self.runs = {key: Path(run) for key, run in runs.items()}
        self.events: list[tuple[str, Any]] = []
        self.attempts: dict[str, int] = {}
        self.heard: dict[str, int] = {}
        self.held: dict[str, contextlib.ExitStack] = {}
        self.stopping = False

    def begin(self, key: str, worker: str) -> Attempt | None:
        """Begin a new attempt at a run; None when the sweep is being stopped.

        Raises
        ------
        InputError
            When another process is training in the run directory.
        """
        if self.stopping:
            return None
        self._hold(key)
        number = self.attempts[key] = self.heard[key] = self.attempts.get(key, 0) + 1
        self.events.append((key, ("started", worker, number)))
        run = self.runs[key]
        return Attempt(number, pack(run) if (run / RECORD_FILE).is_file() else None)

    def save(self, key: str, attempt: int, content: bytes) -> bool:
        """Take back a run's directory; of an attempt that was given up for lost, nothing is taken."""
        if attempt != self.heard.get(key):
            return False
        unpack(content, self.runs[key])
        self._hold(key)
        return True

    def tell(self, key: str, attempt: int, message: Any) -> bool:
        """Take a message of a running job; say whether the job shall stop."""
        outdated = attempt != self.heard.get(key)
        if message is not None and not outdated:
            self.events.append((key, message))
        return self.stopping or outdated

    def release(self, key: str) -> None:
        """Let go of a run that is over; nobody is listened to about it any more."""
        self.heard.pop(key, None)
        if key in self.held:
            self.held.pop(key).close()

    def drain(self) -> list[tuple[str, Any]]:
        """Return what has been told since the last call."""
        events, self.events = self.events, []
        return events

    def stop(self) -> None:
        """Let all running jobs save their state and return."""
        self.stopping = True

    def _hold(self, key: str) -> None:
        """Keep other processes from training in a run directory, once it is there."""
        if key not in self.held and self.runs[key].is_dir():
            with contextlib.ExitStack() as stack:
                stack.enter_context(alone_in(self.runs[key]))
                self.held[key] = stack.pop_all()
