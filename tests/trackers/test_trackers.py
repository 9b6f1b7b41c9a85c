"""Trackers: what MLflow and TensorBoard are told is read back; one that fails is left out and the run goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secli.config import MeasureSettings, ModelSettings, TrainingSettings
from secli.datasets.build import make_dataset
from secli.errors import InputError, InterruptedRunError, SecliError, UnknownNameError
from secli.records.schema import EquivarianceRecord, read_record, read_training_record, write_record
from secli.sweeps.engine import Notice
from secli.sweeps.jobs import SweepJob, carry_out, standing
from secli.sweeps.scheduler import run_jobs
from secli.sweeps.tracker_replay import replay
from secli.trackers.contract import result_metrics, run_parameters
from secli.trackers.forward import TRACKERS, Follower, following, open_trackers
from secli.trackers.mlflow_tracker import MLflowTracker
from secli.training.events import EpochEnded, Event, Remark, silent

# their own dependencies warn of each other
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.utils.tensorboard.*"),
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NewJob = Callable[..., SweepJob]


@pytest.fixture(scope="module")
def new_job(tmp_path_factory: pytest.TempPathFactory) -> NewJob:
    """Return a job of two epochs on 64 digits, in a directory of its own."""
    data = tmp_path_factory.mktemp("data")
    (scaled,) = make_dataset("digits-scale", data, sizes=(64, 20, 30), jobs=1)
    (plain,) = make_dataset("digits", data, sizes=(64, 20, 30), jobs=1)

    def new(place: Path, *trackers: str) -> SweepJob:
        return SweepJob(
            key="k",
            title="a run",
            run=place / "cnn" / "run",
            model=ModelSettings(name="cnn", options={"widths": [2, 2, 2, 2]}),
            training=TrainingSettings(epochs=2, batch=16, device="cpu", threads=1, milestones=()),
            data=scaled.path,
            measure=MeasureSettings(factors=(1.0, 0.5), images=5),
            measured_on=plain.path,
            trackers=trackers,
            tracked_in=place,
        )

    return new


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLflow store for all tests: making its database takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("mlflow")
        place = tmp_path_factory.mktemp("mlflow")
        for tracker in open_trackers(["mlflow"], place).values():
            tracker.close()
    return place


def stop_after_first_epoch(event: Event) -> None:
    import signal

    if isinstance(event, EpochEnded):
        signal.raise_signal(signal.SIGTERM)


def test_mlflow_is_told_everything_and_a_resumed_run_stays_one_run(
    new_job: NewJob, store: Path, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    job = new_job(tmp_path, "mlflow").model_copy(update={"tracked_in": store})
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'secli'")

    def told() -> Any:
        (only,) = (
            found
            for found in client.search_runs([experiment.experiment_id])
            if found.data.tags["run"] == str(job.run)
        )
        return only

    with pytest.raises(InterruptedRunError):
        carry_out(job, stop_after_first_epoch)
    first = told()
    assert first.info.status == "KILLED"
    assert len(client.get_metric_history(first.info.run_id, "train_loss")) == 1
    carry_out(job, silent)
    run = told()
    assert (run.info.run_id, run.info.status) == (first.info.run_id, "FINISHED")
    record, curves = read_training_record(job.run), read_record(job.run / "equivariance.json")
    assert isinstance(curves, EquivarianceRecord)
    assert run.data.params == {key: str(value) for key, value in run_parameters(record).items()}
    rows = [json.loads(line) for line in (job.run / "metrics.jsonl").read_text().splitlines()]
    history = client.get_metric_history(run.info.run_id, "validation_error")
    assert [(point.step, point.value) for point in history] == [
        (row["epoch"], row["val_error"]) for row in rows
    ]
    results = result_metrics(record, curves)
    assert results["test_error"] == record.results.test_error  # type: ignore[union-attr]
    assert "accuracy/0.5" in results
    assert any(key.startswith("delta/") for key in results)
    assert {key: run.data.metrics[key] for key in results} == pytest.approx(results)
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artifacts == {
        "config.yaml",
        "metrics.jsonl",
        "record.json",
        "equivariance.json",
        "model.safetensors",
        "curves.png",
    }


def test_mlflow_begins_a_new_run_where_the_remembered_one_is_of_another_store(
    new_job: NewJob, store: Path, tmp_path: Path
) -> None:
    job = new_job(tmp_path)
    carry_out(job, silent)
    (job.run / "mlflow-run").write_text("0123456789abcdef0123456789abcdef\n")
    remarks: list[Event] = []
    with following(["mlflow"], store, remarks.append) as follower:
        follower.finish(job.run)
    assert remarks == []
    assert (job.run / "mlflow-run").read_text().strip() != "0123456789abcdef0123456789abcdef"


class Idle:
    """An engine for jobs that are over: it has nothing to do."""

    slots = 1

    def run(self, jobs: object, report: object, stop: object) -> None:
        raise AssertionError("nothing is left to do")


@pytest.mark.parametrize("failed", [False, True])
def test_mlflow_runs_of_killed_processes_are_closed_by_the_next_call(
    new_job: NewJob, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    job = new_job(tmp_path, "mlflow").model_copy(update={"tracked_in": store})
    with monkeypatch.context() as killed:  # what a process that is gone leaves undone
        killed.setattr(Follower, "finish", lambda *_: None)
        killed.setattr(Follower, "close", lambda *_: None)
        carry_out(job, silent)
    known = (job.run / "mlflow-run").read_text().strip()
    run = client.get_run(known)
    assert (run.info.status, "test_error" in run.data.metrics) == ("RUNNING", False)
    if failed:
        record = read_training_record(job.run)
        write_record(job.run / "record.json", record.model_copy(update={"status": "failed"}))
    for _ in range(2):  # the second call finds nothing to tell
        assert run_jobs([job], Idle(), lambda event: None, lambda: False).left == {}
        run = client.get_run(known)
        assert run.info.status == ("FAILED" if failed else "FINISHED")
        assert ("test_error" in run.data.metrics) == (not failed)
        monkeypatch.setattr(MLflowTracker, "begin", lambda *_: pytest.fail("told again"))


def test_a_run_that_was_never_tracked_is_not_begun_at_its_end(
    new_job: NewJob, store: Path, tmp_path: Path
) -> None:
    carry_out(new_job(tmp_path), silent)
    job = new_job(tmp_path, "mlflow").model_copy(update={"tracked_in": store})
    said: list[object] = []
    run_jobs([job], Idle(), said.append, lambda: False)
    assert said == []
    assert not (job.run / "mlflow-run").exists()


def test_a_tracker_that_fails_at_the_end_of_an_old_run_is_left_out(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken("knows_end")
    monkeypatch.setitem(TRACKERS, "broken", lambda home: broken)
    carry_out(new_job(tmp_path), silent)
    said: list[object] = []
    outcome = run_jobs([new_job(tmp_path, "broken")], Idle(), said.append, lambda: False)
    assert len(outcome.finished) == 1
    assert said == [Notice("--track broken: left out from here on: the server is gone")]
    assert broken.calls == ["knows_end"]


def test_mlflow_is_told_of_a_failure_at_once(
    new_job: NewJob, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    def diverge(event: Event) -> None:
        if isinstance(event, EpochEnded):
            raise SecliError("the loss is not finite")

    job = new_job(tmp_path, "mlflow").model_copy(update={"tracked_in": store})
    with pytest.raises(SecliError):
        carry_out(job, diverge)
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    assert read_training_record(job.run).status == "failed"
    assert client.get_run((job.run / "mlflow-run").read_text().strip()).info.status == "FAILED"


def test_tensorboard_is_told_everything(new_job: NewJob, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = new_job(tmp_path, "tensorboard")
    with pytest.raises(InterruptedRunError):
        carry_out(job, stop_after_first_epoch)
    carry_out(job, silent)
    record, curves = read_training_record(job.run), read_record(job.run / "equivariance.json")
    assert isinstance(curves, EquivarianceRecord)
    told = EventAccumulator(str(tmp_path / "tensorboard" / "cnn" / "run"))
    told.Reload()
    rows = [json.loads(line) for line in (job.run / "metrics.jsonl").read_text().splitlines()]
    points = [(point.step, point.value) for point in told.Scalars("train_loss")]
    assert points == [(row["epoch"], pytest.approx(row["train_loss"])) for row in rows]
    for key, value in result_metrics(record, curves).items():
        assert told.Scalars(key)[-1].value == pytest.approx(value), key
    assert told.Images("curves")[-1].width > 100
    assert '"model": "cnn"' in told.Tensors("settings/text_summary")[-1].tensor_proto.string_val[0].decode()


class Broken:
    """A tracker that fails at one of its calls."""

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, list[str]()

    def _take(self, name: str) -> None:
        self.calls.append(name)
        if name == self.at:
            raise ConnectionError("the server\nis gone")

    def begin(self, *_: Any) -> None:
        self._take("begin")

    def epoch(self, *_: Any) -> None:
        self._take("epoch")

    def finish(self, *_: Any) -> None:
        self._take("finish")

    def knows_end(self, *_: Any) -> bool:
        self._take("knows_end")
        return True

    def fail(self, *_: Any) -> None:
        self._take("fail")

    def close(self) -> None:
        self._take("close")


@pytest.mark.parametrize(
    ("at", "calls"),
    [
        ("", ["begin", "epoch", "epoch", "finish", "close"]),
        ("begin", ["begin"]),
        ("epoch", ["begin", "epoch"]),
        ("finish", ["begin", "epoch", "epoch", "finish"]),
        ("close", ["begin", "epoch", "epoch", "finish", "close"]),
    ],
)
def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, calls: list[str]
) -> None:
    broken, whole = Broken(at), Broken("never")
    monkeypatch.setitem(TRACKERS, "broken", lambda home: broken)
    monkeypatch.setitem(TRACKERS, "whole", lambda home: whole)
    events: list[Event] = []
    job = new_job(tmp_path, "broken", "whole")
    carry_out(job, events.append)
    assert read_training_record(job.run).status == "finished"
    remarks = [event.text for event in events if isinstance(event, Remark)]
    assert remarks == (["--track broken: left out from here on: the server is gone"] if at else [])
    assert broken.calls == calls
    assert whole.calls == ["begin", "epoch", "epoch", "finish", "close"]


@pytest.mark.parametrize(
    ("function", "told", "calls"),
    [
        ("plot_curves", "the picture of the curves is left out", ["finish", "close"]),
        ("scratch_folder", "the picture of the curves is left out", ["finish", "close"]),
        ("_curves", "the results are left out", ["close"]),
    ],
)
def test_what_cannot_be_read_or_drawn_is_left_out_and_the_run_is_done(
    new_job: NewJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    told: str,
    calls: list[str],
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left\non device")

    tracker = Broken("never")
    monkeypatch.setitem(TRACKERS, "whole", lambda home: tracker)
    monkeypatch.setattr(f"secli.trackers.forward.{function}", full)
    events: list[Event] = []
    job = new_job(tmp_path, "whole")
    carry_out(job, events.append)
    assert standing(job).state == "done"
    remarks = [event.text for event in events if isinstance(event, Remark)]
    assert remarks == [f"--track whole: {told}: [Errno 28] No space left on device"]
    assert tracker.calls == ["begin", "epoch", "epoch", *calls]


def test_a_run_whose_files_cannot_be_read_is_not_retold(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Broken("never")
    monkeypatch.setitem(TRACKERS, "whole", lambda home: tracker)
    job = new_job(tmp_path, "whole")
    carry_out(job, silent)
    tracker.calls.clear()
    replay(job, silent)
    assert tracker.calls == ["begin", "epoch", "epoch", "finish", "close"]
    tracker.calls.clear()
    (job.run / "metrics.jsonl").unlink()
    events: list[Event] = []
    replay(job, events.append)
    (remark,) = events
    assert isinstance(remark, Remark)
    assert remark.text.startswith(f"--track whole: {job.run} is left out: [Errno 2]")
    assert tracker.calls == []


def test_a_store_that_does_not_open_stops_the_user_but_never_a_run(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(home: Path) -> Any:
        raise InputError("--track broken: no such server")

    monkeypatch.setitem(TRACKERS, "broken", closed)
    with pytest.raises(InputError, match="no such server"):
        open_trackers(["broken"], tmp_path)
    with pytest.raises(InputError, match="no such server"):
        Follower(["broken"], tmp_path, silent)
    events: list[Event] = []
    carry_out(new_job(tmp_path, "broken"), events.append)
    assert Remark("--track broken: left out from here on: no such server") in events


def test_unknown_trackers_suggest_the_near_miss(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match="unknown tracker --track 'tensorbord'; did you mean 'tensorboard'"
    ):
        open_trackers(["tensorbord"], tmp_path)
    assert open_trackers([], tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "package"), [("mlflow", "mlflow"), ("tensorboard", "torch.utils.tensorboard")]
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    for module in [module for module in sys.modules if f"{module}.".startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"--track {name}: .* is not installed; .*secli\[{name}\]"):
        open_trackers([name], tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_nothing_is_imported_for_trackers_that_are_off() -> None:
    code = (
        "import sys; import secli.sweeps.worker; from secli.trackers.forward import Follower;"
        "from pathlib import Path; Follower([], Path(), print).close();"
        "sys.exit(any(name.partition('.')[0] in ('mlflow', 'tensorboard', 'matplotlib') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
