"""A job: how far it has come is read from its records; trained once, measured once, gone on with, marked as failed."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secli.errors import HeldRunError, InputError, InterruptedRunError, SecliError
from secli.records.notes import Note
from secli.records.schema import read_training_record, write_record
from secli.sweeps import jobs as rooms
from secli.sweeps.jobs import (
    JobState,
    SweepJob,
    carry_out,
    failure_file,
    forget_failure,
    mark_failed,
    put_aside,
    standing,
)
from secli.sweeps.worker import work
from secli.training.events import Begun, EpochEnded, Event, silent
from tests.sweeps.conftest import Jobs
from tests.tables.fabricate import training

MEASURE = {"factors": [1, 0.5], "images": 5}


def state(job: SweepJob) -> str:
    return standing(job).state


def status(job: SweepJob, status: str, reason: str | None = None) -> None:
    record = read_training_record(job.run)
    told = None if reason is None else Note.of("failed", error=reason)
    write_record(job.run / "record.json", record.model_copy(update={"status": status, "reason": told}))


def test_a_job_is_trained_once_and_measured_once(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs(measure=MEASURE)
    assert state(job) == "todo"
    events: list[Event] = []
    passes: list[tuple[int, int]] = []
    carry_out(job, events.append, lambda done, total: passes.append((done, total)))
    assert sum(isinstance(event, EpochEnded) for event in events) == 2
    assert passes[-1][0] == passes[-1][1]
    assert standing(job) == JobState(state="done")
    before = {file: file.read_bytes() for file in job.run.rglob("*") if file.is_file()}

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("done already")

    with monkeypatch.context() as patch:
        patch.setattr(rooms, "train", never)
        patch.setattr(rooms, "measure_subject", never)
        carry_out(job, silent)
    # without its curves it is only trained, and measuring does not touch the training
    (job.run / "equivariance.json").unlink()
    assert state(job) == "trained"
    with monkeypatch.context() as patch:
        patch.setattr(rooms, "train", never)
        carry_out(job, silent)
    after = {file: file.read_bytes() for file in job.run.rglob("*") if file.is_file()}
    assert after.keys() == before.keys()
    assert all(after[file] == before[file] for file in before if file.name != "equivariance.json")
    rows = [json.loads(content[job.run / "equivariance.json"])["rows"] for content in (before, after)]
    assert rows[0] == rows[1]


def test_a_run_made_with_another_default_has_failed_and_is_left_as_it_is(jobs: Jobs) -> None:
    (job,) = jobs()
    carry_out(job, silent)
    record = read_training_record(job.run)
    # an option that the record does not know is newer than it: the run did as its default does
    for unknown, expected in (("mean", "done"), ("widths", "failed")):
        older = {key: value for key, value in record.model.options.items() if key != unknown}
        write_record(
            job.run / "record.json",
            record.model_copy(update={"model": record.model.model_copy(update={"options": older})}),
        )
        assert state(job) == expected
    other = {**record.model.options, "mean": 0.5}
    write_record(
        job.run / "record.json",
        record.model_copy(update={"model": record.model.model_copy(update={"options": other})}),
    )
    told = r"made with model.mean = 0.5 by an older secli, where this one takes .*; move it away or remove it"
    found = standing(job)
    assert (found.state, found.retriable) == ("failed", False)
    assert re.search(told, found.reason or "")
    with pytest.raises(InputError, match=told):
        carry_out(job, silent)
    before = (job.run / "record.json").read_bytes()
    status(job, "interrupted")
    mark_failed(job, "not this one's")
    status(job, "finished")
    assert (job.run / "record.json").read_bytes() == before
    assert not failure_file(job.run).exists()


def test_a_run_with_the_augmentation_of_an_older_secli_is_not_taken_as_done(jobs: Jobs) -> None:
    (job,) = jobs(training={"augment": "scale"})
    carry_out(job, silent)
    assert state(job) == "done"
    file = job.run / "record.json"
    content = json.loads(file.read_text())
    del content["training"]["centre"]
    file.write_text(json.dumps(content))
    found = standing(job)
    assert (found.state, found.retriable) == ("failed", False)
    assert "the scale augmentation of an older secli" in (found.reason or "")


def test_a_job_that_takes_any_number_of_threads_is_repeated(jobs: Jobs) -> None:
    (job,) = jobs(threads=0)
    carry_out(job, silent)
    assert read_training_record(job.run).training["threads"] > 0
    assert state(job) == "done"
    status(job, "interrupted")
    carry_out(job, silent)
    assert state(job) == "done"


def test_a_run_that_another_process_holds_is_not_marked(jobs: Jobs) -> None:
    (job,) = jobs()
    carry_out(job, silent)
    status(job, "running")
    descriptor = os.open(job.run, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        mark_failed(job, "lost")
        assert state(job) == "interrupted"
    finally:
        os.close(descriptor)
    mark_failed(job, "lost")
    assert standing(job) == JobState(state="failed", reason="lost")


def test_curves_count_only_with_the_settings_and_the_images_that_are_wanted(jobs: Jobs) -> None:
    (job,) = jobs(measure=MEASURE)
    carry_out(job, silent)
    (same,) = jobs(measure={**MEASURE, "batch": 3})  # the batch is no matter of the result
    (others,) = jobs(measure={**MEASURE, "images": 6})
    (elsewhere,) = jobs(measure={**MEASURE, "data": "digits-scale"})
    (bare,) = jobs()
    assert [state(each) for each in (same, others, elsewhere, bare)] == ["done", "trained", "trained", "done"]
    # a setting that an older record does not know: it was measured as the setting's default does
    file = job.run / "equivariance.json"
    content = json.loads(file.read_text())
    del content["measure"]["smallest_plane"]
    file.write_text(json.dumps(content))
    assert state(job) == "done"
    file.write_text((job.run / "record.json").read_text())
    found = standing(job)
    assert (found.state, found.damaged) == ("failed", file)
    assert "a record of kind 'training'" in (found.reason or "")
    assert put_aside(job) == file.with_name("equivariance.json.damaged")
    assert state(job) == "trained"


def test_the_standing_is_what_the_record_says(jobs: Jobs) -> None:
    (job,) = jobs(measure=MEASURE)
    carry_out(job, silent)
    for told, expected in [("running", "interrupted"), ("interrupted", "interrupted"), ("failed", "failed")]:
        status(job, told, "why")
        assert standing(job) == JobState(state=expected, reason="why")


def _is_a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "not JSON": lambda file: file.write_text("{"),
    "nested too deeply": lambda file: file.write_text("[" * 100_000),
    "nested more than 40": lambda file: file.write_text("[" * 60 + "]" * 60),
    "is too large": lambda file: file.write_text('{"schema_version": 1' + "1" * 5000 + "}"),
    "is not a finite number": lambda file: file.write_text('{"schema_version": NaN}'),
    "not text in UTF-8": lambda file: file.write_bytes(b"\xff\xfe{}"),
    "a directory": _is_a_directory,
    "no such record": lambda file: file.unlink(),
    "larger than 256 MiB": lambda file: os.truncate(file, 2**40),
    "not a record of secli": lambda file: file.write_text('{"schema_version": true}'),
}


@pytest.mark.parametrize("told", DAMAGES)
def test_a_run_that_cannot_be_read_has_failed_and_is_kept_when_it_is_made_again(
    jobs: Jobs, told: str
) -> None:
    (job,) = jobs()
    write_record(job.run / "record.json", training("cnn"))
    DAMAGES[told](job.run / "record.json")
    found = standing(job)
    assert (found.state, found.damaged, found.retriable) == ("failed", job.run, True)
    assert told in (found.reason or "")
    with pytest.raises(InputError, match=re.escape(told)):
        carry_out(job, silent)
    mark_failed(job, "lost")  # changes nothing of it
    kept = put_aside(job)
    assert kept == job.run.with_name(f"{job.run.name}.damaged")
    assert state(job) == "todo"
    write_record(job.run / "record.json", training("cnn"))
    DAMAGES[told](job.run / "record.json")
    assert put_aside(job) == job.run.with_name(f"{job.run.name}.damaged2")


def test_an_interrupted_job_goes_on_to_the_very_same_weights(jobs: Jobs, tmp_path: Path) -> None:
    (whole,) = jobs(tmp_path / "whole")
    carry_out(whole, silent)
    (job,) = jobs()

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnded):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        carry_out(job, stop)
    assert state(job) == "interrupted"
    begun: list[Begun] = []
    # another device was asked for meanwhile: a run is gone on with where it was begun
    elsewhere = job.model_copy(update={"training": job.training.model_copy(update={"device": "auto"})})
    carry_out(elsewhere, lambda event: begun.append(event) if isinstance(event, Begun) else None)
    assert (begun[0].epoch, state(job)) == (2, "done")
    assert (job.run / "model.safetensors").read_bytes() == (whole.run / "model.safetensors").read_bytes()


def test_what_a_run_cannot_write_down_itself_stands_beside_it(jobs: Jobs) -> None:
    (job,) = jobs(measure=MEASURE)
    mark_failed(job, "could not\n be built")
    assert standing(job) == JobState(state="failed", reason="could not be built")
    assert not job.run.exists()
    forget_failure(job)
    forget_failure(job)
    assert state(job) == "todo"
    carry_out(job, silent)
    mark_failed(job, "too late")
    assert state(job) == "done"  # it is whole
    assert not failure_file(job.run).exists()
    # a measurement that failed: the training stays finished
    (job.run / "equivariance.json").unlink()
    mark_failed(job, "no such tap")
    assert standing(job) == JobState(state="failed", reason="no such tap")
    assert read_training_record(job.run).status == "finished"
    forget_failure(job)
    assert state(job) == "trained"
    status(job, "running")
    mark_failed(job, "killed")
    assert standing(job) == JobState(state="failed", reason="killed")
    assert not failure_file(job.run).exists()
    mark_failed(job, "again")
    assert standing(job).reason == "killed"


def test_a_run_in_other_hands_is_waited_for_and_then_left_alone(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs()
    carry_out(job, silent)
    status(job, "running")
    before = (job.run / "record.json").read_bytes()
    waited: list[float] = []
    monkeypatch.setattr(rooms, "PATIENCE", 0.0)
    monkeypatch.setattr("secli.sweeps.jobs.time.sleep", waited.append)
    descriptor = os.open(job.run, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(HeldRunError, match="another process is training here"):
            carry_out(job, silent)
    finally:
        os.close(descriptor)
    assert (job.run / "record.json").read_bytes() == before
    # its holder lets go while we wait
    monkeypatch.setattr(rooms, "PATIENCE", 60.0)
    descriptor = os.open(job.run, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    monkeypatch.setattr("secli.sweeps.jobs.time.sleep", lambda seconds: os.close(descriptor))
    carry_out(job, silent)
    assert state(job) == "done"


def test_of_two_that_begin_a_run_at_once_one_is_told_that_it_is_in_other_hands(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from secli.training import run as training_run

    (first,) = jobs(tmp_path / "one")
    carry_out(first, silent)
    (job,) = jobs()
    monkeypatch.setattr(rooms, "PATIENCE", 0.0)
    gather = training_run.gather  # type: ignore[attr-defined]

    def slow(*arguments: Any) -> Any:
        """Between looking whether the run is there and making it, the other one makes it."""
        if not job.run.exists():
            job.run.parent.mkdir(parents=True)
            first.run.rename(job.run)
        return gather(*arguments)

    monkeypatch.setattr(training_run, "gather", slow)
    with pytest.raises(HeldRunError):
        carry_out(job, silent)
    carry_out(job, silent)
    assert state(job) == "done"


def test_a_full_disk_fails_the_run_by_name_and_another_try_goes_on(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secli.training import fit

    (job,) = jobs()
    save = fit.save_state  # type: ignore[attr-defined]

    def full(path: Path, content: Any) -> None:
        if content["epoch"] == 3:
            raise OSError(28, "No space left on device")
        save(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "save_state", full)
        with pytest.raises(SecliError, match="No space left on device"):
            carry_out(job, silent)
    assert standing(job) == JobState(state="failed", reason="No space left on device")
    assert [file.name for file in job.run.rglob(".*")] == []
    begun: list[Begun] = []
    carry_out(job, lambda event: begun.append(event) if isinstance(event, Begun) else None)
    assert (begun[0].epoch, state(job)) == (2, "done")


def test_records_of_an_older_secli_are_read_and_gone_on_with(jobs: Jobs, tmp_path: Path) -> None:
    """Schema version 1, before ``training.pad`` and some options of models were added."""
    (whole,) = jobs(tmp_path / "whole", models=["dss_v1"], options={"channels": 2})
    carry_out(whole, silent)
    (job,) = jobs(models=["dss_v1"], options={"channels": 2})

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnded):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        carry_out(job, stop)
    file = job.run / "record.json"
    content = json.loads(file.read_text())
    del content["training"]["pad"], content["model"]["options"]["drop_top"], content["model"]["changed"]
    del content["data"]["order"], content["data"]["lossy"]
    content["provenance"]["secli"] = "0.0.1"
    file.write_text(json.dumps(content))
    assert read_training_record(job.run).provenance.secli == "0.0.1"
    assert state(job) == "interrupted"
    carry_out(job, silent)
    assert state(job) == "done"
    assert (job.run / "model.safetensors").read_bytes() == (whole.run / "model.safetensors").read_bytes()
    # an option of the record that differs from what is asked is still refused
    status(job, "interrupted")
    content = json.loads(file.read_text())
    content["model"]["options"]["drop_top"] = True
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"made with model.drop_top = True by an older .* takes False"):
        carry_out(job, silent)


def test_tables_say_when_versions_are_mixed(jobs: Jobs, tmp_path: Path) -> None:
    from secli.tables.compare import compare
    from secli.tables.groups import summarise
    from secli.tables.render import render

    several = jobs(seeds=[0, 1])
    for job in several:
        carry_out(job, silent)
    assert "version" not in render([compare(summarise([tmp_path / "sweep"])).main], "table", 200)
    file = several[0].run / "record.json"
    content = json.loads(file.read_text())
    content["provenance"]["secli"] = "0.0.1"
    file.write_text(json.dumps(content))
    comparison = compare(summarise([tmp_path / "sweep"]))
    text = render([comparison.main, *comparison.others], "table", 200)
    assert "0.0.1" in text
    assert "version" in text


def test_records_of_a_worker_name_the_command_of_the_sweep(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECLI_COMMAND", "")  # restored afterwards, whatever the worker sets
    (job,) = jobs(measure=MEASURE)
    ended = work(job.model_copy(update={"command": "secli sweep mine.yaml"}), io.StringIO())
    assert ended.how == "done", ended
    for file in ("record.json", "equivariance.json"):
        content = json.loads((job.run / file).read_text())
        assert content["provenance"]["command"] == "secli sweep mine.yaml"
