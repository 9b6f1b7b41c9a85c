"""The command line as a whole: help, versions, exit codes, doctor, and the demo from end to end."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import secli.cli.demo
from secli.cli.app import app
from secli.cli.demo import DemoRun
from secli.errors import InterruptedRunError

COMMANDS = ("make-data", "train", "equivariance", "robustness", "compare", "models", "demo", "doctor")


def test_help_names_every_command_and_needs_no_argument() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0
        assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert command in result.stdout


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.stdout.startswith("secli 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "--epoch", "3"], "No such option: --epoch"),
        (["--colour"], "No such option: --colour"),
        (["report", "runs", "-o", ""], "-o: an empty path"),
        (["make-data", "digits", "--out="], "--out: an empty path"),
        (["compare", "runs", ""], "argument 2: an empty path"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            1,
            "error: runs/x: No space left on device",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 2, "error: runs: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (InterruptedRunError("repeat the command to go on"), 130, "interrupted: repeat the command to go on"),
    ],
)
def test_the_system_s_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("secli.tables.groups.summarise", fail)
    result = CliRunner().invoke(app, ["compare", "runs"])
    assert result.exit_code == code
    assert result.stderr == f"{message}\n"


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_is_one_line_that_says_so_and_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, debug: bool
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("by \x1b[31mnothing " + "x" * 1000)

    monkeypatch.setattr("secli.tables.groups.summarise", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("SECLI_DEBUG", "1" if debug else "0")
    result = CliRunner().invoke(app, ["compare", "runs"])
    assert result.exit_code == 70
    *before, line = result.stderr.splitlines()
    assert line.startswith("error: this is a bug in secli (ZeroDivisionError: by \\x1b[31mnothing")
    assert len(line) <= 310
    (file,) = tmp_path.iterdir()
    assert str(file) in line
    assert "raise ZeroDivisionError" in file.read_text(encoding="utf-8")
    assert ("Traceback" in "".join(before)) is debug


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_no_memory_left_is_no_bug(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("secli.tables.groups.summarise", fail)
    result = CliRunner().invoke(app, ["compare", "runs"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: out of memory")
    assert result.stderr.count("\n") == 1


def test_python_dash_m_and_a_reader_that_goes_away() -> None:
    command = f"{sys.executable} -m secli models cnn --format json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.stdout == "["
    assert "Traceback" not in done.stderr


def test_doctor_says_what_secli_runs_on() -> None:
    result = CliRunner().invoke(app, ["doctor", "--format", "json"])
    report = json.loads(result.stdout)
    assert report["libraries"]["torch"]
    assert report["devices"][0]["device"] == "cpu"
    assert (result.exit_code == 1) == bool(report["problems"])
    table = CliRunner().invoke(app, ["doctor"])
    assert "torchvision" in table.stdout
    assert CliRunner().invoke(app, ["doctor", "--format", "xml"]).exit_code == 2


def test_doctor_names_what_is_in_the_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "cannot be written" in " ".join(result.stdout.split())


def test_an_interrupted_demo_speaks_of_no_option_that_it_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise InterruptedRunError("runs/cnn: the state is saved: repeat the command with --resume to go on")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("secli.cli.train.run_training", stop)
    result = CliRunner().invoke(app, ["demo", "--threads", "1", "--quiet"])
    assert (result.exit_code, result.stderr) == (130, "interrupted: repeat the command to go on\n")


@pytest.mark.slow
def test_the_demo_goes_all_the_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On one network and few factors; the continuous integration runs the command itself."""
    monkeypatch.setattr(secli.cli.demo, "RUNS", (DemoRun("cnn", 1),))
    monkeypatch.setattr(secli.cli.demo, "FACTORS", (1.0, 0.8, 0.6, 0.5))
    monkeypatch.chdir(tmp_path)
    first = CliRunner().invoke(app, ["demo", "--threads", "1"])
    assert first.exit_code == 0, first.stderr
    assert "cnn" in first.stdout
    assert "Δ(0.5)" in first.stdout
    plot = Path(first.stdout.splitlines()[-1])
    assert plot.read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(app, ["demo", "--threads", "1"])
    assert again.exit_code == 0
    # the time of training would differ had anything been trained again
    assert again.stdout == first.stdout
