"""The Ray engine: runs on the nodes of a cluster, which need not share a file system.

The sweep's directory lies where the command was given. A *keeper* there hands a run's saved state to whichever node
takes the run, and receives it back after every epoch; so a run whose worker or node is lost goes on elsewhere from
the last epoch that was saved. Datasets travel once to each node.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from secli.errors import InputError, SecliError
from secli.experiments.engine import Done, Failed, Progressed, Said, Started, SweepEvent, SweepReport
from secli.experiments.jobs import SweepJob
from secli.experiments.local import Lost, Worker, mark_failed
from secli.experiments.packing import extract, pack, unpack
from secli.experiments.wire import Ended, Note, Progress
from secli.records import CURVES_FILE, RECORD_FILE, atomic_directory, read_record, write_record

RETRIES = 5
"""How often a run whose worker or node was lost is begun again."""
BETWEEN_QUESTIONS = 0.5
GPU_OVERHEAD = 600 * 2**20
"""Bytes that a process takes on a GPU before it computes anything."""


def gpu_share(memory: float, total: float) -> float:
    """Return the fraction of a GPU that a run needs, for its memory in bytes; at least a tenth.

    Examples
    --------
    >>> gpu_share(2**30, 80 * 2**30)
    0.1
    >>> gpu_share(30 * 2**30, 80 * 2**30)
    0.39
    """
    return min(1.0, max(0.1, math.ceil((memory + GPU_OVERHEAD) / total * 100) / 100))


def _ray() -> Any:
    """Import Ray, or say how to install it."""
    try:
        import ray
    except ImportError:
        raise InputError(
            "--engine ray: Ray is not installed; install it with: pip install 'secli[ray]'"
        ) from None
    return ray


class Keeper:
    """Keeps the runs of a sweep, on the machine where its directory lies; an actor of the cluster.

    Parameters
    ----------
    runs : mapping
        Key of each job to its run directory.
    """

    def __init__(self, runs: Mapping[str, str]) -> None:
        self.runs = {key: Path(run) for key, run in runs.items()}
        self.events: list[tuple[str, Any]] = []
        self.attempts: dict[str, int] = {}
        self.stopping = False

    def begin(self, key: str, worker: str) -> bytes | None:
        """Return the saved state of a run that is about to be carried out; None where there is none."""
        self.attempts[key] = self.attempts.get(key, 0) + 1
        self.events.append((key, ("started", worker, self.attempts[key])))
        run = self.runs[key]
        return pack(run) if (run / RECORD_FILE).is_file() else None

    def save(self, key: str, attempt_of: int, content: bytes) -> None:
        """Take back a run's directory; of an attempt that was given up for lost, nothing is taken."""
        if attempt_of == self.attempts.get(key):
            unpack(content, self.runs[key])

    def attempt(self, key: str) -> int:
        """Return which attempt at a run is the present one."""
        return self.attempts[key]

    def tell(self, key: str, message: Any) -> bool:
        """Take a message of a running job; say whether the job shall stop."""
        if message is not None:
            self.events.append((key, message))
        return self.stopping

    def drain(self) -> list[tuple[str, Any]]:
        """Return what has been told since the last call."""
        events, self.events = self.events, []
        return events

    def stop(self) -> None:
        """Let all running jobs save their state and return."""
        self.stopping = True


def _node_home(session: str) -> Path:
    """Return a directory of this node for this session (several nodes may share a machine)."""
    node = _ray().get_runtime_context().get_node_id()
    home = Path(tempfile.gettempdir()) / f"secli-ray-{session}-{node[:12]}"
    home.mkdir(parents=True, exist_ok=True)
    return home


def _dataset_here(home: Path, digest: str, reference: Any) -> Path:
    """Return the dataset's directory on this node; the first run that needs it here unpacks it."""
    place = home / "data" / digest
    if not place.exists():
        content = _ray().get(reference)
        # another run may be unpacking it at the same time: whoever is first wins, and the files are the same
        with contextlib.suppress(InputError, OSError), atomic_directory(place) as temporary:
            extract(content, temporary)
        if not place.exists():
            raise SecliError(f"{place}: the dataset could not be unpacked on this node")
    return place


