"""``secli train --replicas`` and ``secli bench --replicas``: run directories on stdout, one line per mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from secli.cli.app import app
from secli.datasets.build import make_dataset

QUICK = ["--epochs", "1", "--batch", "16", "--threads", "1", "--device", "cpu", "--lr", "0.001"]
SMALL = ["cnn", "--set", "model.widths=[4, 4, 8, 8]"]

Train = Callable[..., Result]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two realisations of 64 training digits, 20 for validation, 30 for the test."""
    out = tmp_path_factory.mktemp("data")
    made = make_dataset("digits-scale", out, realisations=(0, 1), sizes=(64, 20, 30), jobs=1)
    return made[0].path.parent


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Run the command in this process."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["train", *SMALL, *arguments, "--out", str(tmp_path / "runs")])

    return run


def test_seeds_count_up_on_one_dataset(train: Train, data: Path) -> None:
    where = ["--data", str(data / "r0")]
    result = train(*QUICK, *where, "--replicas", "2", "--seed", "3", "--at-once")
    assert result.exit_code == 0, result.stderr
    runs = [Path(line) for line in result.stdout.splitlines()]
    assert [run.name.split("-")[-2] for run in runs] == ["s3", "s4"]
    errors = [json.loads((run / "record.json").read_text())["results"]["test_error"] for run in runs]
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    for line, seed, error in zip(lines, (3, 4), errors, strict=True):
        assert f"seed {seed}: test error {100 * error:.2f} % (30 images), best epoch 1 of 1" in line
    refused = train(*QUICK, *where, "--replicas", "2", "--seed", "4", "--at-once")
    assert refused.exit_code == 2
    assert f"{runs[1]}: a run exists here already; add --resume to go on" in refused.stderr
    assert not (runs[0].parent / runs[0].name.replace("-s3-", "-s5-")).exists()
    again = train(*QUICK, *where, "--replicas", "2", "--seed", "3", "--resume")
    assert (again.exit_code, again.stdout) == (0, result.stdout)
    assert again.stderr.count("finished already, nothing to do") == 2
    quiet = train(*QUICK, *where, "--replicas", "2", "--seed", "3", "--force", "--quiet", "--no-at-once")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, result.stdout, "")


@pytest.mark.parametrize("named", ["each", "folder"])
def test_realisations_have_one_seed(train: Train, data: Path, named: str) -> None:
    each = ["--data", str(data / "r0"), "--data", str(data / "r1")]
    where = each if named == "each" else ["--data", str(data)]
    result = train(*QUICK, *where, "--replicas", "2", "--at-once", "--track", "tensorboard")
    assert result.exit_code == 0, result.stderr
    runs = [Path(line) for line in result.stdout.splitlines()]
    assert ["-r0-s0-" in runs[0].name, "-r1-s0-" in runs[1].name] == [True, True]
    records = [json.loads((run / "record.json").read_text()) for run in runs]
    assert [record["data"]["realisation"] for record in records] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--replicas", "2"], "--data: give the dataset directory"),
        (["--data", "r0", "--data", "r1"], "--data is given 2 times: add --replicas 2, or give one"),
        (
            ["--data", "r0", "--data", "r1", "--replicas", "3"],
            "--replicas 3: give --data once (seeds differ) or 3",
        ),
        (["--data", "r0", "--replicas", "2", "--devices", "2"], "works on one device; leave out --devices"),
        (["--data", "r0", "--at-once"], "--at-once: goes with --replicas R"),
        (["--data", "r0", "--no-at-once"], "--no-at-once: goes with --replicas R"),
        (["--data", "", "--replicas", "3"], "r2: no such dataset directory"),
        (["--data", "r0", "--replicas", "2", "--track", "nobody"], "unknown tracker --track 'nobody'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    train: Train, data: Path, tmp_path: Path, arguments: list[str], text: str
) -> None:
    given = [str(data / word) if word in ("", "r0", "r1") else word for word in arguments]
    result = train(*QUICK, *given)
    assert result.exit_code == 2, result.stderr
    assert result.stderr.count("\n") == 1
    assert text in result.stderr
    assert not (tmp_path / "runs" / "cnn").exists()


def test_failed_replicas_are_named_and_the_exit_is_1(train: Train, data: Path) -> None:
    result = train(*QUICK, "--data", str(data / "r0"), "--replicas", "2", "--at-once", "--lr", "1e30")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "s0-" in result.stderr
    assert "the loss is not finite at epoch 1, step 2 of 4" in result.stderr
    assert "(and 1 more failed); 0 of 2 replicas finished" in result.stderr
    assert result.stderr.count("\n") == 1
