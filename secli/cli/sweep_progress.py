"""One live view of a sweep on stderr: done, running, failed, time left; without a terminal, a line per event."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secli.cli.console import note, stderr_console, words
from secli.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from secli.sweeps.engine import SweepEvent


@contextmanager
def watching(
    total: int, done: int, failed: int, weights: Mapping[str, float], quiet: bool
) -> Iterator[Callable[[SweepEvent], None]]:
    """Give a function that shows what happens in a sweep.

    Parameters
    ----------
    total, done, failed : int
        Jobs in all, those that were finished before, those that failed before and are not tried again.
    weights : mapping
        Key of each job that is left to what it is thought to cost, in any unit: by it the time left is told.
    quiet : bool
        Show nothing.
    """
    from rich.progress import BarColumn, Progress

    console = stderr_console()
    with Progress(
        words("{task.description}"),
        BarColumn(bar_width=20),
        words("{task.fields[detail]}"),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as display:
        lines = not (quiet or console.is_terminal)
        yield _View(display, total, done, failed, weights, lines, quiet).show


@dataclass
class _View:
    """What is known of the sweep so far."""

    display: Progress
    total: int
    done: int
    failed: int
    weights: Mapping[str, float]
    lines: bool
    quiet: bool
    began: float = field(default_factory=time.monotonic)
    shares: dict[str, float] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    tasks: dict[str, TaskID] = field(default_factory=dict)

    def __post_init__(self) -> None:
        finished = self.done + self.failed
        self.all = self.display.add_task("sweep", total=max(self.total, 1), completed=finished, detail="")
        self._sum_up()

    def show(self, event: SweepEvent) -> None:
        """Show one event."""
        from secli.sweeps.engine import Done, Failed, Left, Notice, Progressed, Started

        if isinstance(event, Notice):
            self._say(event.text)
            return
        key = event.job.key
        if isinstance(event, Started):
            again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
            if key in self.tasks:
                self.display.remove_task(self.tasks.pop(key))
            self.tasks[key] = self.display.add_task(f"  {event.job.title}{again}", total=1, detail="")
        elif isinstance(event, Progressed):
            part = event.done / max(event.total, 1)
            share, now = 0.9 * part, f"epoch {event.done:.0f}/{event.total:.0f}"
            if event.phase != "training":  # measuring comes after it, and is counted as its last tenth
                share, now = 0.9 + 0.1 * part, "measuring"
            self.shares[key] = share
            if key in self.tasks:
                self.display.update(self.tasks[key], completed=share, detail=f"{now} {event.detail}")
        elif isinstance(event, Done):
            self.done += 1
            self._ends(key, f"done: {event.job.title}, {event.seconds:.0f} s")
        elif isinstance(event, Failed):
            self.failed += 1
            self._ends(key, f"failed: {event.job.title}: {event.reason}", always=True)
        elif isinstance(event, Left):
            self._drop(key)
            self._say(f"left for another time: {event.job.title}: {event.reason}")
        self._sum_up()

    def _drop(self, key: str) -> None:
        self.over.add(key)
        if key in self.tasks:
            self.display.remove_task(self.tasks.pop(key))

    def _ends(self, key: str, line: str, always: bool = False) -> None:
        self._drop(key)
        if always or self.lines:
            self._say(f"[{self.done + self.failed}/{self.total}] {line}{self._left()}")

    def _say(self, text: str) -> None:
        if self.quiet:
            return
        if self.lines:
            note(text)
        else:
            self.display.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def _sum_up(self) -> None:
        counts = f"{self.done} done, {len(self.tasks)} running, {self.failed} failed, {self.total} in all"
        self.display.update(self.all, completed=self.done + self.failed, detail=f"{counts}{self._left()}")

    def _left(self) -> str:
        """Return the time left, told from what has been done in this call."""
        whole = sum(self.weights.values())
        spent = sum(
            weight * (1.0 if key in self.over else self.shares.get(key, 0.0))
            for key, weight in self.weights.items()
        )
        if spent < 0.02 * whole or spent >= whole:
            return ""
        seconds = (time.monotonic() - self.began) * (whole - spent) / spent
        return f", about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Say a time in words.

    Examples
    --------
    >>> duration(42), duration(600), duration(9000), duration(200000)
    ('42 s', '10 min', '2 h 30 min', '2 d 7 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
