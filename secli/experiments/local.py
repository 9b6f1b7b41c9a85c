"""The local engine: worker processes on this machine, each with its share of threads and GPUs."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from secli.errors import InputError, SecliError
from secli.experiments.engine import Done, Failed, Progressed, Said, Started, SweepEvent, SweepReport
from secli.experiments.jobs import SweepJob
from secli.experiments.wire import Ended, Note, Progress, Ready, read_message
from secli.records import RECORD_FILE, read_training_record, write_record

BETWEEN_QUESTIONS = 0.1
TO_SAVE = 60.0
"""Seconds that running jobs are given to save their state."""


def visible_gpus() -> tuple[str, ...]:
    """Return the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(named.split(","))[:count] if named else tuple(str(index) for index in range(count))


class Lost(Exception):
    """A worker process died, or could not be started."""


@dataclass
class Worker:
    """One worker process; a new one is started in its place when it dies."""

    name: str
    environment: Mapping[str, str]
    process: subprocess.Popen[str] | None = field(default=None, init=False)
    asked: bool = field(default=False, init=False)

    def ensure(self) -> subprocess.Popen[str]:
        """Return the living process, starting one if need be."""
        if self.process is not None and self.process.poll() is None:
            return self.process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "secli.experiments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **self.environment},
            start_new_session=True,  # a Ctrl-C at the terminal is the leader's to hand on
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line or not isinstance(read_message(line), Ready):
            raise Lost(f"it could not be started (exit code {self.process.wait()})")
        return self.process

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
        except BrokenPipeError:
            raise Lost(_cause(process.wait())) from None
        for line in process.stdout:
            message = read_message(line)
            if isinstance(message, Ended):
                return message
            if isinstance(message, Progress):
                report(Progressed(job, message.phase, message.done, message.total, message.detail))
            elif isinstance(message, Note):
                report(Said(message.text, job))
        raise Lost(_cause(process.wait()))

    def ask_to_stop(self) -> None:
        """Let the running job save its state and leave; asked once only, a second signal would cut it short."""
        if not self.asked and self.process is not None and self.process.poll() is None:
            self.asked = True
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once; what it saved before stands."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

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
        self.process.stdout.close()


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
        CPU threads of each; the runs say so too, as their last bits depend on it.
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
        """Carry out the jobs; see :class:`secli.experiments.engine.Engine`."""
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
                if not stopping.is_set() and (stop() or broken):
                    stopping.set()
                    for worker in workers:
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
            raise SecliError(f"the sweep stopped: no worker process could be started: {broken[0]}")

    def _environment(self, index: int) -> dict[str, str]:
        environment = {"OMP_NUM_THREADS": str(self.threads)}
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
    """Give one worker job after job, until none waits or the sweep stops."""
    while not stopping.is_set():
        try:
            job = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            worker.ensure()
        except Lost as lost:
            if not stopping.is_set():
                broken.append(str(lost))
            return
        began = time.perf_counter()
        tell(Started(job, worker.name))
        try:
            ended = worker.carry_out(job, tell)
        except Lost as lost:
            if stopping.is_set():
                return
            mark_failed(job, str(lost))
            tell(Failed(job, str(lost)))
            continue
        if ended.how == "done":
            tell(Done(job, time.perf_counter() - began))
        elif ended.how == "failed":
            mark_failed(job, ended.reason)
            tell(Failed(job, ended.reason))
        elif not stopping.is_set():
            # somebody else sent the worker a signal: the job stands, to be gone on with
            tell(Said(f"{job.title}: interrupted; the next call goes on with it", job))
            return


def mark_failed(job: SweepJob, reason: str) -> None:
    """Write down in a run that its process could not, that it failed; a finished training stays finished."""
    if not (job.run / RECORD_FILE).is_file():
        return
    record = read_training_record(job.run)
    if record.status in ("running", "interrupted"):
        write_record(job.run / RECORD_FILE, record.model_copy(update={"status": "failed", "reason": reason}))
