"""Worker processes that change or encode images; they hold no state, touch no file, and die with their parent."""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from secli.datasets.worker import TASKS
from secli.datasets.worker_command import START, package_home, worker_command
from secli.errors import SecliError
from secli.signals import at_end

CHUNK = 2_000  # images per message: some milliseconds of transport to a tenth of a second of work
MODULE = "secli.datasets.worker"


T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Batch(Protocol[T_co]):
    """A batch of images in work."""

    def result(self) -> T_co:
        """Wait for the result and return it."""
        ...


class Workers:
    """A fixed number of worker processes, fed by as many threads.

    Processes of our own rather than ``multiprocessing``: that one imports the caller's main module again in
    every worker (which fails in scripts without a main guard), or forks a process that may hold threads.
    """

    def __init__(self, count: int) -> None:
        self._processes = [_start() for _ in range(count)]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(count)
        self._end_with_us = at_end(self._kill)

    def transform(self, function: str, images: np.ndarray, numbers: np.ndarray) -> Batch[np.ndarray]:
        """Submit a batch to the next idle worker, to be changed by the function of a transform."""
        return self._threads.submit(self._ask, "transform", function, images, numbers)

    def png(self, images: np.ndarray) -> Batch[list[bytes]]:
        """Submit a batch to the next idle worker, to be encoded."""
        return self._threads.submit(self._ask, "png", images)

    def _ask(self, task: str, *arguments: object) -> Any:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((task, arguments), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            answer = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise SecliError(f"a worker process died: {_last_words(process)}; try --jobs 1") from None
        finally:
            self._idle.put(process)  # a dead one too, so that no thread waits for ever
        return answer

    def stop(self) -> None:
        """Kill the workers; unfinished batches fail."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._kill()
        self._end_with_us()
        self._threads.shutdown(wait=True)
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                _close(stream)

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()


class InProcess:
    """The same interface without processes, for little work."""

    def transform(self, function: str, images: np.ndarray, numbers: np.ndarray) -> Batch[np.ndarray]:
        """Return a batch that is changed when its result is read."""
        return Later("transform", (function, images, numbers))

    def png(self, images: np.ndarray) -> Batch[list[bytes]]:
        """Return a batch that is encoded when its result is read."""
        return Later("png", (images,))


@dataclass(frozen=True, eq=False)
class Later:
    """A batch that is worked on when its result is read."""

    task: str
    arguments: tuple[object, ...]

    def result(self) -> Any:
        """Do the work now."""
        return TASKS[self.task](*self.arguments)


@contextmanager
def workers(count: int) -> Iterator[Workers | InProcess]:
    """Yield ``count`` workers, and end them in every case; one is this process itself."""
    if count < 2:
        yield InProcess()
        return
    pool = Workers(count)
    try:
        yield pool
    finally:
        pool.stop()


def _start() -> subprocess.Popen[bytes]:
    here = str(Path.cwd())
    paths = [path for path in sys.path if path not in ("", here)]
    return subprocess.Popen(
        worker_command(MODULE, paths, START),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=package_home(),
    )


def _last_words(process: subprocess.Popen[bytes]) -> str:
    process.kill()
    code = process.wait()
    assert process.stderr is not None
    lines = process.stderr.read().decode(errors="replace").strip().splitlines()
    if lines:
        return lines[-1]
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):  # unsent bytes of a killed worker
            stream.close()
