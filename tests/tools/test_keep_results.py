"""The records of a sweep's finished runs are kept whole, and what else there is would be lost is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from secli.cli.app import app
from secli.errors import InputError
from tools.keep_results import keep_all

SWEEP: dict[str, Any] = {
    "name": "tiny",
    "about": "a trial",
    "models": [{"name": "cnn", "options": {"widths": [2, 2, 2, 2]}}],
    "datasets": [{"name": "digits-scale", "realisations": "0-1", "sizes": [64, 20, 30]}],
    "training": {"epochs": 2, "batch": 16, "device": "cpu", "milestones": []},
    "measure": {"factors": [1, 0.5], "images": 5},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a sweep's file, its data, and the first of its two runs."""
    place = tmp_path_factory.mktemp("home")
    (place / "configs").mkdir()
    (place / "configs" / "tiny.yaml").write_text(yaml.safe_dump({**SWEEP, "results": "../results"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        arguments = ["sweep", "configs/tiny.yaml", "--jobs", "1", "--quiet"]
        result = CliRunner().invoke(app, [*arguments, "--only", "realisation=0"])
        assert result.exit_code == 0, result.stderr
        (folder,) = Path("sweeps/tiny/cnn").iterdir()
        other = folder.with_name(folder.name.replace("-r0-", "-r1-"))
        content = json.loads(Path("sweeps/tiny/sweep.json").read_text())
        entry = {**content["runs"][0], "run": f"cnn/{other.name}", "realisation": 1, "key": "another"}
        Path("sweeps/tiny/sweep.json").write_text(json.dumps({**content, "runs": [*content["runs"], entry]}))
    return place


def test_finished_runs_are_kept_and_others_told(home: Path, tmp_path: Path) -> None:
    sweep, into = home / "sweeps" / "tiny", tmp_path / "results"
    first, second = keep_all(sweep, into)
    assert first.endswith(": kept")
    assert second.endswith(": not begun")
    (run,) = (into / "tiny" / "cnn").iterdir()
    names = ["config.yaml", "equivariance.json", "metrics.jsonl", "record.json"]
    assert sorted(file.name for file in run.iterdir()) == names
    again = list(keep_all(sweep, into))
    assert again[0].endswith(": kept before")
    unfinished = sweep / again[1].partition(":")[0]
    shutil.copytree(sweep / again[0].partition(":")[0], unfinished)
    content = json.loads((unfinished / "record.json").read_text())
    (unfinished / "record.json").write_text(json.dumps({**content, "status": "running", "results": None}))
    try:
        lines = list(keep_all(sweep, into))
    finally:
        shutil.rmtree(unfinished)
    assert lines[1].endswith(": running: 2 of 2 epochs would be lost with this machine")
    assert len(list((into / "tiny" / "cnn").iterdir())) == 1
    with pytest.raises(InputError, match="no sweep here"):
        list(keep_all(tmp_path, into))


def test_the_tables_are_made_from_kept_records_alone(home: Path, tmp_path: Path) -> None:
    list(keep_all(home / "sweeps" / "tiny", tmp_path / "results"))
    arguments = ["compare", str(tmp_path / "results"), "--published", "--format", "json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    there = CliRunner().invoke(app, ["compare", str(home / "sweeps"), "--published", "--format", "json"])
    (kept,), (before,) = json.loads(result.stdout), json.loads(there.stdout)
    for key in ("model", "n", "test_error", "delta", "parameters", "training", "reported"):
        assert kept[key] == before[key], key


def test_a_sweep_takes_kept_records_as_done(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine: the file, the kept record, no data, no sweep."""
    list(keep_all(home / "sweeps" / "tiny", tmp_path / "results"))
    (tmp_path / "configs").mkdir()
    shutil.copy(home / "configs" / "tiny.yaml", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = ["sweep", "configs/tiny.yaml", "--jobs", "1"]
    dry = CliRunner().invoke(app, [*arguments, "--dry-run", "--format", "json"])
    assert dry.exit_code == 0, dry.stderr
    assert [run["state"] for run in json.loads(dry.stdout)["runs"]] == ["finished", "to do"]
    assert not (tmp_path / "sweeps").exists()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it is finished elsewhere")

    with monkeypatch.context() as patch:
        patch.setattr("secli.sweeps.local.LocalEngine.run", never)
        result = CliRunner().invoke(app, [*arguments, "--only", "realisation=0", "--format", "json"])
    assert result.exit_code == 0, result.stderr
    assert "1 finished run taken from kept records, without weights" in result.stderr
    (table,) = json.loads(result.stdout)["tables"]
    record = json.loads(next((tmp_path / "results").glob("tiny/cnn/*/record.json")).read_text())
    assert table["rows"][0]["test_error"]["mean"] == record["results"]["test_error"]
    (run,) = (tmp_path / "sweeps" / "tiny" / "cnn").iterdir()
    told = CliRunner().invoke(app, ["equivariance", str(run), "--data", str(home / "data" / "digits" / "r0")])
    assert told.exit_code == 2
    assert "its record stands here without the weights" in told.stderr
    assert told.stderr.count("\n") == 1


def test_results_that_are_not_there_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    arguments = ["sweep", "configs/tiny.yaml", "--dry-run"]
    for given, told in (("none", "--results none: no such directory"), ("", "--results: an empty path")):
        result = CliRunner().invoke(app, [*arguments, "--results", given])
        assert (result.exit_code, result.stdout) == (2, "")
        assert told in result.stderr
        assert result.stderr.count("\n") == 1
