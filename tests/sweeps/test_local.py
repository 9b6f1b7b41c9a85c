"""The local engine with real worker processes: killed, stopped, orphaned, talked over, and still the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from secli.errors import InputError, SecliError
from secli.records.schema import read_training_record
from secli.sweeps.engine import Done, Failed, Left, Notice, Progressed, Started, SweepEvent
from secli.sweeps.jobs import SweepJob, carry_out, standing
from secli.sweeps.local import LocalEngine, Lost, Worker, visible_gpus
from secli.sweeps.messages import Ended, NoticeLine, Progress, Ready, read_message
from secli.sweeps.scheduler import run_jobs
from secli.training.events import silent
from tests.sweeps.conftest import Jobs

LONG = {"epochs": 20000, "batch": 16, "device": "cpu", "milestones": []}
MEASURE = {"factors": [1, 0.5], "images": 5}


def content(jobs: list[SweepJob]) -> dict[str, bytes]:
    return {job.title: (job.run / "model.safetensors").read_bytes() for job in jobs}


def pids() -> set[int]:
    """Return the worker processes that this process has started and that live."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found.add(int(place.name))
        except (OSError, ValueError):
            continue
    return found


@pytest.fixture(autouse=True)
def _no_process_is_left_behind() -> Iterator[None]:
    before = pids()
    yield
    assert pids() - before == set()


def test_a_killed_worker_is_that_runs_failure_only_and_the_same_sweep_goes_on(
    jobs: Jobs, tmp_path: Path
) -> None:
    """Kill one worker in the midst of a run; then retry: every run is trained once, the weights are the same."""
    expected = jobs(tmp_path / "expected", seeds=[0, 1], measure=MEASURE)
    for job in expected:
        carry_out(job, silent)
    several = jobs(seeds=[0, 1], measure=MEASURE)
    events: list[SweepEvent] = []
    killed: list[int] = []
    before = pids()

    def report(event: SweepEvent) -> None:
        events.append(event)
        if isinstance(event, Progressed) and event.job is several[0] and event.detail and not killed:
            killed.extend(pids() - before)
            os.kill(killed[0], signal.SIGKILL)

    outcome = run_jobs(several, LocalEngine(1), report, lambda: False)
    assert [job.training.seed for job in outcome.finished] == [1]
    ((job, reason),) = outcome.failed.values()
    assert job is several[0]
    assert "signal 9: most often for want of memory" in reason
    assert standing(job).state == "failed"
    assert str(read_training_record(job.run).reason) == reason
    assert len([event for event in events if isinstance(event, Started)]) == 2
    trained_before = (several[1].run / "state/last.pt").stat().st_mtime_ns
    outcome = run_jobs(several, LocalEngine(3), lambda event: None, lambda: False, retry_failed=True)
    assert len(outcome.finished) == 2
    assert (several[1].run / "state/last.pt").stat().st_mtime_ns == trained_before
    assert content(several) == content(expected)
    for ours, theirs in zip(several, expected, strict=True):
        rows = [json.loads((each.run / "equivariance.json").read_text())["rows"] for each in (ours, theirs)]
        assert rows[0] == rows[1]


def test_a_stopped_sweep_saves_its_state_and_goes_on(jobs: Jobs) -> None:
    several = jobs(seeds=[0, 1, 2], training=LONG)
    steps: list[float] = []
    events: list[SweepEvent] = []

    def report(event: SweepEvent) -> None:
        events.append(event)
        if isinstance(event, Progressed) and event.phase == "training":
            steps.append(event.done)

    outcome = run_jobs(several, LocalEngine(1), report, lambda: len(steps) > 3)
    assert sorted(why for _, why in outcome.left.values()) == ["", "", "interrupted"]
    assert isinstance(events[-1], Left)
    assert read_training_record(several[0].run).status == "interrupted"
    assert (several[0].run / "state/last.pt").is_file()
    assert [standing(job).state for job in several] == ["interrupted", "todo", "todo"]
    steps.clear()
    outcome = run_jobs(several[:1], LocalEngine(1), report, lambda: len(steps) > 1)
    assert steps[0] > 0  # gone on with, not begun again
    assert len(outcome.left) == 1


