"""The local engine: worker processes on this machine, each with its share of threads and GPUs."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from secli.datasets.worker_command import worker_command
from secli.errors import InputError, SecliError, one_line
from secli.sweeps.engine import Done, Failed, Left, Notice, Progressed, Started, SweepEvent, SweepReport
from secli.sweeps.jobs import SweepJob
from secli.sweeps.jobs import mark_failed as mark_failed
from secli.sweeps.messages import Ended, NoticeLine, Progress, Ready, read_message

BETWEEN_QUESTIONS = 0.1
LONGEST_WORDS = 500
TO_SAVE = 60.0
"""Seconds that running jobs are given to save their state."""


def visible_gpus() -> tuple[str, ...]:
    """Return the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(named.split(","))[:count] if named else tuple(str(index) for index in range(count))


ASKED_TO_LEAVE = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
"""Exit codes of a process that somebody asked to leave while it was not training: its run has not failed."""


class Lost(Exception):
    """A worker process died, or could not be started.

    Attributes
    ----------
    code
        Its exit code; negative: the signal.
    """

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


@dataclass
class Worker:
    """One worker process; a new one is started in its place when it dies."""

    name: str
    environment: Mapping[str, str]
    process: subprocess.Popen[str] | None = field(default=None, init=False)
    asked: bool = field(default=False, init=False)
    errors: BinaryIO | None = field(default=None, init=False, repr=False)

    def ensure(self) -> subprocess.Popen[str]:
        """Return the living process, starting one if need be."""
        if self.process is not None and self.process.poll() is None:
            return self.process
        self.dismiss()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long-lived as the process
        self.process = subprocess.Popen(
            worker_command("secli.sweeps.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **self.environment},
            start_new_session=True,  # a Ctrl-C at the terminal is the leader's to hand on
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if isinstance(read_message(line), Ready):
                return self.process
        code = self.process.wait()
        raise Lost(f"it could not be started (exit code {code}){self._last_words()}", code)

    def carry_out(self, job: SweepJob, report: SweepReport) -> Ended:
        """Give it a job and hand on what it reports, until the job ends.

        Raises
        ------
        Lost
            When the process dies first.
        """
        process = self.ensure()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
        except (BrokenPipeError, ValueError):  # ValueError: dismissed meanwhile
            raise self._lost() from None
        for line in process.stdout:
            message = read_message(line)
            if isinstance(message, Ended):
                return message
            if isinstance(message, Progress):
                report(Progressed(job, message.phase, message.done, message.total, message.detail))
            elif isinstance(message, NoticeLine):
                report(Notice(message.text, job))
        raise self._lost()

    def _lost(self) -> Lost:
        """Say how the process was lost."""
        assert self.process is not None
        code = self.process.wait()
        words = "" if code == -signal.SIGKILL else self._last_words()
        return Lost(_cause(code) + words, code)

    def _last_words(self) -> str:
        """Return the last line that the process wrote to stderr."""
        assert self.errors is not None
        length = self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, length - LONGEST_WORDS))
        lines = self.errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {last}" if last else ""

    def ask_to_stop(self) -> None:
        """Let the running job save its state and leave; asked once only, a second signal would cut it short."""
        process = self.process
        if not self.asked and process is not None and process.poll() is None:
            self.asked = True
            process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once; what it saved before stands."""
        process = self.process
        if process is not None and process.poll() is None:
            process.kill()

    def dismiss(self, patience: float = 0.0) -> None:
        """End the process; it is killed when it has not left in time."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(patience or 10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        assert self.errors is not None
        self.process.stdout.close()
        self.errors.close()
        self.process = self.errors = None


def _cause(code: int) -> str:
    """Say why a process died."""
    if code == -signal.SIGKILL:
        return "its process was killed (signal 9: most often for want of memory); fewer --jobs, or a smaller batch"
    if code < 0:
        return f"its process died of signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended with code {code}"


class LocalEngine:
    """Worker processes on this machine.

    Parameters
    ----------
    jobs : int
        Worker processes at once.
    threads : int
        CPU threads of each (0: one per core); the runs say so too, as their last bits depend on it.
    gpus : sequence of str
        Devices, as CUDA_VISIBLE_DEVICES names them, shared out among the workers in turn; none: as the machine has it.

    Raises
    ------
    InputError
        When ``jobs`` is below 1.
    """

    def __init__(self, jobs: int, threads: int = 1, gpus: Sequence[str] = ()) -> None:
        if jobs < 1:
            raise InputError(f"--jobs {jobs}: at least one worker is needed")
        self.count, self.threads, self.gpus = jobs, threads, tuple(gpus)

    @property
    def slots(self) -> int:
        """How many jobs it carries out at once."""
        return self.count

    def run(self, jobs: Sequence[SweepJob], report: SweepReport, stop: Callable[[], bool]) -> None:
        """Carry out the jobs; see :class:`secli.sweeps.engine.Engine`."""
        waiting: queue.SimpleQueue[SweepJob] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        lock, stopping = threading.Lock(), threading.Event()
        broken: list[str] = []

        def tell(event: SweepEvent) -> None:
            with lock:
                report(event)

        workers = [Worker(f"worker {i + 1}", self._environment(i)) for i in range(min(self.count, len(jobs)))]
        threads = [
            threading.Thread(target=_serve, args=(worker, waiting, tell, stopping, broken), daemon=True)
            for worker in workers
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                if stopping.is_set() or stop() or broken:
                    stopping.set()
                    for worker in workers:  # one that is only being started can be asked next time
                        worker.ask_to_stop()
                time.sleep(BETWEEN_QUESTIONS)
        except KeyboardInterrupt:
            for worker in workers:
                worker.kill()
            raise
        finally:
            stopping.set()
            for worker in workers:
                worker.ask_to_stop()
            for thread in threads:
                thread.join(TO_SAVE)
            for worker in workers:
                worker.dismiss()
        if broken:
            raise SecliError(f"the sweep stopped: {broken[0]}")

    def _environment(self, index: int) -> dict[str, str]:
        environment = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[index % len(self.gpus)]
        return environment


def _serve(
    worker: Worker,
    waiting: queue.SimpleQueue[SweepJob],
    tell: SweepReport,
    stopping: threading.Event,
    broken: list[str],
) -> None:
    """Give one worker job after job, until none waits or the sweep stops; whatever goes wrong here stops it."""
    try:
        while not stopping.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                worker.ensure()
            except Lost as lost:
                if not stopping.is_set():
                    broken.append(f"no worker process could be started: {lost}")
                return
            if stopping.is_set():
                return
            tell(_carried_out(worker, job, tell))
    except Exception as error:
        if not stopping.is_set():
            broken.append(one_line(error))


def _carried_out(worker: Worker, job: SweepJob, tell: SweepReport) -> Done | Failed | Left:
    """Let a worker carry out one job; return how it ended."""
    began = time.perf_counter()
    tell(Started(job, worker.name))
    try:
        ended = worker.carry_out(job, tell)
    except Lost as lost:
        if worker.asked or lost.code in ASKED_TO_LEAVE:
            return Left(job, "interrupted")
        return Failed(job, str(lost))
    if ended.how == "done":
        return Done(job, time.perf_counter() - began)
    if ended.how == "failed":
        return Failed(job, ended.reason)
    if ended.how == "interrupted":
        worker.dismiss()  # it is about to leave, and shall not be given the next job
        return Left(job, "interrupted")
    return Left(job, ended.reason)
