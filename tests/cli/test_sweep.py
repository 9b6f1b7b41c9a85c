"""``secli sweep``: the plan, exit codes, bad input refused before anything is made, Ctrl-C and on again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from secli.cli.app import app
from secli.cli.sweep import _finish
from secli.config import ModelSettings, TrainingSettings
from secli.errors import InterruptedRunError, SecliError
from secli.sweeps.jobs import SweepJob
from secli.sweeps.scheduler import SweepOutcome
from secli.sweeps.spec import Sweep as Spec
from secli.training.devices import cores

Sweep = Callable[..., Result]
TINY: dict[str, Any] = {
    "name": "tiny",
    "about": "a trial",
    "models": [{"name": "cnn", "options": {"widths": [2, 2, 2, 2]}}],
    "datasets": [{"name": "digits-scale", "realisations": "0-1", "sizes": [64, 20, 30]}],
    "training": {"epochs": 2, "batch": 16, "device": "cpu", "milestones": []},
    "measure": {"factors": [1, 0.5], "images": 5},
}


def write(tmp_path: Path, **keys: Any) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in (TINY | keys).items() if value is not None}))
    return file


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Run the command in this process, in a directory of its own, its keys those of ``TINY`` unless given."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **keys: Any) -> Result:
        return CliRunner().invoke(app, ["sweep", str(write(tmp_path, **keys)), *arguments])

    return run


def refused(result: Result, *texts: str) -> None:
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for text in texts:
        assert text in result.stderr


def test_a_dry_run_lists_the_runs_and_what_they_cost_and_makes_nothing(sweep: Sweep, tmp_path: Path) -> None:
    result = sweep("--dry-run", "--format", "json", "--jobs", "2", seeds="0-1")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert [(run["model"], run["realisation"], run["seed"]) for run in content["runs"]] == [
        ("cnn", r, s) for r in (0, 1) for s in (0, 1)
    ]
    total = content["estimate"]
    assert (total["runs"], total["at_once"], total["of_unknown_size"]) == (4, 2, 0)
    assert total["seconds_of_work"] == pytest.approx(sum(run["seconds"] for run in content["runs"]))
    assert total["seconds"] == pytest.approx(total["seconds_of_work"] / 2)
    assert total["peak_memory_mib"] == max(run["memory_mib"] for run in content["runs"]) > 0
    assert content["runs"][0]["training"]["threads"] == 1
    table = sweep("--dry-run", "--only", "realisation=1", "--threads", str(min(2, cores())), seeds="0-1")
    assert table.exit_code == 0
    assert table.stdout.count("digits-scale r1") == 2
    assert "tiny: 2 runs, about" in table.stdout
    one = sweep("--dry-run", "--limit", "1", "--format", "json")
    assert len(json.loads(one.stdout)["runs"]) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_dry_run_shows_what_is_done_and_counts_what_is_left(sweep: Sweep, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"seeds": "0-2"}
    assert sweep("--only", "realisation=0", "--jobs", "1", "--quiet", **keys).exit_code == 0
    first, second, third = sorted(tmp_path.glob("sweeps/tiny/cnn/*/record.json"))
    for file, status in ((first, "failed"), (second, "running")):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"status": status}))
    before = sorted(tmp_path.rglob("*"))

    def planned(*arguments: str, **more: Any) -> dict[str, Any]:
        result = sweep("--dry-run", "--jobs", "1", "--format", "json", *arguments, **keys, **more)
        assert result.exit_code == 0, result.stderr
        content: dict[str, Any] = json.loads(result.stdout)
        return content

    content = planned()
    states = [run["state"] for run in content["runs"]]
    assert states == ["failed", "interrupted", "finished", "to do", "to do", "to do"]
    total, costs = content["estimate"], [run["seconds"] for run in content["runs"]]
    assert (total["runs"], total["runs_left"]) == (6, 4)
    assert (
        total["seconds"]
        == pytest.approx(total["seconds_of_work"])
        == pytest.approx(costs[1] + sum(costs[3:]))
    )
    assert total["seconds_of_work_in_all"] == pytest.approx(sum(costs))
    assert planned("--retry-failed")["estimate"]["runs_left"] == 5
    # other curves are to be measured of what is trained
    again = planned(measure={"factors": [1, 0.8], "images": 5})
    assert again["runs"][2]["state"] == "to measure"
    # the images are gone, the records are not
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    assert [run["state"] for run in planned()["runs"]] == states
    shutil.move(tmp_path / "elsewhere", tmp_path / "data")
    text = sweep("--dry-run", **keys).stdout
    assert "tiny: 6 runs, 1 interrupted, 1 failed, 1 finished; 4 left, about " in text
    assert " in all)" in text
    one = sweep("--dry-run", "--only", "seed=2", "--only", "realisation=0", **keys).stdout
    assert "tiny: 1 run, 1 finished; nothing is left to do (" in one
    assert sorted(tmp_path.rglob("*")) == before
    # what failed before it could begin has no record: its images tell which run it is
    shutil.rmtree(third.parent)
    third.parent.with_name(f"{third.parent.name}.failed").write_text("no memory")
    assert planned()["runs"][2]["state"] == "failed"


BAD: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "unknown model": ({"models": ["dss_v1x"]}, [], ["unknown model 'dss_v1x'; did you mean 'dss_v1'?"]),
    "no model": ({"models": []}, [], ["models = []"]),
    "twice": ({"seeds": [1, 1]}, [], ["is listed twice"]),
    "size": (
        {"models": ["mnist_cnn_56"], "datasets": [{"name": "digits", "image_size": 12}]},
        [],
        ["image_size is 28, but digits needs 12"],
    ),
    "smaller than it can be": ({"datasets": [{"name": "digits", "image_size": -1}]}, [], ["image_size = -1"]),
    "unknown key": ({"grids": {}}, [], ["unknown key 'grids'; did you mean 'grid'"]),
    "NaN": ({"training": {"lr": float("nan")}}, [], ["lr = nan"]),
    "factors": ({"measure": {"factors": [1, -1]}}, [], ["greater than 0, not -1"]),
    "nothing left": ({"exclude": [{"model": "*"}]}, [], ["no run is left"]),
    "table of no run": (
        {"tables": [{"title": "Errors", "only": {"model": "cmn"}}]},
        [],
        ["sweep tiny: table 'Errors': only: no run has model cmn; did you mean 'cnn'?"],
    ),
    "jobs": ({}, ["--jobs", "0"], ["--jobs"]),
    "limit": ({}, ["--limit", "0"], ["--limit"]),
    "only": ({}, ["--only", "modle=cnn"], ["--only modle=cnn: no run has 'modle'"]),
    "only nothing": ({}, ["--only", "dcn"], ["--only dcn: no run of the sweep matches"]),
    "engine": ({}, ["--engine", "slurm"], ["unknown engine --engine 'slurm'"]),
    "address": ({}, ["--address", "auto"], ["belongs to --engine ray"]),
    "tracker": ({}, ["--track", "mlfow"], ["unknown tracker --track 'mlfow'; did you mean 'mlflow'?"]),
    "format": ({}, ["--format", "yaml"], ["--format"]),
    "format of the plan": ({}, ["--dry-run", "--format", "latex"], ["--dry-run prints a table or json"]),
    "set": ({}, ["--set", "training.epoch=3"], ["unknown key 'epoch'; did you mean 'epochs'"]),
    "set a model": ({}, ["--set", "model.base=3"], ["unknown section 'model'"]),
    "set the seed": ({}, ["--set", "training.seed=3"], ["the sweep's file says the seeds"]),
    "source": (
        {"datasets": ["mnist-scale"]},
        ["--source", "nowhere"],
        ["--source nowhere: no such directory"],
    ),
    "out": ({}, ["--out", "tiny.yaml/x"], ["tiny.yaml: is a file, not a directory"]),
    "data": ({}, ["--data", "tiny.yaml"], ["tiny.yaml: is a file, not a directory"]),
    "stand-in that is missing": (
        {},
        ["--stand-in", "digits-scale=none"],
        ["none/r0: no such dataset directory"],
    ),
    "stand-in for nothing": ({}, ["--stand-in", "mnist=none"], ["the sweep takes no mnist"]),
    "stand-in without a name": ({}, ["--stand-in", "none"], ["write DATASET=DIR"]),
    "stand-in for what is not known": (
        {},
        ["--stand-in", "digit=x"],
        ["unknown dataset 'digit'; did you mean"],
    ),
    "precision": ({}, ["--set", "training.precision='16'"], ["--precision 16: needs a CUDA device"]),
    "threads": ({}, ["--threads", "999"], ["threads 999: this machine has", "--threads", "training.threads"]),
    "threads of a dry run": (
        {"training": TINY["training"] | {"threads": 999}},
        ["--dry-run"],
        ["threads 999: this machine has"],
    ),
    "devices": ({}, ["--set", "training.devices=999"], ["--devices 999: this machine has"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_made(sweep: Sweep, tmp_path: Path, case: str) -> None:
    keys, arguments, texts = BAD[case]
    refused(sweep(*arguments, **keys), *texts)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


def test_bad_files_and_pictures_that_are_not_there(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "cache"))
    refused(sweep("--offline", datasets=["mnist-scale"], measure=None), "mnist", "offline")
    assert not (tmp_path / "sweeps").exists()
    (tmp_path / "bad.yaml").write_text("name: [")
    for name, text in [
        ("bad.yaml", "not valid YAML (line"),
        ("none.yaml", "no such file"),
        (".", "a directory"),
    ]:
        refused(CliRunner().invoke(app, ["sweep", name]), text)


def test_a_mistake_in_the_file_does_not_wait_for_torch(tmp_path: Path) -> None:
    """Told before the import; a control, further on in the command, shows that the check would see torch."""
    script = (
        "import sys\n"
        "from secli.cli.app import app\n"
        "try:\n"
        "    app(['sweep', *sys.argv[1:], '--dry-run'])\n"
        "except SystemExit as end:\n"
        "    print(end.code, 'torch' in sys.modules)\n"
    )
    file = tmp_path / "s.yaml"

    def told(model: str) -> str:
        file.write_text(f"name: s\nabout: a trial\nmodels: [{model}]\ndatasets: [digits-scale]\n")
        command = [sys.executable, "-c", script, str(file), "--only", "model=nothing"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    assert told("cnnn") == "2 False\n"
    assert told("cnn") == "2 True\n"


@pytest.mark.parametrize("package", ["mlflow", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_one_line(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    refused(sweep("--track", package), f"pip install 'secli[{package}]'")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_sweep_is_carried_out_once_and_its_table_printed_again(sweep: Sweep, tmp_path: Path) -> None:
    first = sweep("--limit", "1", "--jobs", "1", "--format", "csv")
    assert first.exit_code == 0, first.stderr
    assert "[1/1] done: cnn" in first.stderr
    assert "tiny: 1 runs finished in sweeps/tiny" in first.stderr
    record = json.loads((tmp_path / "sweeps/tiny/sweep.json").read_text())
    assert len(record["runs"]) == 1  # only one dataset has been made
    (run,) = (tmp_path / "sweeps/tiny/cnn").iterdir()
    before = (run / "state/last.pt").stat().st_mtime_ns
    both = sweep("--jobs", "1", "--format", "csv")
    assert both.exit_code == 0, both.stderr
    assert "[2/2] done: cnn" in both.stderr
    assert len(json.loads((tmp_path / "sweeps/tiny/sweep.json").read_text())["runs"]) == 2
    again = sweep("--jobs", "2", "--format", "csv", "--quiet")  # the number of workers is part of no key
    assert (again.exit_code, again.stdout, again.stderr) == (0, both.stdout, "")
    assert (run / "state/last.pt").stat().st_mtime_ns == before
    # a damaged run is told by name, not trained over, and takes no other with it
    (run / "record.json").write_text("{")
    damaged = sweep("--quiet")
    assert damaged.exit_code == 1
    assert "1 of 2 runs failed, the first: cnn" in damaged.stderr
    assert "record.json: damaged record (not JSON); --retry-failed tries them again" in damaged.stderr
    assert "Missing: 1 of 2 runs of the sweep (1 damaged)." in damaged.stdout
    made = sweep("--quiet", "--retry-failed", "--format", "csv")
    assert (made.exit_code, made.stderr) == (0, "")
    assert json.loads((run / "record.json").read_text())["status"] == "finished"
    assert (run.with_name(f"{run.name}.damaged") / "record.json").read_text() == "{"


def test_runs_of_ones_own_pictures_are_remembered_when_others_are_asked_for(
    sweep: Sweep, tmp_path: Path
) -> None:
    """The directory of such a dataset is known only once its pictures are read."""
    for label, shade in (("dark", 40), ("light", 200)):
        for number in range(16):
            picture = np.random.default_rng(number).integers(0, 50, (28, 28), dtype=np.uint8)
            (tmp_path / "own" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture + np.uint8(shade), "L").save(tmp_path / "own" / label / f"{number}.png")
    keys: dict[str, Any] = {
        "models": [{"name": "cnn", "options": {"widths": [2, 2, 2, 2], "classes": 2}}],
        "datasets": [
            {"name": name, "sizes": [16, 8, 8], "image_size": 28} for name in ("folder", "folder-scale")
        ],
        "measure": None,
        "training": TINY["training"] | {"epochs": 1, "batch": 8},
    }
    for arguments, expected in [
        (["--only", "dataset=folder"], ["folder"]),
        (["--only", "dataset=folder-scale"], ["folder", "folder-scale"]),
        (["--only", "dataset=folder"], ["folder", "folder-scale"]),
    ]:
        result = sweep("--jobs", "1", "--source", "own", *arguments, **keys)
        assert result.exit_code == 0, result.stderr
        runs = json.loads((tmp_path / "sweeps/tiny/sweep.json").read_text())["runs"]
        assert [run["run"].split("/")[1].rpartition("-r0")[0] for run in runs] == expected
        assert all((tmp_path / "sweeps/tiny" / run["run"]).is_dir() for run in runs)
    # not one whose directory is gone
    shutil.rmtree(tmp_path / "sweeps/tiny" / runs[1]["run"])
    assert sweep("--jobs", "1", "--source", "own", "--only", "dataset=folder", **keys).exit_code == 0
    assert len(json.loads((tmp_path / "sweeps/tiny/sweep.json").read_text())["runs"]) == 1


def test_a_failed_run_fails_alone_and_is_tried_again_on_request(sweep: Sweep, tmp_path: Path) -> None:
    grid = {"training.lr": [1e30, 0.01]}
    keys = {"grid": grid, "measure": None, "datasets": [{"name": "digits-scale", "sizes": [64, 20, 30]}]}
    for arguments in ([], [], ["--retry-failed"]):
        result = sweep("--jobs", "1", *arguments, **keys)
        assert result.exit_code == 1
        assert "1 of 2 runs failed, the first: cnn" in result.stderr
        assert "the loss is not finite" in result.stderr
        assert result.stderr.splitlines()[-1].endswith("--retry-failed tries them again")
        assert "Traceback" not in result.stderr
        began = arguments == ["--retry-failed"] or "done: cnn" in result.stderr
        assert ("failed: cnn" in result.stderr) == began
        assert result.stdout


def job(seed: int) -> SweepJob:
    return SweepJob(
        key=f"k{seed}",
        title=f"cnn s{seed}",
        run=Path(f"run{seed}"),
        model=ModelSettings(name="cnn"),
        training=TrainingSettings(seed=seed),
        data=Path("data"),
    )


@pytest.mark.parametrize(
    ("left", "kind", "told"),
    [
        (["interrupted", ""], InterruptedRunError, "stopped with 2 runs to do"),
        (["held by another"], SecliError, "1 runs are in other hands"),
        ([], SecliError, "sweep tiny: "),
    ],
)
def test_failures_are_told_beside_what_is_left(left: list[str], kind: type[SecliError], told: str) -> None:
    failed = {"k9": (job(9), "the loss is not finite")}
    outcome = SweepOutcome([], failed, {f"k{i}": (job(i), why) for i, why in enumerate(left)})
    with pytest.raises(kind) as error:
        _finish(Spec.model_validate(TINY), Path(), outcome, [job(i) for i in range(10)], "table", True)
    assert told in str(error.value)
    told = "1 of 10 runs failed, the first: cnn s9: the loss is not finite; --retry-failed tries them again"
    assert str(error.value).endswith(told)
    # what no other try can mend is not said to be mended by one
    outcome.hopeless.add("k9")
    with pytest.raises(kind) as error:
        _finish(Spec.model_validate(TINY), Path(), outcome, [job(i) for i in range(10)], "table", True)
    assert str(error.value).endswith("the loss is not finite")


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "secli", "sweep", "tiny.yaml", "--format", "csv", *arguments]
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_ctrl_c_saves_the_state_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write(tmp_path, training=TINY["training"] | {"epochs": 12}, measure=None)
    process = start(tmp_path, "--jobs", "1")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("sweeps/tiny/cnn/*/state/last.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    assert last.startswith("interrupted: sweep tiny: stopped with ")
    assert last.endswith(" runs to do; their state is saved: repeat the command to go on")
    statuses = [
        json.loads(file.read_text())["status"] for file in tmp_path.glob("sweeps/tiny/cnn/*/record.json")
    ]
    assert "interrupted" in statuses
    assert "running" not in statuses
    process = start(tmp_path, "--jobs", "1")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("\n") > 1
    assert list(tmp_path.rglob("*.tmp*")) == []


@pytest.mark.parametrize("where", ["prepare_jobs", "carry_out_jobs"])
def test_ctrl_c_at_any_other_time_says_what_to_do(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"secli.cli.sweep.{where}", stop)
    result = sweep("--quiet")
    assert result.exit_code == 130
    assert result.stderr == "interrupted: sweep tiny: repeat the command to go on\n"


def workers_of(session: int) -> list[int]:
    """Return all processes that a sweep started: its own, and its workers by the leader they come from."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
    found = [session]
    for parent in found:
        found.extend(child for child, its in parents.items() if its == parent)
    return found


