"""Running the loop: in this process on one device, in one spawned process per device on several."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event as Flag
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.multiprocessing.spawn import ProcessException

from secli.datasets.worker_command import safe_path
from secli.errors import SecliError
from secli.training.compiling import compiler_failure
from secli.training.determinism import reproducible
from secli.training.devices import make_fabric
from secli.training.events import Event, Report, silent
from secli.training.fit import Fit, Job, Outcome
from secli.training.interruption import catching_signals

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    Events: TypeAlias = Queue[Event | None]
else:  # Python 3.10 cannot write the type of its contents at run time
    Events = Queue


def launch(job: Job, report: Report, stop_requested: Callable[[], bool] = lambda: False) -> Outcome:
    """Train a job; the events reach ``report`` in this process.

    ``stop_requested`` returns whether a signal came before the loop's own handler was set.

    Raises
    ------
    KeyboardInterrupt
        On the second signal.
    SecliError
        When the device has no memory left, the network cannot be compiled, or one of several processes died.
    """
    try:
        if job.training.devices == 1:
            return _alone(job, report, stop_requested)
        return _together(job, report, stop_requested)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise SecliError(
                f"out of memory on {job.training.device} with batches of {job.training.batch}; add --accumulate N or "
                "--checkpoint-activations, or give a smaller --batch (each another setting, so another run)"
            ) from None
        complaint = compiler_failure(error)
        if complaint is not None:
            raise SecliError(f"--compile: {complaint}; leave out --compile") from None
        raise


def _alone(job: Job, report: Report, stop_requested: Callable[[], bool]) -> Outcome:
    with reproducible(job.training), catching_signals() as interruption:
        fabric = make_fabric(job.training)
        fabric.launch()
        return Fit(fabric, job, report, lambda: interruption.requested or stop_requested()).run()


def _together(job: Job, report: Report, stop_requested: Callable[[], bool]) -> Outcome:
    context = multiprocessing.get_context("spawn")
    events: Events = context.Queue()
    stop = context.Event()
    others = set(multiprocessing.active_children())
    with catching_signals(on_first=stop.set), _relaying(events, report), safe_path():
        if stop_requested():
            stop.set()
        try:
            outcome = make_fabric(job.training).launch(partial(_work, job=job, events=events, stop=stop))
        except ProcessException as error:
            last = [line for line in str(error).splitlines() if line.strip()][-1]
            raise SecliError(f"a training process of {job.training.devices} died: {last}") from None
        finally:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
    assert isinstance(outcome, Outcome)
    return outcome


def _work(fabric: Fabric, job: Job, events: Events, stop: Flag) -> Outcome:
    """One of several processes: it stops at its parent's flag, and at Ctrl-C (sent also when the parent dies)."""
    report = events.put if fabric.is_global_zero else silent
    with reproducible(job.training), catching_signals([signal.SIGINT]) as interruption:
        return Fit(fabric, job, report, lambda: interruption.requested or stop.is_set()).run()


@contextmanager
def _relaying(events: Events, report: Report) -> Iterator[None]:
    """Report the events of a queue while the body runs."""

    def relay() -> None:
        while (event := events.get()) is not None:
            report(event)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        events.put(None)
        thread.join()
        events.close()
