"""The Ray engine, on a cluster of two nodes on this machine."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from secli.datasets.worker_command import package_home
from secli.errors import InputError, SecliError
from secli.sweeps.engine import Done, Failed, Left, Progressed, Started, SweepEvent
from secli.sweeps.gpu_sharing import gpu_share, step_bytes
from secli.sweeps.jobs import SweepJob, standing
from secli.sweeps.local import LocalEngine
from secli.sweeps.ray.cluster import CLUSTERS, RayEngine, check_address
from secli.sweeps.ray.node import HOME
from secli.sweeps.scheduler import run_jobs
from tests.sweeps.alike import assert_alike

ray = pytest.importorskip("ray")

# Ray leaves its log files and sockets to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
]
SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
QUICK_TO_MISS_A_NODE = {"health_check_initial_delay_ms": 0, "health_check_failure_threshold": 5}
EPOCHS = 40
"""So many that a node can be taken away in the middle; they are short."""

Jobs = Callable[..., list[SweepJob]]


def test_on_one_machine_ray_is_told_to_listen_on_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its processes read is set while they are started, and only then."""
    from ray._private import ray_constants, services

    seen: list[tuple[str | None, str]] = []

    def init(**options: Any) -> None:
        assert options["address"] == "local"
        seen.append((os.environ.get(CLUSTERS), str(services.get_node_ip_address())))  # type: ignore[no-untyped-call]

    engine = RayEngine()
    monkeypatch.delenv(CLUSTERS, raising=False)
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr(engine.ray, "init", init)
    monkeypatch.setattr(engine.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(engine.ray, "shutdown", lambda: None)
    with engine._connected():
        assert seen == [("0", "127.0.0.1")]
    assert CLUSTERS not in os.environ
    assert ray_constants.ENABLE_RAY_CLUSTER is True


def test_ray_is_not_started_in_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its workers, on every node, would import from there before all else."""
    seen: list[Path] = []
    engine = RayEngine()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine.ray, "init", lambda **_: seen.append(Path.cwd()))
    monkeypatch.setattr(engine.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(engine.ray, "shutdown", lambda: None)
    with engine._connected():
        assert Path.cwd() == tmp_path
    assert seen == [Path(package_home())]


def test_a_ray_that_does_not_start_in_time_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup.\nPerhaps the machine is busy.")

    engine = RayEngine()
    monkeypatch.setattr(engine.ray, "init", init)
    monkeypatch.setattr(engine.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(engine.ray, "shutdown", lambda: None)
    with (
        pytest.raises(SecliError, match=r"no Ray could be started on this machine: .* startup\.$") as caught,
        engine._connected(),
    ):
        pass
    assert caught.value.exit_code == 1


@pytest.mark.slow
def test_a_local_ray_listens_on_loopback_alone(tmp_path: Path) -> None:
    if shutil.which("ss") is None:
        pytest.skip("needs ss")
    code = (
        "import subprocess, time\n"
        "from secli.sweeps.ray.cluster import RayEngine\n"
        "with RayEngine()._connected():\n"
        "    time.sleep(20)\n"
        "    print(subprocess.run(['ss', '-ltnpH'], capture_output=True, text=True).stdout)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listening = [
        line.split()[3] for line in done.stdout.splitlines() if re.search("gcs_server|raylet|ray::", line)
    ]
    assert listening
    assert [each for each in listening if not re.match(r"127\.|\[::1\]|\[::ffff:127\.", each)] == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a core each; the second may be removed by the test that comes last."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(True, head_node_args={**SMALL, "_system_config": QUICK_TO_MISS_A_NODE})
    cluster.second = cluster.add_node(**SMALL)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def two_and_a_bad_one(jobs: Jobs, out: Path) -> list[SweepJob]:
    """Return three jobs, the last of which fails."""
    training = {"epochs": EPOCHS, "batch": 4, "device": "cpu", "milestones": []}
    data = [{"name": "digits-scale", "sizes": [64, 20, 30], "realisations": "0-2"}]
    *good, bad = jobs(out, training=training, datasets=data, measure={"factors": [1, 0.5], "images": 10})
    return [*good, bad.model_copy(update={"training": bad.training.model_copy(update={"lr": 1e30})})]


def homes() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{HOME}*"))


def never() -> bool:
    return False


@pytest.mark.slow
def test_a_stopped_sweep_brings_its_state_home_and_goes_on_without_its_node(
    jobs: Jobs, tmp_path: Path, cluster: Any
) -> None:
    """Stop in the middle; go on; lose a node; the records are those of an undisturbed local sweep.

    One of the runs fails, and it alone.
    """
    before = homes()
    engine = RayEngine(cluster.address)
    assert engine.slots == 2
    *good, bad = mine = two_and_a_bad_one(jobs, tmp_path / "ray")
    stopping = threading.Event()
    events: list[SweepEvent] = []

    def until_an_epoch(event: SweepEvent) -> None:
        events.append(event)
        if isinstance(event, Progressed) and event.done >= 1:
            stopping.set()

    outcome = run_jobs(good, engine, until_an_epoch, stopping.is_set)
    assert not outcome.failed
    assert outcome.left, "nothing was left to go on with: train for longer"
    assert any(isinstance(event, Left) for event in events)
    assert "interrupted" in {standing(job).state for job in good}
    assert homes() == before

    events.clear()
    saved: dict[str, list[str]] = {}
    lost: list[SweepJob] = []
    where: dict[str, str] = {}

    def then_lose_a_node(event: SweepEvent) -> None:
        events.append(event)
        if isinstance(event, Started):
            where[event.job.key] = event.worker
        on_its_way = isinstance(event, Progressed) and 3 <= event.done <= EPOCHS - 10
        if isinstance(event, Progressed) and on_its_way and not lost:
            if not where[event.job.key].endswith(cluster.second.node_id[:8]):
                return
            cluster.remove_node(cluster.second, allow_graceful=False)
            lost.append(event.job)
            saved[event.job.key] = (event.job.run / "metrics.jsonl").read_text().splitlines()

    outcome = run_jobs(mine, engine, then_lose_a_node, never)
    assert not outcome.left
    assert outcome.finished == good
    assert outcome.failed.keys() == {bad.key}
    assert "not finite" in outcome.failed[bad.key][1]
    assert str(bad.run) in outcome.failed[bad.key][1]  # not the directory on the node
    assert {type(event) for event in events} >= {Started, Progressed, Done, Failed}
    assert lost, "no run was caught on the second node: train for longer"
    again = [event for event in events if isinstance(event, Started) and event.job.key == lost[0].key]
    assert [event.attempt for event in again] == [1, 2]
    first = next(
        event
        for event in events[events.index(again[1]) :]
        if isinstance(event, Progressed) and event.job.key == lost[0].key
    )
    assert first.done >= 3, "trained from scratch although epochs were saved"
    final = (lost[0].run / "metrics.jsonl").read_text().splitlines()
    assert len(saved[lost[0].key]) >= 3
    assert final[: len(saved[lost[0].key])] == saved[lost[0].key]  # times included: not trained again
    assert homes() == before

    theirs = two_and_a_bad_one(jobs, tmp_path / "local")
    run_jobs(theirs, LocalEngine(2), lambda event: None, never)
    for one, other in zip(mine, theirs, strict=True):
        assert standing(one).state == ("failed" if one is bad else "done")
        assert_alike(one.run, other.run)


def test_a_job_that_no_node_is_large_enough_for_is_refused(jobs: Jobs, tmp_path: Path, cluster: Any) -> None:
    job = jobs(tmp_path / "ray", threads=64)[0]
    with pytest.raises(InputError, match=r"threads 64: no node .* so many cores \(the largest: 1\)"):
        RayEngine(cluster.address).run([job], lambda event: None, never)


@pytest.mark.parametrize("address", ["nonsense", "host:", "ray://host:1", "host:99999", ":x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="write auto, or HOST:PORT"):
        check_address(address)


def test_an_address_where_nobody_answers_is_refused_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(InputError, match=f"--address {address}: no Ray cluster answers there"):
            RayEngine(address)


def test_without_ray_one_line_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from secli.errors import InputError\n"
        "from secli.sweeps.ray.cluster import RayEngine\n"
        "try: RayEngine()\n"
        "except InputError as error: print(error, error.exit_code)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = "--engine ray: Ray is not installed; install it with: pip install 'secli[ray]' 2\n"
    assert (found.stdout, found.stderr) == (expected, "")


def test_a_gpu_is_shared_by_the_memory_of_a_step(jobs: Jobs) -> None:
    job = jobs()[0]
    twice = job.model_copy(update={"training": job.training.model_copy(update={"batch": 32})})
    assert 0 < step_bytes(job) < step_bytes(twice)
    gib = 2**30
    assert gpu_share(0, 80 * gib) == 0.1
    assert gpu_share(8 * gib, 24 * gib) == 0.36
    assert gpu_share(100 * gib, 24 * gib) == 1.0