def test_a_sweep_stopped_before_its_workers_are_up_starts_nothing(jobs: Jobs) -> None:
    several = jobs(training=LONG)
    events: list[SweepEvent] = []
    LocalEngine(1).run(several, events.append, lambda: True)
    assert events == []
    assert standing(several[0]).state == "todo"


@pytest.mark.slow
def test_a_signal_to_one_worker_leaves_its_run_for_later_and_the_others_go_on(jobs: Jobs) -> None:
    (first,) = jobs(training=LONG)
    (second,) = jobs(seeds=[1])
    events: list[SweepEvent] = []
    before = pids()
    sent: list[int] = []

    def report(event: SweepEvent) -> None:
        events.append(event)
        if isinstance(event, Progressed) and event.detail and event.job is first and not sent:
            sent.extend(pids() - before)
            os.kill(sent[0], signal.SIGTERM)

    outcome = run_jobs([first, second], LocalEngine(1), report, lambda: False)
    assert [job.key for job in outcome.finished] == [second.key]
    assert outcome.left == {first.key: (first, "interrupted")}
    assert standing(first).state == "interrupted"


def test_a_job_that_cannot_begin_fails_alone_and_stays_failed(jobs: Jobs) -> None:
    (good,) = jobs()
    bad = good.model_copy(
        update={"run": good.run.with_name("bad"), "key": "bad", "data": good.run / "nowhere"}
    )
    outcome = run_jobs([bad, good], LocalEngine(1), lambda event: None, lambda: False)
    assert [job.key for job in outcome.finished] == [good.key]
    assert "nowhere" in outcome.failed["bad"][1]
    assert standing(bad).state == "failed"
    assert not bad.run.exists()


def with_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every Python that starts run some code first, as a badly behaved library might."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(place))


def test_what_libraries_print_does_not_stand_between_the_messages(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = (
        "import os, sys, threading, time\n"
        "def chatter():\n"
        "    while True:\n"
        "        os.write(1, b'{\"kind\":')\n"
        "        os.write(2, b'warning!')\n"
        "        time.sleep(0.05)\n"
        "print('no newline', end='', flush=True)\n"
        "if 'secli.sweeps.worker' in sys.orig_argv: threading.Thread(target=chatter, daemon=True).start()\n"
    )
    with_site(tmp_path, monkeypatch, noise.replace("while True", "time.sleep(4)\n    while True"))
    several = jobs(seeds=[0, 1])
    events: list[SweepEvent] = []
    outcome = run_jobs(several, LocalEngine(1), events.append, lambda: False)
    assert len(outcome.finished) == 2, outcome
    assert not [event for event in events if isinstance(event, Notice | Failed)]


def test_lines_that_are_no_messages_are_passed_over() -> None:
    for message in (
        Ready(),
        Progress(phase="training", done=1, total=2),
        NoticeLine(text="x"),
        Ended(how="held"),
    ):
        assert read_message(message.model_dump_json()) == message
    for line in ("", "\n", "warning: x", '{"kind": "progress"}', '{"kind": "new"}', '{"kind":"end'):
        assert read_message(line) is None


def test_workers_that_cannot_start_stop_the_sweep_and_say_why(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_site(tmp_path, monkeypatch, "import os, sys; os.write(2, b'no torch today\\n\\n'); os._exit(3)")
    several = jobs(seeds=[0, 1])
    with pytest.raises(
        SecliError, match=r"no worker process could be started: .* \(exit code 3\): no torch today"
    ):
        LocalEngine(2).run(several, lambda event: None, lambda: False)
    assert {standing(job).state for job in several} == {"todo"}


def test_a_view_that_fails_stops_the_sweep_instead_of_hanging(jobs: Jobs) -> None:
    def report(event: SweepEvent) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(SecliError, match="the sweep stopped: the terminal is gone"):
        LocalEngine(1).run(jobs(), report, lambda: False)


def test_a_worker_that_dies_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: Jobs
) -> None:
    (job,) = jobs()
    worker = Worker("w", {})
    code = (
        "import sys\nprint('{\"kind\":\"ready\"}', flush=True)\nsys.stdin.readline()\nsys.exit('all is lost')"
    )
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **keys: real([sys.executable, "-c", code], **keys))
    with pytest.raises(Lost, match="its process ended with code 1: all is lost"):
        worker.carry_out(job, lambda event: None)
    worker.dismiss()
    worker.dismiss()


