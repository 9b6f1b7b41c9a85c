"""Run directories: whole, never overwritten silently, resumed only as recorded, read back with checks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from secli.config import ModelSettings, TrainingSettings, read_config
from secli.datasets.store import ScaleDataset
from secli.errors import InputError, InterruptedRunError, SecliError
from secli.records.notes import Note
from secli.records.schema import RECORD_FILE, read_training_record
from secli.storage.owners import owned_name
from secli.tables.collect import collect
from secli.training import run as run_module
from secli.training.events import Begun, EpochEnded, Event, Remark
from secli.training.run import load_run, train

Quick = Callable[..., TrainingSettings]
Digest = Callable[[Path], str]
CNN = ModelSettings(name="cnn")


@pytest.fixture
def finished(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> Path:
    """A finished run of one epoch."""
    return train(CNN, tiny, quick(epochs=1), tmp_path / "runs")[0]


def files(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}


def rewrite(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((run / RECORD_FILE).read_text())
    change(content)
    (run / RECORD_FILE).write_text(json.dumps(content))


def test_a_run_directory_holds_what_it_should(finished: Path, tiny: ScaleDataset) -> None:
    assert set(files(finished)) == {
        "config.yaml",
        "metrics.jsonl",
        "model.safetensors",
        "record.json",
        "state/last.pt",
    }
    assert not list(finished.parent.glob(".*"))
    record = read_training_record(finished)
    assert record.data == tiny.info()
    assert record.model.parameters == 34_670
    assert record.provenance.threads == 1
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert list(rows[0]) == [
        "epoch",
        "train_loss",
        "train_error",
        "val_error",
        "lr",
        "seconds",
        "images_per_second",
    ]


def test_the_config_of_a_run_repeats_it(
    finished: Path, tiny: ScaleDataset, tmp_path: Path, digest: Digest
) -> None:
    config = read_config(finished / "config.yaml")
    assert config.model is not None
    assert config.data == str(tiny.path)
    assert set(config.training) == set(TrainingSettings.model_fields)
    settings = TrainingSettings.model_validate(config.training)
    again, _ = train(config.model, tiny, settings, tmp_path / "again")
    assert again.name == finished.name
    assert digest(again) == digest(finished)
    assert yaml.safe_load((again / "config.yaml").read_text())["training"]["device"] == "cpu"


def test_a_standing_run_is_refused_and_left_alone(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    before = files(finished)
    with pytest.raises(InputError, match="a run exists here already; add --resume to go on, or --force"):
        train(CNN, tiny, quick(epochs=1), tmp_path / "runs")
    with pytest.raises(InputError, match="--resume and --force exclude each other"):
        train(CNN, tiny, quick(epochs=1), tmp_path / "runs", resume=True, force=True)
    assert files(finished) == before


def test_resuming_a_finished_run_does_nothing(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    before = files(finished)
    events: list[Event] = []
    run, record = train(CNN, tiny, quick(epochs=1), tmp_path / "runs", resume=True, on_event=events.append)
    assert (run, record.status) == (finished, "finished")
    assert events == [Remark(f"{finished}: finished already, nothing to do")]
    assert files(finished) == before


def test_force_replaces_a_run_only_when_the_new_one_can_start(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(finished)
    (finished / "notes.txt").write_text("of the old run")
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(InputError, match="--device cuda"):
            train(CNN, tiny, quick(epochs=1, device="cuda"), tmp_path / "runs", force=True)
    assert {**before, "notes.txt": b"of the old run"} == files(finished)
    train(CNN, tiny, quick(epochs=1), tmp_path / "runs", force=True)
    after = files(finished)
    assert "notes.txt" not in after
    assert after["model.safetensors"] == before["model.safetensors"]
    assert not list(finished.parent.glob(".*"))


def test_a_finished_run_stands_until_the_one_that_replaces_it_is_finished(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    before = files(finished)
    seen: list[bool] = []

    def watch(event: Event) -> None:
        seen.append(files(finished) == before)
        if isinstance(event, EpochEnded):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(
        InterruptedRunError, match=f"{finished.name}: .*; the run that it was to replace is kept"
    ):
        train(CNN, tiny, quick(epochs=1), tmp_path / "runs", force=True, on_event=watch)
    assert len(seen) > 1
    assert all(seen)
    assert files(finished) == before
    assert [path.name for path in finished.parent.iterdir()] == [finished.name]


def test_a_run_that_fails_does_not_replace_a_finished_one(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(finished)
    monkeypatch.setattr(
        "secli.training.fit.divergence", lambda *_: Note.of("failed", error="the loss is not finite")
    )
    with pytest.raises(SecliError, match=r"not finite; .*; the run that it was to replace is kept"):
        train(CNN, tiny, quick(epochs=1), tmp_path / "runs", force=True)
    assert files(finished) == before
    assert [path.name for path in finished.parent.iterdir()] == [finished.name]


def test_an_unfinished_run_is_replaced_at_once_and_the_new_one_can_be_gone_on_with(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path, digest: Digest
) -> None:
    expected = digest(finished)
    rewrite(
        finished,
        lambda content: content.update(
            status="failed", results=None, reason=Note.of("failed", error="of old").model_dump()
        ),
    )

    def stop(event: Event) -> None:
        if isinstance(event, Begun):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError, match="--resume to go on"):
        train(CNN, tiny, quick(epochs=1), tmp_path / "runs", force=True, on_event=stop)
    assert read_training_record(finished).status == "interrupted"
    _, record = train(CNN, tiny, quick(epochs=1), tmp_path / "runs", resume=True)
    assert (record.status, digest(finished)) == ("finished", expected)


@pytest.mark.parametrize("moment", ["before the swap", "between the renames", "after them"])
def test_a_killed_replacement_hides_no_finished_run(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path, moment: str
) -> None:
    """What a process leaves that is killed at these moments, by its names."""
    expected = files(finished)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    mark = owned_name("x", "tmp").removeprefix(".x.").replace(f"{os.getpid()}-", f"{process.pid}-", 1)
    fresh = finished.with_name(f".{finished.name}.{mark}")
    shutil.copytree(finished, fresh)
    if moment != "before the swap":
        finished.rename(fresh.with_name(fresh.name.replace(".tmp", ".old")))
    if moment == "after them":
        fresh.rename(finished)
    runs, _ = collect([tmp_path / "runs"])
    assert [run.path for run in runs] == [finished]
    train(CNN, tiny, quick(epochs=1), tmp_path / "runs", resume=True)
    assert files(finished) == expected
    assert [path.name for path in finished.parent.iterdir()] == [finished.name]


def test_a_signal_while_the_run_is_being_made_is_not_lost(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = run_module._create

    def interrupted(*arguments: Any) -> None:
        create(*arguments)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(run_module, "_create", interrupted)
    with pytest.raises(InterruptedRunError, match="stopped in epoch 1 of 3, after step 0"):
        train(CNN, tiny, quick(epochs=3), tmp_path / "runs")


def test_a_directory_that_is_no_run_is_never_removed(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    (finished / RECORD_FILE).unlink()
    for force in (True, False):
        with pytest.raises(InputError, match=r"not a run directory \(no record.json\)"):
            train(CNN, tiny, quick(epochs=1), tmp_path / "runs", force=force, resume=not force)
    assert (finished / "model.safetensors").exists()


def test_resuming_with_other_settings_is_refused_by_name(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resume(**changes: Any) -> None:
        train(CNN, tiny, quick(epochs=1, **changes), tmp_path / "runs", resume=True)

    with pytest.raises(InputError, match=r"--resume: training.threads = 2, but .* was started with 1"):
        resume(threads=2)
    resume(threads=0, device="auto")
    rewrite(finished, lambda content: content["training"].update(lr=0.5))
    with pytest.raises(InputError, match=r"--resume: training.lr = 0.01, but .* was started with 0.5"):
        resume()
    rewrite(finished, lambda content: content["training"].update(lr=0.01))
    rewrite(finished, lambda content: content["model"]["options"].update(classes=11))
    with pytest.raises(InputError, match=r"--resume: model.classes = 10, but .* was started with 11"):
        resume()
    rewrite(finished, lambda content: content["model"]["options"].update(classes=10))
    rewrite(finished, lambda content: content["data"].update(digest="0" * 64))
    with pytest.raises(InputError, match=r"are not those that .* was started with"):
        resume()


def test_the_machine_of_a_resumed_run_is_the_recorded_one(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    rewrite(finished, lambda content: content.update(status="running", results=None))
    open_choice = {k: v for k, v in quick(epochs=1).model_dump().items() if k not in ("threads", "device")}
    settings = TrainingSettings.model_validate(open_choice)
    _, record = train(CNN, tiny, settings, tmp_path / "runs", resume=True)
    assert (record.training["threads"], record.training["device"]) == (1, "cpu")
    assert record.status == "finished"


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_run_without_a_usable_state_starts_over(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path, digest: Digest, damage: str
) -> None:
    expected = digest(finished)
    rewrite(finished, lambda content: content.update(status="running", results=None))
    state = finished / "state" / "last.pt"
    if damage == "missing":
        state.unlink()
    else:
        state.write_bytes(state.read_bytes()[:-500])
    (finished / "model.safetensors").unlink()
    events: list[Event] = []
    train(CNN, tiny, quick(epochs=1), tmp_path / "runs", resume=True, on_event=events.append)
    assert events[0] == Remark(f"{finished}: no usable state; starting over")
    assert digest(finished) == expected


def test_another_torch_is_told_when_resuming(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    rewrite(finished, lambda content: content.update(status="running"))
    rewrite(finished, lambda content: content["provenance"]["libraries"].update(torch="1.0"))
    events: list[Event] = []
    train(CNN, tiny, quick(epochs=1), tmp_path / "runs", resume=True, on_event=events.append)
    assert isinstance(events[0], Remark)
    assert "begun with torch 1.0, going on with" in events[0].text


def test_resume_starts_a_run_that_does_not_exist(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    _, record = train(CNN, tiny, quick(epochs=1), tmp_path, resume=True)
    assert record.status == "finished"


def test_two_processes_never_train_in_one_directory(
    finished: Path, tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl")
    rewrite(finished, lambda content: content.update(status="running", results=None))
    before = files(finished)
    held = os.open(finished, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        for force in (True, False):
            with pytest.raises(InputError, match="another process is training here"):
                train(CNN, tiny, quick(epochs=1), tmp_path / "runs", force=force, resume=not force)
    finally:
        os.close(held)
    assert files(finished) == before


def test_bad_input_makes_no_directory(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    for model, message in [
        (ModelSettings(name="cn"), "unknown model 'cn'"),
        (ModelSettings(name="cnn", options={"clases": 3}), "unknown key 'clases'; did you mean 'classes'"),
        (ModelSettings(name="cnn", options={"in_channels": 3}), "images of 1 channel, .* takes 3"),
    ]:
        with pytest.raises(InputError, match=message):
            train(model, tiny, quick(), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_loading_a_run_checks_its_record_and_weights(finished: Path, tmp_path: Path) -> None:
    network, record = load_run(finished)
    assert record.model.name == "cnn"
    assert not network.training
    rewrite(finished, lambda content: content["model"].update(name="dss_v1", options={}))
    with pytest.raises(InputError, match="weights of model 'cnn', but the record says 'dss_v1'"):
        load_run(finished)
    rewrite(finished, lambda content: content["model"].update(name="cnn"))
    (finished / "model.safetensors").unlink()
    with pytest.raises(InputError, match="its record stands here without the weights"):
        load_run(finished)
    (finished / RECORD_FILE).write_text("{")
    with pytest.raises(InputError, match="damaged record"):
        load_run(finished)
    with pytest.raises(InputError, match="no such run directory"):
        load_run(tmp_path / "nowhere")
