"""Every number that an option takes has bounds: what lies outside is refused in one line, before any work."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from secli import config
from secli.cli import options
from secli.cli.app import app
from secli.datasets import build, protocols

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
HUGE = str(10**30)
# what a command needs beside the option, so that it comes as far as reading it
BESIDE = {
    "make-data": ["digits"],
    "train": ["cnn", "--data", "nowhere"],
    "equivariance": ["cnn", "--data", "nowhere"],
    "sweep": ["nowhere.yaml"],
    "bench": ["cnn"],
    "compare": ["nowhere"],
    "robustness": ["cnn", "--data", "nowhere"],
}


def numbers_of(parameter: Any) -> list[type]:
    """Return the types of the numbers that a parameter takes; empty where it takes none."""
    descriptor = getattr(parameter, "type_descriptor", None)
    if descriptor is not None:
        annotation = descriptor.annotation
        return [each for each in (typing.get_args(annotation) or (annotation,)) if each in (int, float)]
    kinds = getattr(parameter.type, "types", [parameter.type])  # typer on top of click
    names = [kind.name.partition(" ")[0] for kind in kinds]
    return [{"integer": int, "float": float}[name] for name in names if name in ("integer", "float")]


NUMERIC = [
    (name, max(parameter.opts, key=len), numbers_of(parameter))
    for name, command in COMMANDS.items()
    for parameter in command.params
    if numbers_of(parameter)
]


def test_there_are_numbers_to_check() -> None:
    assert len(NUMERIC) > 25
    assert ("equivariance", "--seed", [int]) in NUMERIC
    assert ("make-data", "--factors", [float, float]) in NUMERIC


@pytest.mark.parametrize("entry", NUMERIC, ids=lambda entry: f"{entry[0]} {entry[1]}")
def test_numbers_out_of_bounds_are_one_line(
    entry: tuple[str, str, list[type]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, option, kinds = entry
    bad = [HUGE, f"-{HUGE}", "-1"] if kinds[0] is int else ["nan", "inf", "-inf", "1e300", "-1"]
    for value in bad:
        given = [name, *BESIDE.get(name, []), option, *[value] * len(kinds)]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 2, (value, result.output)
        assert result.stderr.startswith("error: ")
        assert option in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["equivariance", "cnn", "--data", "x", "--taps", ""],
        ["equivariance", "cnn", "--data", "x", "--taps", " , "],
        ["equivariance", "cnn", "--data", "x", "--factors", ","],
        ["equivariance", "cnn", "--data", "x", "--factors", ""],
        ["equivariance", "cnn", "--data", "x", "--factors", "1e-7"],
        ["equivariance", "cnn", "--data", "x", "--factors", "0.5:1:100000000"],
        ["equivariance", "cnn", "--data", "x", "--per", ""],
        ["equivariance", "cnn", "--data", "x", "--attribute", ""],
        ["equivariance", "cnn", "--data", "x", "--mean", "nan"],
        ["equivariance", "cnn", "--data", "x", "--std", "1e-300"],
        ["equivariance", "cnn", "--data", "x", "--input", "3x100000x100000"],
        ["equivariance", "cnn", "--data", "x", "--input", ""],
        ["equivariance", "cnn", "--data", "x", "--set", "measure.images=on"],
        ["equivariance", "cnn", "--data", "x", "--set", "measure.factors=[]"],
        ["compare", "x", "--by", ","],
        ["compare", "x", "--rows", ""],
        ["compare", "x", "--columns", ""],
        ["compare", "x", "--factors", "0.001"],
        ["report", "x", "--by", ""],
        ["make-data", "digits", "--realisations", "0-9999,10000-19999"],
        ["make-data", "digits-scale", "--factors", "1e-9", "1"],
        ["train", "cnn", "--data", "x", "--set", "training.milestones=[0]"],
        ["train", "cnn", "--data", "x", "--set", "training.epochs=yes"],
    ],
    ids=" ".join,
)
def test_empty_and_extreme_lists_are_one_line(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    option = next(word for word in reversed(arguments) if word.startswith("--"))
    assert option in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_bounds_are_those_of_the_settings() -> None:
    for name in ("MOST", "MOST_THREADS", "MOST_SEED"):
        assert getattr(options, name) == getattr(config, name)
    assert options.MOST_PROCESSES == build.MAX_JOBS
    assert options.MOST_SIDE == protocols.MAX_SIDE


def test_what_is_given_twice_is_measured_once_and_said(tmp_path: Path) -> None:
    build.make_dataset("digits", tmp_path, jobs=1)
    few = ["--data", str(tmp_path / "digits" / "r0"), "--images", "4", "--threads", "1"]
    asked = ["--taps", "conv1,block1,conv1", "--factors", "0.5,0.8,0.50", "--format", "csv"]
    result = CliRunner().invoke(app, ["equivariance", "mnist_cnn_28", *few, *asked])
    assert result.exit_code == 0, result.output
    assert sum(",error," in line for line in result.stdout.splitlines()) == 4
    assert "--factors: 0.5 given more than once, measured once" in result.stderr
    assert "--taps: conv1 given more than once, measured once" in result.stderr