def test_when_the_leader_dies_its_worker_saves_the_state_and_leaves(jobs: Jobs) -> None:
    (job,) = jobs(training=LONG)
    worker = Worker("w", {})
    process = worker.ensure()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(job.model_dump_json() + "\n")
    process.stdin.flush()
    while True:
        message = read_message(process.stdout.readline())
        if isinstance(message, Progress) and message.done > 1:
            break
    process.stdin.close()
    process.stdout.close()
    assert process.wait(30) == 0
    assert read_training_record(job.run).status == "interrupted"
    worker.dismiss()


def test_threads_and_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LocalEngine(3, threads=2, gpus=["4", "7"])
    assert engine.slots == 3
    assert [engine._environment(i) for i in range(3)] == [
        {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": gpu} for gpu in ("4", "7", "4")
    ]
    assert LocalEngine(1, threads=0)._environment(0) == {}
    with pytest.raises(InputError, match="--jobs 0: at least one worker"):
        LocalEngine(0)
    for named, count, expected in [("2,5", 2, ("2", "5")), (None, 2, ("0", "1")), (None, 0, ()), ("", 0, ())]:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if named is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        assert visible_gpus() == expected


def test_a_run_in_other_hands_is_left_and_its_worker_takes_the_next(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        'import sys\nprint(\'{"kind":"ready"}\', flush=True)\n'
        "for how in ('held', 'done'):\n    sys.stdin.readline()\n"
        '    print(\'{"kind":"ended","reason":"theirs","how":"%s"}\' % how, flush=True)\n'
    )
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **keys: real([sys.executable, "-c", code], **keys))
    first, second = jobs(seeds=[0, 1])
    outcome = run_jobs([first, second], LocalEngine(1), lambda event: None, lambda: False)
    assert outcome.left == {first.key: (first, "theirs")}
    assert [job.key for job in outcome.finished] == [second.key]
    assert not list(first.run.parent.parent.rglob("*.failed"))


@pytest.mark.slow
def test_two_sweeps_at_once_in_one_directory_fail_nothing(jobs: Jobs) -> None:
    """The other one holds a run for good: ours reports it as being in other hands, and does the rest."""
    several = jobs(seeds=[0, 1])
    (long,) = jobs(training=LONG)
    worker = Worker("other", {})
    other = worker.ensure()
    assert other.stdin is not None
    other.stdin.write(long.model_dump_json() + "\n")
    other.stdin.flush()
    deadline = time.monotonic() + 30
    while not (long.run / "record.json").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    outcome = run_jobs([long, *several], LocalEngine(2), lambda event: None, lambda: False)
    assert len(outcome.finished) == 2
    assert outcome.failed == {}
    assert "another process is training here" in outcome.left[long.key][1]
    assert read_training_record(long.run).status == "running"
    worker.kill()
    worker.dismiss()


def test_every_job_is_reported_done_with_its_seconds(jobs: Jobs) -> None:
    events: list[SweepEvent] = []
    LocalEngine(5).run(jobs(), events.append, lambda: False)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Done)
    assert events[-1].seconds > 0
    shares = [event.done / event.total for event in events if isinstance(event, Progressed)]
    assert shares == sorted(shares)
    assert shares[-1] == 1