def error_columns(table: str) -> list[list[str]]:
    """Return the table without the columns of times."""
    rows = [line.split(",") for line in table.splitlines() if line]
    timed = {i for i, name in enumerate(rows[0]) if "seconds" in name or "second" in name}
    return [[cell for i, cell in enumerate(row) if i not in timed] for row in rows]


@pytest.mark.slow
def test_killed_three_times_at_random_moments_the_table_is_that_of_the_undisturbed_sweep(
    tmp_path: Path,
) -> None:
    seed = int.from_bytes(os.urandom(2), "big")
    chance = random.Random(seed)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    models = [TINY["models"][0], {"name": "dss_v1", "options": {"channels": 2}}]
    for place in (calm, killed):
        place.mkdir()
        write(place, models=models, training=TINY["training"] | {"epochs": 25})
    expected, err = start(calm, "--jobs", "2", "-q").communicate(timeout=300)
    assert err == ""
    finished: dict[Path, bytes] = {}
    for _ in range(3):
        process = start(killed, "--jobs", "2", "-q")
        time.sleep(chance.uniform(3, 14))
        for pid in workers_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        for state, content in finished.items():
            assert state.read_bytes() == content, f"trained twice (seed {seed})"
        for record in killed.glob("sweeps/tiny/*/*/record.json"):
            if json.loads(record.read_text())["status"] == "finished":
                finished[record] = record.read_bytes()
    found, err = start(killed, "--jobs", "2", "-q").communicate(timeout=300)
    assert err == ""
    for state, content in finished.items():
        assert state.read_bytes() == content, f"trained twice (seed {seed})"
    assert error_columns(found) == error_columns(expected), f"seed {seed}"
    weights = {file.relative_to(calm): file.read_bytes() for file in calm.rglob("model.safetensors")}
    assert {
        file.relative_to(killed): file.read_bytes() for file in killed.rglob("model.safetensors")
    } == weights
    assert len(weights) == 4
    for record in killed.rglob("*.json"):
        json.loads(record.read_text())
