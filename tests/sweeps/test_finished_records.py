"""Records of runs that were finished elsewhere count as done where they are whole, and cost themselves alone else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secli.records.kept import keep, read_kept
from secli.records.schema import read_training_record
from secli.sweeps.finished_records import finished_record, take_finished
from secli.sweeps.jobs import SweepJob, carry_out, put_aside, standing
from secli.tables.collect import collect
from secli.training.events import silent
from tests.sweeps.conftest import Jobs, sweep_of

MEASURE = {"factors": [1, 0.5], "images": 5}
SMALL = {"record.json", "config.yaml", "metrics.jsonl", "equivariance.json"}


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> SweepJob:
    """One finished job, trained and measured once for all these tests."""
    from secli.sweeps.plan import plan
    from secli.sweeps.prepare_data import Sources, jobs_of, prepare, requested_datasets

    runs = plan(sweep_of(measure=MEASURE), 1)
    ready = prepare(requested_datasets(runs), Sources(made))
    (job,) = jobs_of(runs, ready, tmp_path_factory.mktemp("first"))
    carry_out(job, silent)
    return job


@pytest.fixture
def kept(trained: SweepJob, tmp_path: Path) -> Path:
    """The folder of its record, as ``results/<sweep>/<model>/<run>``."""
    folder = tmp_path / "results" / "tiny" / trained.run.parent.name / trained.run.name
    assert keep(trained.run, folder) is not None
    return folder


def test_a_kept_record_is_small_whole_and_names_no_path_of_the_machine(
    kept: Path, trained: SweepJob, made: Path
) -> None:
    assert {file.name for file in kept.iterdir()} == SMALL
    for file in kept.iterdir():
        text = file.read_text()
        assert str(made) not in text, file.name
        assert str(trained.run.parent.parent) not in text, file.name
    record, curves = read_kept(kept)
    before = read_kept(trained.run)
    assert record.results == before.record.results
    assert curves is not None
    assert before.curves is not None
    assert curves.rows == before.curves.rows
    assert record.data.path == f"data/{record.data.name}/r0"
    assert curves.run == f"cnn/{trained.run.name}"
    assert keep(trained.run, kept) is None  # nothing new


def test_a_command_keeps_its_words_and_loses_its_folders(trained: SweepJob, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    content = json.loads((run / "record.json").read_text())
    content["provenance"]["command"] = "secli train cnn --data '/home/my own/x y' --out=/a/b lr=1/2 runs/y"
    (run / "record.json").write_text(json.dumps(content))
    keep(run, tmp_path / "kept")
    record = read_training_record(tmp_path / "kept")
    assert record.provenance.command == "secli train cnn --data 'x y' --out=b lr=1/2 runs/y"


def test_a_kept_record_counts_as_done_and_enters_the_tables(kept: Path, jobs: Jobs, tmp_path: Path) -> None:
    (job,) = jobs(measure=MEASURE)
    for place in (tmp_path / "results", tmp_path / "results" / "tiny"):
        assert finished_record(job, [place]) == kept
    lines: list[str] = []
    assert standing(job).state == "todo"
    assert take_finished([job], [tmp_path / "results"], lines.append) == 1
    assert lines == []
    assert standing(job).state == "done"
    assert {file.name for file in job.run.iterdir()} == SMALL
    (run,), aside = collect([job.run])
    assert aside == []
    assert run.training == read_training_record(kept)
    assert run.curves is not None
    assert take_finished([job], [tmp_path / "results"], lines.append) == 0


def test_what_stands_in_the_sweep_is_left_as_it_is(kept: Path, jobs: Jobs, tmp_path: Path) -> None:
    (job,) = jobs(measure=MEASURE)
    job.run.mkdir(parents=True)
    (job.run / "mine").write_text("x")
    assert take_finished([job], [tmp_path / "results"], lambda line: None) == 0
    assert [file.name for file in job.run.iterdir()] == ["mine"]


Damage = Callable[[Path], Any]


def change(name: str, **changes: Any) -> Damage:
    """Return what changes keys of a JSON file."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return damage


def cut(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40])


def drop(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def other(name: str, before: str, after: str) -> Damage:
    def damage(folder: Path) -> None:
        text = (folder / name).read_text()
        assert before in text
        (folder / name).write_text(text.replace(before, after))

    return damage


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (drop("record.json"), "no such record"),
        (cut("record.json"), "record.json"),
        (change("record.json", status="running", results=None), "running, not finished"),
        (drop("config.yaml"), "config.yaml"),
        (other("config.yaml", "batch: 16", "batch: 17"), "says other settings than record.json"),
        (drop("metrics.jsonl"), "metrics.jsonl: missing"),
        (cut("metrics.jsonl"), "line 2 is damaged"),
        (other("metrics.jsonl", '"epoch": 2', '"epoch": 3'), "not the metrics of all 2 epochs"),
        (
            other("metrics.jsonl", '"val_error": 0', '"val_error": 7'),
            "has another error than record.json says",
        ),
        (drop("equivariance.json"), "not measured as this sweep asks"),
        (cut("equivariance.json"), "equivariance.json"),
        (change("equivariance.json", seed=3), "curves of another run"),
    ],
)
def test_a_damaged_record_costs_itself_alone(
    kept: Path, jobs: Jobs, tmp_path: Path, damage: Damage, told: str
) -> None:
    damage(kept)
    (job,) = jobs(measure=MEASURE)
    lines: list[str] = []
    assert take_finished([job], [tmp_path / "results"], lines.append) == 0
    (line,) = lines
    assert line.startswith(f"{kept}: does not count as done: ")
    assert told in line
    assert "\n" not in line
    assert standing(job).state == "todo"


def test_a_record_under_another_name_is_another_runs(kept: Path, jobs: Jobs, tmp_path: Path) -> None:
    (job,) = jobs(measure=MEASURE, training={"epochs": 1, "batch": 16, "device": "cpu", "milestones": []})
    kept.rename(kept.with_name(job.run.name))
    lines: list[str] = []
    assert take_finished([job], [tmp_path / "results"], lines.append) == 0
    assert "training.epochs = 2" in lines[0]


def test_a_record_of_other_data_does_not_count(kept: Path, jobs: Jobs, tmp_path: Path) -> None:
    (job,) = jobs(measure=MEASURE)
    lines: list[str] = []
    elsewhere = job.model_copy(update={"data_digest": "0" * 64})
    assert finished_record(elsewhere, [tmp_path / "results"], lines.append) is None
    assert lines == [f"{kept}: does not count as done: trained on other data"]


def test_a_record_without_weights_cannot_be_measured_again_and_says_so(
    kept: Path, jobs: Jobs, tmp_path: Path
) -> None:
    (job,) = jobs(measure=MEASURE)
    take_finished([job], [tmp_path / "results"], lambda line: None)
    asks = job.model_copy(update={"measure": job.measure and job.measure.model_copy(update={"images": 6})})
    found = standing(asks)
    assert found.state == "failed"
    assert "its weights are not here" in (found.reason or "")
    assert put_aside(asks) is not None  # another try makes it anew
    assert standing(asks).state == "todo"


def test_keeping_again_mends_what_was_damaged(kept: Path, trained: SweepJob) -> None:
    whole = read_kept(kept)
    cut("record.json")(kept)
    assert keep(trained.run, kept) is not None
    assert read_kept(kept) == whole
