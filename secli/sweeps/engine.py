"""What carries out jobs: the contract that every engine keeps, and what it reports while it works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from secli.sweeps.jobs import SweepJob

Phase = Literal["training", "measuring"]


@dataclass(frozen=True)
class Started:
    """A worker has taken a job; ``attempt`` counts from 1 (above 1: its worker was lost before)."""

    job: SweepJob
    worker: str
    attempt: int = 1


@dataclass(frozen=True)
class Progressed:
    """A job is on its way: ``done`` of ``total`` epochs, or forward passes when measuring."""

    job: SweepJob
    phase: Phase
    done: float
    total: float
    detail: str = ""


@dataclass(frozen=True)
class Done:
    """A job is finished; ``seconds`` of this attempt."""

    job: SweepJob
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A job failed, and it alone; its record says why."""

    job: SweepJob
    reason: str


@dataclass(frozen=True)
class Left:
    """A job was let go before it was over and has not failed; the next call goes on with it."""

    job: SweepJob
    reason: str


@dataclass(frozen=True)
class Notice:
    """Something that the user should know; one line."""

    text: str
    job: SweepJob | None = None


SweepEvent = Started | Progressed | Done | Failed | Left | Notice
SweepReport = Callable[[SweepEvent], None]


class Engine(Protocol):
    """Carries out jobs; the records that come of it do not depend on which engine it is."""

    @property
    def slots(self) -> int:
        """How many jobs it carries out at once."""
        ...

    def run(self, jobs: Sequence[SweepJob], report: SweepReport, stop: Callable[[], bool]) -> None:
        """Carry out the jobs, in any order, several at once.

        A job that fails, or whose process dies, is reported as failed and hinders no other. When ``stop`` says so,
        the running jobs save their state and the call returns.

        Raises
        ------
        SecliError
            When no job can be carried out at all (no worker can be started, the cluster is gone).
        """
        ...