def carry_out_here(
    job: SweepJob, data: tuple[str, list[Any]], on: tuple[str, list[Any]] | None, keeper: Any, session: str
) -> Ended:
    """Carry out one job on this node: the task that Ray runs, and runs again when its node is lost.

    Parameters
    ----------
    job : SweepJob
        The run, its paths those of the machine that leads.
    data, on : tuple
        Digest of the dataset to train, or to measure on, and a reference to its packed files (in a list, so that
        Ray does not fetch it where it is not needed).
    keeper : actor handle
        Of :class:`Keeper`.
    session : str
        Name of this call's directories on the nodes.
    """
    ray = _ray()
    home = _node_home(session)
    name = f"{os.uname().nodename}:{os.getpid()}"
    saved = ray.get(keeper.begin.remote(job.key, name))
    attempt = ray.get(keeper.attempt.remote(job.key))
    run = home / f"{job.key}-{attempt}"
    if saved is not None:
        unpack(saved, run)
    changes: dict[str, Any] = {"run": run, "data": _dataset_here(home, data[0], data[1][0])}
    if on is not None:
        changes["measured_on"] = _dataset_here(home, on[0], on[1][0])
    here = job.model_copy(update=changes)
    worker = Worker(name, {"OMP_NUM_THREADS": str(job.training.threads)})

    def ship() -> None:
        if (run / RECORD_FILE).is_file():
            ray.get(keeper.save.remote(job.key, attempt, pack(run)))

    def relay(event: SweepEvent) -> None:
        if isinstance(event, Progressed):
            message = Progress(phase=event.phase, done=event.done, total=event.total, detail=event.detail)
            keeper.tell.remote(job.key, ("progress", message.model_dump()))
            if event.phase == "training" and event.done == int(event.done) and event.detail:
                ship()
        elif isinstance(event, Said):
            keeper.tell.remote(job.key, ("note", event.text))

    with _stoppable(worker, keeper, job.key):
        try:
            ended = worker.carry_out(here, relay)
        except Lost as lost:
            mark_failed(here, str(lost))
            ended = Ended(how="failed", reason=str(lost))
        finally:
            worker.dismiss()
    if ended.how == "failed":
        mark_failed(here, ended.reason)
    _restore_paths(here, job)
    ship()
    return ended


@contextlib.contextmanager
def _stoppable(worker: Worker, keeper: Any, key: str) -> Iterator[None]:
    """Ask the worker to stop when the keeper says so, while the body runs."""
    over = threading.Event()

    def listen() -> None:
        while not over.wait(BETWEEN_QUESTIONS):
            if _ray().get(keeper.tell.remote(key, None)):
                worker.ask_to_stop()
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _restore_paths(here: SweepJob, there: SweepJob) -> None:
    """Let the records name the directories of the machine that leads, as those of any other engine do."""
    if (here.run / RECORD_FILE).is_file():
        record = read_record(here.run / RECORD_FILE)
        data = record.data.model_copy(update={"path": str(there.data)})
        write_record(here.run / RECORD_FILE, record.model_copy(update={"data": data}))
        trained_on = data
        if (here.run / CURVES_FILE).is_file():
            curves = read_record(here.run / CURVES_FILE)
            on = curves.data.model_copy(update={"path": str(there.measured_on)})
            changes = {"data": on, "run": str(there.run), "trained_on": trained_on}
            write_record(here.run / CURVES_FILE, curves.model_copy(update=changes))
        config = here.run / "config.yaml"
        if config.is_file():
            text = config.read_text(encoding="utf-8")
            config.write_text(text.replace(str(here.data), str(there.data)), encoding="utf-8")


