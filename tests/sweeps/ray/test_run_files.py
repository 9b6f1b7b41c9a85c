"""The run_files hears only the newest attempt at a run, and holds the run against other processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from secli.errors import HeldRunError
from secli.sweeps.ray.packing import pack
from secli.sweeps.ray.run_files import RunFiles
from secli.training.run import alone_in


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "record.json").write_text("{}")
    return pack(place)


def test_an_attempt_that_was_given_up_is_not_heard(tmp_path: Path, packed: bytes) -> None:
    run = tmp_path / "run"
    run_files = RunFiles({"k": str(run)})
    assert run_files.begin("k", "a") == (1, None)
    assert run_files.begin("k", "b") == (2, None)
    assert not run_files.save("k", 1, packed)
    assert not run.exists()
    assert run_files.tell("k", 1, ("note", "old"))  # it shall stop
    assert run_files.save("k", 2, packed)
    assert not run_files.tell("k", 2, ("note", "new"))
    assert run_files.drain() == [
        ("k", ("started", "a", 1)),
        ("k", ("started", "b", 2)),
        ("k", ("note", "new")),
    ]
    assert run_files.begin("k", "c") == (3, packed)
    run_files.release("k")
    assert not run_files.save("k", 3, packed)


def test_a_run_is_held_from_the_moment_that_it_stands_until_it_is_released(
    tmp_path: Path, packed: bytes
) -> None:
    run = tmp_path / "run"
    run_files = RunFiles({"k": str(run)})
    run_files.begin("k", "a")
    run_files.save("k", 1, packed)
    with pytest.raises(HeldRunError), alone_in(run):
        pass
    with pytest.raises(HeldRunError):
        RunFiles({"k": str(run)}).begin("k", "a")
    run_files.release("k")
    with alone_in(run), pytest.raises(HeldRunError, match="another process"):
        run_files.begin("k", "a")
    assert run_files.begin("k", "a") is not None


def test_nothing_begins_once_the_sweep_is_stopped(tmp_path: Path) -> None:
    run_files = RunFiles({"k": str(tmp_path / "run")})
    run_files.stop()
    assert run_files.begin("k", "a") is None
