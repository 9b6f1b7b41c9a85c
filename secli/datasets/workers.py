"""Worker processes that rescale images in parallel; they hold no state, touch no file, and die with their parent."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

import numpy as np

import secli
from secli.datasets.rescaling import rescale
from secli.errors import SecliError

CHUNK = 2_000  # images per message: some milliseconds of transport to a tenth of a second of work
COMMAND = "from secli.datasets.worker import main; main()"


@runtime_checkable
class Batch(Protocol):
    """A batch of images that will be rescaled."""

    def result(self) -> np.ndarray:
        """Wait for the rescaled images and return them."""
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

    def rescale(self, images: np.ndarray, factors: np.ndarray) -> Batch:
        """Hand a batch to the next idle worker."""
        return self._threads.submit(self._ask, images, factors)

    def _ask(self, images: np.ndarray, factors: np.ndarray) -> np.ndarray:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((images, factors), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            rescaled: np.ndarray = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise SecliError(f"a worker process died: {_last_words(process)}; try --jobs 1") from None
        finally:
            self._idle.put(process)  # a dead one too, so that no thread waits for ever
        return rescaled

    def stop(self) -> None:
        """Kill the workers; unfinished batches fail."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        self._threads.shutdown(wait=True)
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                _close(stream)


class InProcess:
    """The same face without processes, for little work."""

    def rescale(self, images: np.ndarray, factors: np.ndarray) -> Batch:
        """Keep a batch until its result is asked for."""
        return Later(images, factors)


@dataclass(frozen=True, eq=False)
class Later:
    """A batch that is rescaled when its result is asked for."""

    images: np.ndarray
    factors: np.ndarray

    def result(self) -> np.ndarray:
        """Rescale the batch now."""
        return rescale(self.images, self.factors)


@contextmanager
def workers(count: int) -> Iterator[Workers | InProcess]:
    """Give ``count`` workers, and end them in every case; one is this process itself."""
    if count < 2:
        yield InProcess()
        return
    pool = Workers(count)
    try:
        yield pool
    finally:
        pool.stop()


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=Path(next(iter(secli.__path__))).parent,
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
