"""Whose a number is: the weights in labels, records and names of files, and one row for one network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from secli.cli.app import app
from secli.sweeps.measure import weights_taken
from secli.tables.aggregate import summarise

NET = "from torch import nn\ndef build(): return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())\n"


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a small measurement, in a directory with a network and two checkpoints of it."""
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["make-data", "digits", "--out", ".", "-q"]).exit_code == 0
    Path("net.py").write_text(NET)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()).state_dict())
    torch.save({"model": {f"module.{key}": value for key, value in states[0].items()}, "epoch": 1}, "w.pth")
    torch.save({"model": states[1], "ema": states[0]}, "both.pth")
    data = ["--data", "digits/r0", "--input", "1x28x28", "--images", "4", "--factors", "0.7", "--taps", "0"]
    return [*data, "--threads", "1", "-q"]


def measured(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["equivariance", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_weights_of_a_number_are_stated(digits: list[str]) -> None:
    assert "net.py:build (untrained, seed 4)" in measured("net.py:build", *digits, "--seed", "4")
    loaded = ["net.py:build", *digits, "--weights", "w.pth"]
    table = measured(*loaded)
    assert "net.py:build (weights w.pth)" in table
    assert "untrained" not in table
    record = json.loads(measured(*loaded, "--format", "json"))
    assert (record["trained"], record["weights"]) == (True, "weights w.pth")
    assert record["model"]["options"]["weights_prefix"] == "module."
    assert weights_taken(record["model"]["options"]) == [
        "--weights w.pth: 'module.' is stripped from the front of all names"
    ]
    chosen = measured("net.py:build", *digits, "--weights", "both.pth", "--state", "ema")
    assert "net.py:build (weights both.pth, state ema)" in chosen
    result = CliRunner().invoke(app, ["equivariance", "net.py:build", *digits, "--weights", "both.pth"])
    assert result.exit_code == 2
    assert "holds 2 state dicts that fit (model, ema); choose with --state KEY" in result.stderr


def test_one_network_is_one_row(digits: list[str]) -> None:
    for state, seed, save in (("ema", "0", "out"), ("model", "0", "out"), ("ema", "5", "again")):
        chosen = ["--weights", "both.pth", "--state", state, "--seed", seed, "--save", save]
        measured("net.py:build", *digits, *chosen)
    measured("./net.py:build", *digits, "--save", "out")
    names = sorted(path.name for path in Path("out").glob("*.json"))
    assert names[2] == "net.py-build-s0.json"
    assert [name[:23] for name in names[:2]] == ["net.py-build-both-ema-5", "net.py-build-both-model"] or all(
        name.startswith("net.py-build-both-") for name in names[:2]
    )
    summary = summarise([Path("out"), Path("again")])
    assert sorted((row.label, row.n) for row in summary.rows) == [
        ("net.py:build (untrained)", 1),
        ("net.py:build (weights both.pth, state ema)", 1),
        ("net.py:build (weights both.pth, state model)", 1),
    ]
    assert any("the same weights as in" in aside.reason for aside in summary.set_aside)


def test_a_network_given_twice_is_measured_once(digits: list[str]) -> None:
    result = CliRunner().invoke(
        app, ["equivariance", "net.py:build", "./net.py:build", *digits, "--format", "json"]
    )
    assert isinstance(json.loads(result.stdout), dict)
    assert "./net.py:build is given twice, as net.py:build: measured once" in result.stderr
