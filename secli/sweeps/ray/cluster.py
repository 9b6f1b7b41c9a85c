"""The Ray engine: runs on the nodes of a cluster, which need not share a file system.

The sweep's directory lies where the command was given. A run_files there hands a run's saved state to whichever node
takes the run, and receives it back after every epoch; so a run whose worker or node is lost goes on elsewhere from
the last epoch that was saved. A dataset travels once to each node, and leaves the cluster's memory when no run that is
left needs it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from secli.datasets.worker_command import package_home
from secli.errors import InputError, SecliError
from secli.provenance import secli_version
from secli.sweeps.engine import Done, Failed, Left, Notice, Progressed, Started, SweepReport
from secli.sweeps.gpu_sharing import gpu_share, step_bytes
from secli.sweeps.jobs import SweepJob
from secli.sweeps.local import TO_SAVE
from secli.sweeps.messages import Ended, Progress
from secli.sweeps.ray.node import Errand, Shipped, carry_out_here, clear_homes, remote_reason
from secli.sweeps.ray.packing import pack
from secli.sweeps.ray.run_files import RunFiles
from secli.sweeps.tracker_replay import replay
from secli.training.devices import cores
from secli.training.events import Remark

RETRIES = 5
"""How often a run whose worker or node was lost is begun again."""
BETWEEN_QUESTIONS = 0.5
TO_ANSWER = 5.0
"""Seconds that a cluster is given to answer at its address."""
BETWEEN_LOOKS = 10.0
"""Seconds between two looks at whether any node is left that has room."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "5",
}
"""What Ray must be told before it is imported, to send nothing away, to print nothing, and not to wait for long."""


CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Whether Ray's processes may be reached from other machines, on any system."""


def _ray() -> Any:
    """Import Ray, or say how to install it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError(
            "--engine ray: Ray is not installed; install it with: pip install 'secli[ray]'"
        ) from None
    return ray


def check_address(address: str) -> None:
    """Refuse an address at which no cluster can be.

    Raises
    ------
    InputError
        When it is no address, or nothing answers there.
    """
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(
            f"--address {address}: write auto, or HOST:PORT of the node that was started with --head"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), TO_ANSWER).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"--address {address}: no Ray cluster answers there ({reason})") from None


class RayEngine:
    """Runs on a Ray cluster.

    Parameters
    ----------
    address : str, optional
        ``auto`` (the cluster that this machine belongs to), ``HOST:PORT``, or None: one on this machine alone, for
        as long as the sweep takes.
    jobs : int, optional
        At most so many runs at once; None: as many as there are cores and GPUs for.
    threads : int
        CPU threads of the runs, 0: all of a node; only :attr:`slots` looks at it.

    Raises
    ------
    InputError
        When Ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, address: str | None = None, jobs: int | None = None, threads: int = 1) -> None:
        self.ray = _ray()
        self.address, self.jobs, self.threads = address, jobs, threads
        self.cores = cores()
        if address is not None:
            with self._connected():
                self.cores = int(self.ray.cluster_resources().get("CPU", 0))

    @property
    def slots(self) -> int:
        """How many jobs it carries out at once, as far as the cores decide."""
        return self.jobs or max(1, self.cores // (self.threads or self.cores or 1))

    def run(self, jobs: Sequence[SweepJob], report: SweepReport, stop: Callable[[], bool]) -> None:
        """Carry out the jobs; see :class:`secli.sweeps.engine.Engine`."""
        with self._connected(max((job.training.threads for job in jobs), default=1)):
            leader = _Leader(self.ray, jobs, self.jobs, report)
            try:
                leader.lead(stop)
            except self.ray.exceptions.RayActorError:
                raise SecliError(
                    "the sweep stopped: the Ray cluster is gone; repeat the command to go on"
                ) from None
            finally:
                leader.leave()
        clear_homes(leader.session)

    @contextlib.contextmanager
    def _connected(self, threads: int = 1) -> Iterator[None]:
        """Be connected to the cluster while the body runs; a connection that stood before is kept."""
        if self.ray.is_initialized():
            yield
            return
        if self.address is not None:
            check_address(self.address)
        here = {"num_cpus": max(self.cores, threads * (self.jobs or 1)), "include_dashboard": False}
        alone = _on_loopback() if self.address is None else contextlib.nullcontext()
        with alone, _own_signals(), _away_from_the_working_directory():
            try:
                self.ray.init(
                    address=self.address or "local",
                    log_to_driver=False,
                    logging_level="critical",
                    **({} if self.address else here),
                )
            except Exception as error:  # a node that does not start in time is no more than that to Ray
                self.ray.shutdown()
                kind = SecliError if self.address is None else InputError
                raise kind(self._unreachable(error)) from None
        try:
            yield
        finally:
            self.ray.shutdown()

    def _unreachable(self, error: Exception) -> str:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if self.address is None:
            return f"--engine ray: no Ray could be started on this machine: {reason}"
        return (
            f"--address {self.address}: not to be reached from here ({reason}); this machine must belong to the "
            "cluster: ray start --address=HOST:PORT, then --address auto"
        )


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started while the body runs listen on the loopback address alone.

    Given as ``_node_ip_address``, Ray would replace that address by one that others can reach. It leaves it where
    clusters are switched off, as they are by default on macOS and Windows.
    """
    from ray._private import ray_constants

    before, known = os.environ.get(CLUSTERS), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[CLUSTERS] = "0"  # read by its processes
    ray_constants.ENABLE_RAY_CLUSTER = False  # read by this one
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known
        del os.environ[CLUSTERS]
        if before is not None:
            os.environ[CLUSTERS] = before


@contextlib.contextmanager
def _away_from_the_working_directory() -> Iterator[None]:
    """Stand where this package lies while Ray is started or joined.

    Ray puts the directory that it is started in before all others that its workers, on every node, import from.
    """
    here = Path.cwd()
    os.chdir(package_home())
    try:
        yield
    finally:
        os.chdir(here)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's signal handlers: Ray puts its own in their place, which would end a sweep unsaved."""
    try:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: Ray could not set any either
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)


