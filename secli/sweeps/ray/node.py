"""What happens on a node of a cluster, which need not share a file system with the machine that leads.

A node has a home for each sweep that it helps with, in its temporary directory: the datasets, unpacked once, and the
runs that it works on.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import yaml

from secli.errors import HeldRunError, SecliError, one_line
from secli.provenance import secli_version
from secli.records.kept import CONFIG_FILE
from secli.records.notes import Note
from secli.records.schema import (
    CURVES_FILE,
    RECORD_FILE,
    EquivarianceRecord,
    TrainingRecord,
    read_record,
    write_record,
)
from secli.storage.writing import atomic_directory
from secli.sweeps.engine import Notice, Progressed, SweepEvent
from secli.sweeps.jobs import PATIENCE, SweepJob
from secli.sweeps.local import ASKED_TO_LEAVE, Lost, Worker
from secli.sweeps.messages import Ended, Progress
from secli.sweeps.ray.packing import extract, pack
from secli.sweeps.ray.run_files import Attempt
from secli.training.checkpoint import STATE_FILE
from secli.yaml_files import parse_yaml

BETWEEN_QUESTIONS = 0.5
HOME = "secli-ray-"
ABANDONED = 24 * 3600.0
"""Seconds after which a home that nobody works in is taken for that of a sweep that was killed."""


@dataclass(frozen=True)
class Shipped:
    """A dataset on its way to the nodes: its digest, and a reference to its packed files in the object store."""

    digest: str
    reference: Any


@dataclass(frozen=True)
class Errand:
    """A job with all that a node must know to carry it out.

    Attributes
    ----------
    job
        The run; its paths are those of the machine that leads.
    data, on
        The dataset to train, and the one to measure on.
    session
        Name of the sweep's homes on the nodes.
    version
        Version of secli on the machine that leads.
    """

    job: SweepJob
    data: Shipped
    on: Shipped | None
    session: str
    version: str


def carry_out_here(errand: Errand, run_files: Any) -> Ended:
    """Carry out one job on this node: the task that Ray runs, and runs again when its worker or node is lost.

    Parameters
    ----------
    errand : Errand
        The job.
    run_files : actor handle
        Of :class:`secli.sweeps.ray.run_files.RunFiles`.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    name = f"{platform.node()}/{node[:8]}"
    here = secli_version()
    if here != errand.version:
        reason = f"{name} has secli {here}, the machine that leads {errand.version}: install the same one"
        return Ended(how="failed", reason=reason)
    try:
        begun = _begin(run_files, errand.job.key, name)
        if begun is None:
            return Ended(how="interrupted")
        with (
            home_here(errand.session, node) as home,
            tempfile.TemporaryDirectory(prefix=f"{errand.job.key}-", dir=home) as folder,
        ):
            return _Attempt(errand, run_files, name, begun.number, home, Path(folder)).carry_out(begun.saved)
    except HeldRunError as error:
        return Ended(how="held", reason=remote_reason(error))
    except (SecliError, OSError) as error:
        return Ended(how="failed", reason=remote_reason(error))


def _begin(run_files: Any, key: str, name: str) -> Attempt | None:
    """Begin an attempt; the run_files of a sweep that was killed needs a moment to let go of its runs."""
    import ray

    began = time.monotonic()
    while True:
        try:
            begun: Attempt | None = ray.get(run_files.begin.remote(key, name))
            return begun
        except HeldRunError:
            if time.monotonic() - began > PATIENCE:
                raise
            time.sleep(BETWEEN_QUESTIONS)


_kept: dict[tuple[str | None, ...], Worker] = {}
"""This process's worker, which takes the next job too: loading what it needs takes seconds. It leaves with us."""


def _worker(name: str, threads: int) -> Worker:
    """Return a worker with so many threads and the GPUs that Ray has given to this task."""
    key = (str(threads), os.environ.get("CUDA_VISIBLE_DEVICES"))
    worker = _kept.get(key)
    if worker is None or worker.asked:
        for other in _kept.values():
            other.dismiss()
        _kept.clear()
        worker = _kept[key] = Worker(name, {"OMP_NUM_THREADS": str(threads)} if threads else {})
    return worker


