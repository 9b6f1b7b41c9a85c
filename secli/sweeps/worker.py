"""One worker process of a sweep: takes jobs, one JSON line each, and carries them out one after another.

The process (:mod:`secli.datasets.worker_command` starts it) reads jobs from stdin and writes messages to stdout. When
stdin ends, its leader is gone: the job that runs saves its state, and the worker leaves.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from typing import TextIO

from secli import signals
from secli.errors import HeldRunError, InterruptedRunError, SecliError, one_line
from secli.provenance import COMMAND
from secli.sweeps.jobs import SweepJob, carry_out
from secli.sweeps.messages import Ended, NoticeLine, Progress, Ready, relays


def main() -> None:
    """Work until stdin ends or a signal asks to stop."""
    signals.install(quiet=True)
    # what a library prints must not stand between the messages
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    jobs: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    _send(channel, Ready())
    while (line := jobs.get()) is not None:
        ended = work(SweepJob.model_validate_json(line), channel)
        _send(channel, ended)
        if ended.how == "interrupted":
            return


def _listen(jobs: queue.Queue[str | None]) -> None:
    """Hand on the lines of stdin; at its end stop the job that runs, for nobody waits for it."""
    for line in sys.stdin:
        if line.strip():
            jobs.put(line)
    jobs.put(None)
    _stop_once()


_stopping = threading.Event()


def _stop_once() -> None:
    """Ask the job that runs to save its state and end; a second signal would cut that short."""
    if not _stopping.is_set():
        _stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)


def work(job: SweepJob, channel: TextIO) -> Ended:
    """Carry out one job and say how it ended."""
    began = time.perf_counter()
    if job.command:
        os.environ[COMMAND] = job.command  # what the records say made them

    def send(message: Progress | NoticeLine) -> None:
        _send(channel, message)

    on_event, on_measure = relays(send)
    try:
        carry_out(job, on_event, on_measure)
    except InterruptedRunError as error:
        return Ended(how="interrupted", reason=str(error))
    except KeyboardInterrupt:
        return Ended(how="interrupted", reason="ended at once by a second signal")
    except HeldRunError as error:
        return Ended(how="held", reason=str(error))
    except SecliError as error:
        return Ended(how="failed", reason=str(error))
    except MemoryError:
        return Ended(how="failed", reason="out of memory")
    except Exception as error:  # whatever it is, it is this job's failure and no other's
        return Ended(how="failed", reason=f"{type(error).__name__}: {one_line(error)}")
    return Ended(how="done", seconds=time.perf_counter() - began)


def _send(channel: TextIO, message: Ready | Progress | NoticeLine | Ended) -> None:
    try:
        # the line before ends whatever a library may have left there while it was loaded
        channel.write(("\n" if isinstance(message, Ready) else "") + message.model_dump_json() + "\n")
        channel.flush()
    except (BrokenPipeError, ValueError):  # ValueError: of a channel that broke before
        _stop_once()


if __name__ == "__main__":
    main()