class _Leader:
    """Leads the jobs of one call."""

    def __init__(self, ray: Any, jobs: Sequence[SweepJob], at_once: int | None, report: SweepReport) -> None:
        self.ray, self.at_once, self.report = ray, at_once, report
        self.by_key = {job.key: job for job in jobs}
        self.waiting, self.running = list(jobs), dict[Any, SweepJob]()
        self.session, self.version = uuid.uuid4().hex[:12], secli_version()
        self.shipped: dict[Path, Shipped] = {}
        self.needed = Counter(path for job in jobs for path in _data_paths(job))
        self.interrupted: Counter[str] = Counter()
        self.shares: dict[str, float] = {}
        self._check_cores(jobs)
        self.gpu_memory = self._smallest_gpu()
        here = ray.get_runtime_context().get_node_id()
        paths = {key: str(job.run.resolve()) for key, job in self.by_key.items()}
        self.run_files = ray.remote(RunFiles).options(num_cpus=0, **self._on(here)).remote(paths)
        self.looked, self.said = time.monotonic(), False

    def lead(self, stop: Callable[[], bool]) -> None:
        """Carry out the jobs; on request let those that run save their state, and return."""
        patience: float | None = None
        while self.waiting or self.running:
            if patience is None and stop():
                patience = time.monotonic() + TO_SAVE
                self.waiting.clear()
                self.ray.get(self.run_files.stop.remote())
            if patience is not None and time.monotonic() > patience:
                return
            while self.waiting and len(self.running) < self._room():
                self._submit(self.waiting.pop(0))
            if not self.running:
                return
            ready, _ = self.ray.wait(list(self.running), timeout=BETWEEN_QUESTIONS)
            self._hand_on(self.ray.get(self.run_files.drain.remote()))
            for reference in ready:
                self._close(reference, self.running.pop(reference), stopping=patience is not None)
            self._look_for_room()

    def leave(self) -> None:
        """End what is still running, and leave nothing behind on the nodes that are left."""
        with contextlib.suppress(Exception):  # the cluster may be gone: then there is nothing to tidy up
            for reference in self.running:
                self.ray.cancel(reference, force=True)
            self.ray.kill(self.run_files)
            clear = self.ray.remote(clear_homes)
            cleared = [
                clear.options(num_cpus=0, max_retries=0, **self._on(node["NodeID"])).remote(self.session)
                for node in self._nodes()
            ]
            self.ray.wait(cleared, num_returns=len(cleared), timeout=2 * TO_ANSWER)

    # ---- the cluster

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _on(self, node: str) -> dict[str, Any]:
        """Return the option that ties a task to a node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}

    def _largest(self) -> int:
        return max((int(node["Resources"].get("CPU", 0)) for node in self._nodes()), default=0)

    def _check_cores(self, jobs: Sequence[SweepJob]) -> None:
        """Refuse jobs that would wait for ever for a node that is large enough."""
        most, largest = max((job.training.threads for job in jobs), default=0), self._largest()
        if most > largest:
            raise InputError(
                f"threads {most}: no node of the Ray cluster has so many cores (the largest: {largest})"
            )

    def _room(self) -> int:
        """Return how many jobs are handed to Ray: a few more than run, so that a node never waits for work."""
        return self.at_once or 2 * max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def _look_for_room(self) -> None:
        """Say once when the nodes that are left are too small for a job."""
        if self.said or time.monotonic() - self.looked < BETWEEN_LOOKS:
            return
        self.looked = time.monotonic()
        most = max((job.training.threads for job in self.running.values()), default=0)
        if most > self._largest():
            self.said = True
            self.report(
                Notice(f"runs of {most} threads wait until a node with so many cores joins the cluster")
            )

    def _smallest_gpu(self) -> int | None:
        """Return the memory of the cluster's smallest GPU; None where it has none."""
        nodes = [node["NodeID"] for node in self._nodes() if node["Resources"].get("GPU", 0) > 0]
        ask = self.ray.remote(_gpu_memory)
        asked = [ask.options(num_cpus=0, num_gpus=0.01, **self._on(node)).remote() for node in nodes]
        return min(self.ray.get(asked), default=None)

    # ---- jobs

    def _submit(self, job: SweepJob) -> None:
        options: dict[str, Any] = {
            "num_cpus": job.training.threads or self._largest(),
            "max_retries": RETRIES,
        }
        if self.gpu_memory is not None and job.training.device in ("auto", "cuda"):
            kind = f"{job.model.model_dump_json()} {job.training.batch}"
            if kind not in self.shares:
                self.shares[kind] = gpu_share(step_bytes(job), self.gpu_memory)
            options["num_gpus"] = self.shares[kind]
        on = None if job.measured_on is None else self._ship(job.measured_on)
        errand = Errand(job, self._ship(job.data), on, self.session, self.version)
        self.running[self.ray.remote(carry_out_here).options(**options).remote(errand, self.run_files)] = job

    def _ship(self, path: Path) -> Shipped:
        """Put a dataset into the cluster's object store, once."""
        from secli.datasets.store import open_dataset

        if path not in self.shipped:
            self.shipped[path] = Shipped(open_dataset(path).digest[:24], self.ray.put(pack(path)))
        return self.shipped[path]

    def _close(self, reference: Any, job: SweepJob, stopping: bool) -> None:
        """Report how a job ended; one that somebody else interrupted is begun again."""
        try:
            ended: Ended = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            ended = Ended(how="failed", reason=remote_reason(error))
        except self.ray.exceptions.RayError as error:
            ended = Ended(
                how="failed", reason=f"its worker was lost {RETRIES + 1} times: {remote_reason(error)}"
            )
        self.ray.get(self.run_files.release.remote(job.key))
        if ended.how == "interrupted" and not stopping:
            self.interrupted[job.key] += 1
            if self.interrupted[job.key] <= RETRIES:
                self.waiting.insert(0, job)
                return
        for path in _data_paths(job):
            self.needed[path] -= 1
            if not self.needed[path]:
                self.shipped.pop(path, None)
        if ended.how == "done":
            replay(
                job, lambda event: self.report(Notice(event.text, job)) if isinstance(event, Remark) else None
            )
            self.report(Done(job, ended.seconds))
        elif ended.how == "failed":
            self.report(Failed(job, ended.reason))
        else:
            self.report(Left(job, "interrupted" if ended.how == "interrupted" else ended.reason))

    def _hand_on(self, events: Sequence[tuple[str, Any]]) -> None:
        """Turn what the run_files was told into events."""
        for key, (kind, *content) in events:
            job = self.by_key[key]
            if kind == "started":
                self.report(Started(job, content[0], content[1]))
            elif kind == "progress":
                message = Progress.model_validate(content[0])
                self.report(Progressed(job, message.phase, message.done, message.total, message.detail))
            elif kind == "note":
                self.report(Notice(content[0], job))


def _data_paths(job: SweepJob) -> set[Path]:
    return {path for path in (job.data, job.measured_on) if path is not None}


def _gpu_memory() -> int:
    import torch

    return torch.cuda.get_device_properties(0).total_memory
