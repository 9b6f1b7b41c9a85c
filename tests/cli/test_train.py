"""``secli train``: the path on stdout, one summary on stderr, settings merged in order, killed and resumed."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from secli.cli.app import app
from secli.cli.train import showing
from secli.datasets.build import make_dataset
from secli.datasets.manifest import SPLITS, SplitName
from secli.datasets.store import Split, open_dataset, write_dataset
from secli.training.events import Begun, EpochEnded, Remark, Stepped

QUICK = ["--epochs", "1", "--batch", "16", "--threads", "1", "--device", "cpu"]

Train = Callable[..., Result]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 training digits, 20 for validation, 30 for the test."""
    (made,) = make_dataset("digits-scale", tmp_path_factory.mktemp("data"), sizes=(64, 20, 30), jobs=1)
    return made.path


@pytest.fixture
def train(data: Path, tmp_path: Path) -> Train:
    """Run the command in this process."""

    def run(*arguments: str, dataset: Path | None = data) -> Result:
        given = ["--data", str(dataset)] if dataset else []
        return CliRunner().invoke(app, ["train", *arguments, *given, "--out", str(tmp_path / "runs")])

    return run


def refused(result: Result, text: str) -> None:
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


def test_stdout_is_the_run_and_stderr_one_line(train: Train, tmp_path: Path) -> None:
    result = train("cnn", *QUICK)
    assert result.exit_code == 0, result.stderr
    run = Path(result.stdout.strip())
    assert run.parent == tmp_path / "runs" / "cnn"
    record = json.loads((run / "record.json").read_text())
    error = 100 * record["results"]["test_error"]
    assert result.stderr.count("\n") == 1
    assert f"seed 0: test error {error:.2f} % (30 images), best epoch 1 of 1" in result.stderr
    refused(train("cnn", *QUICK), "add --resume to go on, or --force to replace it")
    again = train("cnn", *QUICK, "--resume")
    assert (again.exit_code, again.stdout) == (0, result.stdout)
    assert "finished already, nothing to do" in again.stderr
    quiet = train("cnn", *QUICK, "--force", "--quiet")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, result.stdout, "")


