"""What replicas at once gain: both ways take turns, with a clock of our own, and the command prints it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from secli.bench.replicas import replica_speeds
from secli.cli.app import app

runner = CliRunner()


def test_the_gain_is_that_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass lasts 1 s at once; one after the other 2, 3 and 6 s."""
    warm = [0.0, 1.0] * 4  # each way is run once, and once more to learn how many passes fill the time
    rounds = [0.0, 1.0, 0.0, 2.0, 0.0, 1.0, 0.0, 3.0, 0.0, 1.0, 0.0, 6.0]
    clock = iter(warm + rounds)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    told: list[tuple[int, int]] = []
    (found,) = replica_speeds(
        ["cnn"], 2, batch=3, repeats=3, seconds=1.0, image_size=16, on_progress=lambda *at: told.append(at)
    )
    assert (found.gain_low, found.gain, found.gain_high) == (2.0, 3.0, 6.0)
    assert (found.at_once, found.singly) == (6.0, 2.0)
    assert found.noisy
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_command_prints_a_row_for_each_network() -> None:
    arguments = ["bench", "cnn", "dss_v1", "--replicas", "2", "--batch", "2", "--repeats", "1", "-q"]
    result = runner.invoke(app, [*arguments, "--image-size", "16", "--format", "json"])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [(row["model"], row["replicas"]) for row in rows] == [("cnn", 2), ("dss_v1", 2)]
    assert [(row["batch"], row["repeats"]) for row in rows] == [(2, 1)] * 2
    assert all(row[key] > 0 for row in rows for key in ("gain", "at_once", "singly"))
    table = runner.invoke(app, [*arguments, "--image-size", "16"], env={"COLUMNS": "80"}).stdout
    assert table.startswith("2 replicas: ")
    assert [line.split()[0] for line in table.splitlines()[-2:]] == ["cnn", "dss_v1"]
