from __future__ import annotations

import json
from statistics import median

import pytest
import torch
from typer.testing import CliRunner

from secli.cli.app import app
from secli.training import speed
from secli.training.speed import measure_speed

runner = CliRunner()


def test_every_network_and_mode_is_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of our own: seconds per pass 1, 2, 3, … in the order in which they were asked for."""
    asked: list[tuple[str, str, int]] = []

    def seconds(self: speed._Subject, mode: str, passes: int) -> float:
        asked.append((self.name, mode, passes))
        return float(len(asked))

    monkeypatch.setattr(speed._Subject, "seconds", seconds)
    told: list[tuple[int, int]] = []
    found = measure_speed(
        ["cnn", "dcn"], batch=4, repeats=3, seconds=8.0, on_progress=lambda *at: told.append(at)
    )
    pairs = [("cnn", "train"), ("cnn", "eval"), ("dcn", "train"), ("dcn", "eval")]
    # each is warmed, then timed once: 8 s hold 4 passes of 2 s, 2 of 4 s, 2 of 6 s, one of 8 s
    warm = [(*pair, 1) for pair in pairs for _ in range(2)]
    turn = [(*pair, passes) for pair, passes in zip(pairs, (4, 2, 2, 1), strict=True)]
    assert asked == warm + 3 * turn
    first = [4 * 4 / 9, 4 * 4 / 13, 4 * 4 / 17]
    assert found[0].images_per_second == median(first)
    assert (found[0].low, found[0].high) == (min(first), max(first))
    assert [(each.model, each.mode) for each in found] == pairs
    assert found[0].input == (1, 28, 28)
    assert told[-1] == (16, 16)


def test_a_training_step_is_whole_but_leaves_the_weights() -> None:
    subject = speed._Subject("mnist_cnn_28", 4, "cpu", 32)
    before = [parameter.clone() for parameter in subject.model.parameters()]
    assert subject.seconds("train", 2) > 0
    assert subject.images.shape == (4, 1, 32, 32)
    assert all(parameter.grad is not None for parameter in subject.model.parameters())
    assert len(subject.optimizer.state) == len(before)
    assert all(torch.equal(a, b) for a, b in zip(before, subject.model.parameters(), strict=True))
    assert subject.model.training
    subject.seconds("eval", 1)
    assert not subject.model.training


def test_training_takes_longer_than_evaluation() -> None:
    train, evaluate = measure_speed(["mnist_cnn_28"], batch=8, repeats=3, seconds=0.02)
    assert train.high < evaluate.high
    assert train.low <= train.images_per_second <= train.high


def test_the_command_prints_rows_with_machine_and_command() -> None:
    arguments = ["bench", "cnn", "dss_v1", "--eval", "--batch", "2", "--repeats", "1", "--threads", "1", "-q"]
    result = runner.invoke(app, [*arguments, "--format", "json"])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [(row["model"], row["mode"]) for row in rows] == [("cnn", "eval"), ("dss_v1", "eval")]
    assert list(rows[0]) == [
        "model", "mode", "images_per_second", "low", "high", "repeats", "batch", "input",
        "device", "threads", "torch", "command",
    ]  # fmt: skip
    table = runner.invoke(app, [*arguments, "--train"]).stdout
    assert "1 threads, batch 2, 1 repeats: images per second" in table
    assert table.count("\n") == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the networks to time (see 'secli models'), or give --all, or --equivariance MODEL"),
        (["dss_v1x"], "unknown model 'dss_v1x'; did you mean 'dss_v1'?"),
        (["cnn", "--format", "csv"], "--format csv: known: table, json"),
        (
            ["cnn", "--equivariance", "cnn"],
            "--equivariance times one curve; it goes with --images, --factors, --repeats, --batch",
        ),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["bench", *arguments])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {message}\n")