def test_flags_win_over_set_over_yaml_over_the_models_defaults(
    train: Train, tmp_path: Path, data: Path
) -> None:
    file = tmp_path / "config.yaml"
    content = {
        "model": {"name": "cnn", "options": {"std": 0.5}},
        "data": str(data),
        "training": {"epochs": 2, "batch": 8, "lr": 0.5, "momentum": 0.5, "threads": 1},
    }
    file.write_text(yaml.safe_dump(content))
    arguments = ["--config", str(file), "--set", "training.batch=32", "--set", "training.lr=0.4"]
    result = train(*arguments, "--set", "model.mean=0.25", "--lr", "0.003", "--epochs", "1", dataset=None)
    assert result.exit_code == 0, result.stderr
    record = json.loads((Path(result.stdout.strip()) / "record.json").read_text())
    training = record["training"]
    assert [training[key] for key in ("epochs", "batch", "lr", "momentum")] == [1, 32, 0.003, 0.5]
    assert (training["optimizer"], training["gamma"]) == ("sgd", 0.5)
    assert [record["model"]["options"][key] for key in ("std", "mean")] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["cn"], "unknown model 'cn'; did you mean"),
        ([], "no model: give its name"),
        (["cnn", "--epochs", "0"], "--epochs: epochs = 0: input should be greater than or equal to 1"),
        (["cnn", "--lr", "nan"], "--lr: lr = nan: input should be a finite number"),
        (
            ["cnn", "--augment", "crop"],
            "--augment: augment = 'crop': input should be 'none', 'scale' or 'stl10'",
        ),
        (["cnn", "--precision", "8"], "--precision: precision = '8'"),
        (["cnn", "--device", "tpu"], "--device: device = 'tpu'"),
        (["cnn", "--set", "training.epoch=3"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["cnn", "--set", "model.clases=3"], "unknown key 'clases'; did you mean 'classes'?"),
        (["cnn", "--set", "modle.classes=3"], "unknown section 'modle'; did you mean 'model'?"),
        (["cnn", "--set", "model.classes=3"], "add --set model.classes=10"),
        (["cnn", "--config", "missing.yaml"], "--config missing.yaml: no such file"),
        (["cnn", "--resume", "--force"], "--resume and --force exclude each other"),
        (["cnn", "--batch", "1"], "training.batch = 1: at least 2 images"),
        (["cnn", "--epochs", "few"], "--epochs"),
        (
            ["cnn", "--accumulate", "0"],
            "--accumulate: accumulate = 0: input should be greater than or equal to 1",
        ),
        (["cnn", "--batch", "8", "--accumulate", "9"], "a batch of 8 images has no more parts than images"),
        (
            ["cnn", "--batch", "8", "--accumulate", "5"],
            "needs 2 images (two for the batch norm); give at most 4",
        ),
        (["cnn", "--compile", "--checkpoint-activations"], "exclude each other"),
        (["cnn", "--compile", "--devices", "2"], "training.compile: works on one device, not on 2"),
        (["cnn", "--set", "training.checkpoint_activations=perhaps"], "checkpoint_activations = 'perhaps'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    train: Train, tmp_path: Path, arguments: list[str], text: str
) -> None:
    refused(train(*arguments), text)
    assert not (tmp_path / "runs").exists()


def test_a_missing_compiler_is_one_line_and_leaves_no_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    refused(train("cnn", *QUICK, "--compile"), "torch needs a C++ compiler")
    assert not (tmp_path / "runs").exists()


def test_ways_to_take_a_step_are_recorded_and_part_of_the_runs_name(train: Train) -> None:
    runs = {}
    for flags in [(), ("--accumulate", "2"), ("--checkpoint-activations",)]:
        result = train("cnn", *QUICK, *flags)
        assert result.exit_code == 0, result.stderr
        runs[flags] = Path(result.stdout.strip())
    assert len({run.name for run in runs.values()}) == 3
    recorded = [json.loads((run / "record.json").read_text())["training"] for run in runs.values()]
    assert [each["accumulate"] for each in recorded] == [1, 2, 1]
    assert [each["checkpoint_activations"] for each in recorded] == [False, False, True]
    plain, _, again = (digest(run) for run in runs.values())
    assert plain == again
    refused(train("cnn", *QUICK, "--set", "training.compile=maybe"), "compile = 'maybe'")


def test_a_run_of_an_older_secli_goes_on_without_the_newer_settings(train: Train) -> None:
    run = Path(train("cnn", *QUICK).stdout.strip())
    file = run / "record.json"
    record = json.loads(file.read_text())
    for key in ("accumulate", "checkpoint_activations", "compile"):
        del record["training"][key]
    file.write_text(json.dumps(record))
    again = train("cnn", *QUICK, "--resume")
    assert (again.exit_code, again.stdout.strip()) == (0, str(run))


def test_bad_data_and_bad_places_are_named(train: Train, tmp_path: Path, data: Path) -> None:
    refused(train("cnn", dataset=None), "--data: give the dataset directory")
    refused(train("cnn", dataset=tmp_path / "nowhere"), "nowhere: no such dataset directory")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in data.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "val-images.npy").write_bytes(b"")
    refused(train("cnn", dataset=copy), "val-images.npy: damaged")
    (tmp_path / "runs").write_text("a file where the runs should be")
    refused(train("cnn", *QUICK), "Not a directory")


def test_colour_images_name_the_option_to_set(train: Train, tmp_path: Path, data: Path) -> None:
    grey = open_dataset(data)
    splits: dict[SplitName, Split] = {}
    for name in SPLITS:
        read = grey.split(name)
        splits[name] = Split(np.stack([read.images] * 3, axis=-1), read.labels, read.factors)
    description = grey.manifest.model_dump(exclude={"sizes", "files"})
    write_dataset(tmp_path / "colour" / "r0", splits, {**description, "name": "colour", "channels": 3})
    colour = tmp_path / "colour" / "r0"
    refused(train("cnn", *QUICK, dataset=colour), "takes 1; add --set model.in_channels=3")
    assert train("cnn", *QUICK, "--set", "model.in_channels=3", dataset=colour).exit_code == 0


