"""What each form brings: who is timed when, with a clock of our own, and what is printed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from secli.bench.layer_forms import measure_forms
from secli.bench.timing import TimedNetwork
from secli.cli.app import app
from secli.layers.fast.forms import FORMS, in_use

runner = CliRunner()


def test_every_form_is_left_out_once_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the k-th form a pass takes k + 2 seconds, with all of them one; in the last round twice that."""
    asked: list[tuple[str, ...]] = []

    def seconds(self: TimedNetwork, mode: str, passes: int) -> float:
        missing = tuple(form for form in FORMS if not in_use(form))
        asked.append(missing)
        late = 2.0 if len(asked) > 2 * 8 + 2 * 8 else 1.0
        slow = [*FORMS].index(missing[0]) + 2 if missing else 1
        return passes * (slow * late if missing else 1.0)

    monkeypatch.setattr(TimedNetwork, "seconds", seconds)
    told: list[tuple[int, int]] = []
    found = measure_forms(
        ["mnist_ses_scalar_28"],
        ["eval"],
        batch=2,
        repeats=3,
        seconds=1.0,
        on_progress=lambda *at: told.append(at),
    )
    turn = [(), *((form,) for form in FORMS)]
    assert asked == [each for each in turn for _ in range(2)] + 3 * turn
    assert [each.form for each in found] == [*FORMS]
    assert [each.ratio for each in found] == [k + 2 for k in range(len(FORMS))]
    assert [each.high for each in found] == [2 * each.ratio for each in found]
    assert all(each.noisy for each in found)
    assert told[-1] == (32, 32)
    assert in_use("fourier")


def test_the_command_prints_a_row_for_each_form() -> None:
    arguments = ["bench", "mnist_ses_scalar_28", "--forms", "--eval", "--batch", "2", "--repeats", "1", "-q"]
    result = runner.invoke(app, [*arguments, "--format", "json"])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [row["form"] for row in rows] == [*FORMS]
    assert list(rows[0]) == [
        "model", "mode", "form", "ratio", "low", "high", "repeats", "batch", "noisy", "device", "threads", "torch",
        "command",
    ]  # fmt: skip
    narrow = runner.invoke(app, arguments, env={"COLUMNS": "80"}).stdout
    wide = runner.invoke(app, arguments, env={"COLUMNS": "160"}).stdout
    assert "running-max" in narrow
    assert FORMS["running-max"] not in narrow
    assert FORMS["running-max"] in wide
    assert max(len(line) for line in narrow.splitlines()) <= 80


def test_forms_want_networks() -> None:
    result = runner.invoke(app, ["bench", "--forms"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: name the networks to time")
    result = runner.invoke(app, ["bench", "--forms", "--data"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --forms and --data exclude each other")
