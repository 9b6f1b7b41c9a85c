"""The live view: without a terminal a line per event, on a terminal one bar per run, always the counts."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from secli.cli import sweep_progress
from secli.cli.sweep_progress import duration, watching
from secli.sweeps.engine import Done, Failed, Left, Notice, Progressed, Started
from tests.sweeps.conftest import Jobs


def test_a_line_for_what_ends_and_nothing_when_quiet(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = jobs(seeds=[0, 1, 2])
    for quiet in (False, True):
        with watching(5, 1, 1, {a.key: 2.0, b.key: 2.0, c.key: 2.0}, quiet) as show:
            for event in (
                Started(a, "w"),
                Progressed(a, "training", 1, 2, "loss 1"),
                Notice("a remark", a),
                Done(a, 3.4),
                Started(b, "w"),
                Failed(b, "because"),
                Started(c, "w", 2),
                Left(c, "interrupted"),
            ):
                show(event)
        lines = capsys.readouterr().err.splitlines()
        if quiet:
            assert lines == []
            continue
        assert lines[0] == "a remark"
        assert lines[1].startswith(f"[3/5] done: {a.title}, 3 s, about ")
        assert lines[2].startswith(f"[4/5] failed: {b.title}: because")
        assert lines[3] == f"left for another time: {c.title}: interrupted"


def test_on_a_terminal_the_running_ones_are_shown(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = jobs(seeds=[0, 1])
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(sweep_progress, "stderr_console", lambda: console)
    with watching(2, 0, 0, {a.key: 1.0, b.key: 1.0}, False) as show:
        show(Started(a, "w"))
        show(Started(b, "w", 2))
        show(Progressed(a, "training", 1, 2, "loss 0.5"))
        show(Progressed(b, "measuring", 1, 2))
        show(Done(a, 1.0))
    text = screen.getvalue()
    assert "(attempt 2)" in text
    assert "1 done, 1 running, 0 failed, 2 in all" in text


def test_times_in_words() -> None:
    assert [duration(s) for s in (0, 89, 90, 5340, 5400, 172800)] == [
        "0 s",
        "89 s",
        "2 min",
        "89 min",
        "1 h 30 min",
        "2 d 0 h",
    ]