def test_a_diverging_run_exits_1(train: Train) -> None:
    result = train("cnn", *QUICK, "--lr", "1e30")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the loss is not finite at epoch 1, step 2 of 4" in result.stderr


def test_progress_fits_eighty_columns_and_tells_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr("secli.cli.console.stderr_console", lambda: console)
    with showing(60, quiet=False) as show:
        show(Begun(Path("run"), 1, 0, 60, 79, "cpu"))
        show(EpochEnded(11, 0.1234, 0.034, 0.0214, 0.01, 7.0, 1400.0, best=True))
        show(Stepped(12, 40, 0.3456, 0.078, 12345.0))
        console.print("", end="")
    lines = drawn.getvalue().replace("\r", "\n").splitlines()
    (line,) = {line.removeprefix("\x1b[2K").strip() for line in lines if "epoch 12/60" in line}
    assert len(line) <= 80
    assert "loss 0.346 err 7.8% val 2.1% 12345 img/s" in line


def test_remarks_are_quiet_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(1, quiet=True) as show:
        show(Remark("starting over"))
    with showing(1, quiet=False) as show:
        show(Remark("starting over"))
    assert capsys.readouterr().err == "starting over\n"


def digest(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=["kill", "interrupt"]
)
def test_a_stopped_process_goes_on_to_the_same_bytes(
    train: Train, tmp_path: Path, data: Path, number: signal.Signals, code: int
) -> None:
    arguments = ["cnn", "--epochs", "12", "--batch", "16", "--threads", "1", "--device", "cpu", "--seed", "3"]
    undisturbed = train(*arguments)
    assert undisturbed.exit_code == 0, undisturbed.stderr
    expected = Path(undisturbed.stdout.strip())
    command = [
        sys.executable,
        "-m",
        "secli",
        "train",
        *arguments,
        "--data",
        str(data),
        "--out",
        str(tmp_path / "b"),
    ]
    run = tmp_path / "b" / "cnn" / expected.name
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert out == ""
    status = json.loads((run / "record.json").read_text())["status"]
    assert status == ("running" if number == signal.SIGKILL else "interrupted")
    if number == signal.SIGINT:
        assert err.count("\n") == 1
        assert "the state is saved: repeat the command with --resume to go on" in err
    resumed = CliRunner().invoke(app, [*command[3:], "--resume"])
    assert (resumed.exit_code, resumed.stdout.strip()) == (0, str(run))
    assert digest(run) == digest(expected)


def test_the_network_is_measured_while_it_trains_and_the_report_draws_it(
    train: Train, tmp_path: Path
) -> None:
    chosen = ["--measure-every", "1", "--set", "measure.taps=[block1,logits]", "--set", "measure.images=8"]
    result = train("cnn", *QUICK, *chosen)
    assert result.exit_code == 0, result.stderr
    (line,) = (Path(result.stdout.strip()) / "metrics.jsonl").read_text().splitlines()
    reading = json.loads(line)["equivariance"]
    assert {row["tap"] for row in reading["rows"]} == {"block1", "logits"}
    assert reading["images"] == 8
    page = tmp_path / "page.html"
    report = CliRunner().invoke(app, ["report", str(tmp_path / "runs"), "-o", str(page)])
    assert report.exit_code == 0, report.stderr
    text = page.read_text()
    assert "cnn while it trains" in text
    assert "8 images after each of 1 epochs" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--measure-every", "0"], "--measure-every"),
        (["--set", "measure.images=8"], "nothing is measured without --measure-every K"),
        (["--measure-every", "1", "--replicas", "2"], "goes without --replicas"),
        (["--measure-every", "1", "--set", "measure.taps=[nowhere]"], "nowhere"),
        (["--measure-every", "1", "--set", "measure.factors=[0]"], "measure: factors"),
        (["--measure-every", "1", "--set", "measure.colour=8"], "colour"),
        (["--measure-every", "1", "--set", "measure.per=[channel]"], "measure.per"),
    ],
)
def test_what_cannot_be_measured_between_epochs_is_refused_before_the_first(
    train: Train, tmp_path: Path, arguments: list[str], text: str
) -> None:
    refused(train("cnn", *QUICK, *arguments), text)
    assert not (tmp_path / "runs").exists()