class _Attempt:
    """One attempt at a run on this node, in a directory of its own."""

    def __init__(
        self, errand: Errand, run_files: Any, name: str, number: int, home: Path, folder: Path
    ) -> None:
        import ray

        self.ray, self.run_files, self.number, self.folder = ray, run_files, number, folder
        self.there, self.run = errand.job, folder / "run"
        changes: dict[str, Any] = {"run": self.run, "data": dataset_here(home, errand.data), "trackers": ()}
        if errand.on is not None:
            changes["measured_on"] = dataset_here(home, errand.on)
        self.here = self.there.model_copy(update=changes)
        self.worker = _worker(name, self.there.training.threads)
        self.stopping = threading.Event()
        self.shipped: tuple[float, ...] = ()

    def carry_out(self, saved: bytes | None) -> Ended:
        """Go on from what was saved, ship what comes of it, and say how it ended."""
        if saved is not None:
            with atomic_directory(self.run) as temporary:
                extract(saved, temporary)
            self.shipped = self._stamp()
        with self._listening():
            try:
                ended = self.worker.carry_out(self.here, self._relay)
            except Lost as lost:
                # a signal may come before it is caught; any other death is the run's failure
                asked = self.stopping.is_set() or lost.code in ASKED_TO_LEAVE
                how: Literal["interrupted", "failed"] = "interrupted" if asked else "failed"
                ended = Ended(how=how, reason=str(lost))
        if ended.how == "interrupted" or self.worker.asked:
            self.worker.dismiss()  # it is about to leave
        self._ship()
        return ended.model_copy(update={"reason": self._homeward(ended.reason)})

    def _relay(self, event: SweepEvent) -> None:
        """Hand a message of the worker on, and what it has saved since the last one."""
        if isinstance(event, Progressed):
            message = Progress(phase=event.phase, done=event.done, total=event.total, detail=event.detail)
            if self._stamp() != self.shipped:
                self._ship()
            self.run_files.tell.remote(self.there.key, self.number, ("progress", message.model_dump()))
        elif isinstance(event, Notice):
            text = self._homeward(event.text)
            self.run_files.tell.remote(self.there.key, self.number, ("note", text))

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Ask the worker to stop when the run_files says so, or is gone, while the body runs."""
        over = threading.Event()

        def listen() -> None:
            while not over.wait(BETWEEN_QUESTIONS):
                if not self.stopping.is_set() and self._shall_stop():
                    self.stopping.set()
                if self.stopping.is_set():
                    self.worker.ask_to_stop()  # does nothing as long as there is no process

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _shall_stop(self) -> bool:
        try:
            return bool(self.ray.get(self.run_files.tell.remote(self.there.key, self.number, None)))
        except self.ray.exceptions.RayError:
            return True  # nobody waits for this run

    def _stamp(self) -> tuple[float, ...]:
        """Return what changes whenever there is something new to ship."""
        stamp = []
        for name in (STATE_FILE, RECORD_FILE):
            with contextlib.suppress(FileNotFoundError):
                found = (self.run / name).stat()
                stamp += [found.st_mtime_ns, found.st_ino]
        return tuple(stamp)

    def _ship(self) -> None:
        """Let the run_files have the run as it stands."""
        if (self.run / RECORD_FILE).is_file():
            stamp = self._stamp()
            packed = pack(self.run, named_as(self.here, self.there, self.folder))
            self.ray.get(self.run_files.save.remote(self.there.key, self.number, packed))
            self.shipped = stamp

    def _homeward(self, text: str) -> str:
        """Let a text name the directories of the machine that leads."""
        pairs = ((self.here.run, self.there.run), (self.here.data, self.there.data))
        for here, there in (*pairs, (self.here.measured_on, self.there.measured_on)):
            text = text.replace(str(here), str(there))
        return text


def named_as(here: SweepJob, there: SweepJob, scratch: Path) -> dict[str, bytes]:
    """Return the files of a run that name directories, naming those of another machine, as any other engine would.

    Parameters
    ----------
    here, there : SweepJob
        The same job with the paths of this machine, and with those to be named.
    scratch : Path
        A directory to write in.
    """
    written: dict[str, bytes] = {}

    def renamed(name: str, record: TrainingRecord | EquivarianceRecord) -> None:
        write_record(scratch / name, record)
        written[name] = (scratch / name).read_bytes()

    record = read_record(here.run / RECORD_FILE)
    data = record.data.model_copy(update={"path": str(there.data)})
    reason: Note | None = getattr(record, "reason", None)
    if reason is not None:
        told = {
            name: value.replace(str(here.run), str(there.run)).replace(str(here.data), str(there.data))
            if isinstance(value, str)
            else value
            for name, value in reason.data.items()
        }
        record = record.model_copy(update={"reason": reason.model_copy(update={"data": told})})
    renamed(RECORD_FILE, record.model_copy(update={"data": data}))
    if (here.run / CURVES_FILE).is_file():
        curves = read_record(here.run / CURVES_FILE)
        on = curves.data.model_copy(update={"path": str(there.measured_on)})
        weights: str | None = getattr(curves, "weights", None)
        weights = weights and weights.replace(str(here.run), str(there.run))
        changes = {"data": on, "run": str(there.run), "trained_on": data, "weights": weights}
        renamed(CURVES_FILE, curves.model_copy(update=changes))
    if (here.run / CONFIG_FILE).is_file():
        content = parse_yaml((here.run / CONFIG_FILE).read_text(encoding="utf-8"))
        if isinstance(content, dict):  # whoever reads a damaged one says so
            text = yaml.safe_dump({**content, "data": str(there.data)}, sort_keys=False, allow_unicode=True)
            written[CONFIG_FILE] = text.encode()
    return written


@contextlib.contextmanager
def home_here(session: str, node: str) -> Iterator[Path]:
    """Give this node's home for a sweep (several nodes may share a machine), held while the body runs.

    Homes that sweeps left behind which were killed are cleared away.
    """
    home = Path(tempfile.gettempdir()) / f"{HOME}{session}-{node[:12]}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / ".held").open("w") as file:
        _lock(file, exclusive=False)
        os.utime(home)
        _clear_abandoned()
        yield home


def _clear_abandoned() -> None:
    for home in Path(tempfile.gettempdir()).glob(f"{HOME}*"):
        with contextlib.suppress(OSError):
            if time.time() - home.stat().st_mtime < ABANDONED:
                continue
            with (home / ".held").open("r+") as file:
                if _lock(file, exclusive=True, wait=False):
                    shutil.rmtree(home, ignore_errors=True)


def clear_homes(session: str) -> None:
    """Remove the homes of a sweep on this machine."""
    for home in Path(tempfile.gettempdir()).glob(f"{HOME}{session}-*"):
        shutil.rmtree(home, ignore_errors=True)


def _lock(file: IO[str], exclusive: bool, wait: bool = True) -> bool:
    """Lock a file until it is closed, alone or together with others; say whether it worked."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        return False
    with contextlib.suppress(OSError):
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
        return True
    return False


def dataset_here(home: Path, shipped: Shipped) -> Path:
    """Return a dataset's directory on this node; the first run that needs it fetches and unpacks it.

    Raises
    ------
    InputError, OSError
        When it cannot be unpacked.
    """
    import ray

    path = home / "data" / shipped.digest
    path.parent.mkdir(exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        _lock(file, exclusive=True)
        if not path.exists():
            with atomic_directory(path) as temporary:
                extract(ray.get(shipped.reference), temporary)
    return path


def remote_reason(error: BaseException) -> str:
    """Return what went wrong; what happened on another machine is told as if it had happened here."""
    cause = getattr(error, "cause", None)
    told = cause if isinstance(cause, BaseException) else error
    return one_line(told)