class RayEngine:
    """Runs on a Ray cluster.

    Parameters
    ----------
    address : str, optional
        ``auto`` (the cluster that this machine belongs to), ``HOST:PORT``, or None: one on this machine alone.
    jobs : int, optional
        At most so many runs at once; None: as many as there are cores and GPUs for.
    memory : mapping, optional
        Key of each job to the bytes that it needs on a GPU; by it a GPU is shared.

    Raises
    ------
    InputError
        When Ray is not installed.
    """

    def __init__(self, address: str | None = None, jobs: int | None = None) -> None:
        self.ray = _ray()
        self.address, self.jobs = address, jobs

    @property
    def slots(self) -> int:
        """How many jobs it carries out at once, with one core each."""
        if self.jobs is not None:
            return self.jobs
        with self._connected():
            return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Be connected to the cluster while the body runs; a connection that stood before is kept."""
        if self.ray.is_initialized():
            yield
            return
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            self.ray.init(
                address=self.address or "local",
                include_dashboard=False if self.address is None else None,
                log_to_driver=False,
                logging_level="error",
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"--address {self.address}: no Ray cluster answers there ({reason})") from None
        try:
            yield
        finally:
            self.ray.shutdown()

    def run(self, jobs: Sequence[SweepJob], report: SweepReport, stop: Callable[[], bool]) -> None:
        """Carry out the jobs; see :class:`secli.experiments.engine.Engine`."""
        with self._connected():
            self._lead(jobs, report, stop)

    def _lead(self, jobs: Sequence[SweepJob], report: SweepReport, stop: Callable[[], bool]) -> None:
        ray = self.ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        by_key = {job.key: job for job in jobs}
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        keeper = (
            ray.remote(Keeper)
            .options(num_cpus=0, scheduling_strategy=beside)
            .remote({key: str(job.run.resolve()) for key, job in by_key.items()})
        )
        session = f"{os.getpid()}-{int(time.time())}"
        packed = self._packed(jobs)
        waiting, running = list(jobs), dict[Any, SweepJob]()
        stopped = False
        try:
            while waiting or running:
                if stop() and not stopped:
                    stopped = True
                    ray.get(keeper.stop.remote())
                while waiting and not stopped and len(running) < (self.jobs or len(jobs)):
                    job = waiting.pop(0)
                    running[self._submit(job, packed, keeper, session)] = job
                if not running:
                    break
                ready, _ = ray.wait(list(running), timeout=BETWEEN_QUESTIONS)
                _hand_on(ray.get(keeper.drain.remote()), by_key, report)
                for reference in ready:
                    self._close(reference, running.pop(reference), report)
        except ray.exceptions.RayActorError:
            raise SecliError(
                "the sweep stopped: the Ray cluster is gone; repeat the command to go on"
            ) from None

    def _packed(self, jobs: Sequence[SweepJob]) -> dict[Path, tuple[str, list[Any]]]:
        """Put every dataset into the cluster's object store, once."""
        from secli.datasets.store import open_dataset

        places = {place for job in jobs for place in (job.data, job.measured_on) if place is not None}
        return {
            place: (open_dataset(place).digest[:24], [self.ray.put(pack(place))]) for place in sorted(places)
        }

    def _submit(
        self, job: SweepJob, packed: Mapping[Path, tuple[str, list[Any]]], keeper: Any, session: str
    ) -> Any:
        options: dict[str, Any] = {"num_cpus": job.training.threads, "max_retries": RETRIES}
        if self.ray.cluster_resources().get("GPU", 0) and job.training.device in ("auto", "cuda"):
            options["num_gpus"] = self._share(job)
        on = None if job.measured_on is None else packed[job.measured_on]
        task = self.ray.remote(carry_out_here).options(**options)
        return task.remote(job, packed[job.data], on, keeper, session)

    def _share(self, job: SweepJob) -> float:
        """Return the fraction of a GPU for a job, from the memory of one of its steps."""
        from secli.experiments.estimate import step_memory

        total = self.ray.get(self.ray.remote(num_gpus=0.01)(_gpu_memory).remote())
        return gpu_share(step_memory(job.model, job.training), total)

    def _close(self, reference: Any, job: SweepJob, report: SweepReport) -> None:
        """Report how a job ended."""
        try:
            ended: Ended = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            reason = f"its worker was lost {RETRIES + 1} times: {str(error).strip().splitlines()[0]}"
            mark_failed(job, reason)
            report(Failed(job, reason))
            return
        if ended.how == "done":
            report(Done(job, ended.seconds))
        elif ended.how == "failed":
            report(Failed(job, ended.reason))


def _gpu_memory() -> int:
    import torch

    return torch.cuda.get_device_properties(0).total_memory


def _hand_on(events: Sequence[tuple[str, Any]], jobs: Mapping[str, SweepJob], report: SweepReport) -> None:
    """Turn what the keeper was told into events."""
    for key, (kind, *content) in events:
        job = jobs[key]
        if kind == "started":
            report(Started(job, content[0], content[1]))
        elif kind == "progress":
            message = Progress.model_validate(content[0])
            report(Progressed(job, message.phase, message.done, message.total, message.detail))
        elif kind == "note":
            report(Said(Note(text=content[0]).text, job))
