"""The keeper hears only the newest attempt at a run, and holds the run against other processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from secli.errors import HeldRunError
from secli.sweeps.ray.packing import pack
from secli.sweeps.ray.run_files import Keeper
from secli.training.run import alone_in


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "record.json").write_text("{}")
    return pack(place)


def test_an_attempt_that_was_given_up_is_not_heard(tmp_path: Path, packed: bytes) -> None:
    run = tmp_path / "run"
    keeper = Keeper({"k": str(run)})
    assert keeper.begin("k", "a") == (1, None)
    assert keeper.begin("k", "b") == (2, None)
    assert not keeper.save("k", 1, packed)
    assert not run.exists()
    assert keeper.tell("k", 1, ("note", "old"))  # it shall stop
    assert keeper.save("k", 2, packed)
    assert not keeper.tell("k", 2, ("note", "new"))
    assert keeper.drain() == [("k", ("started", "a", 1)), ("k", ("started", "b", 2)), ("k", ("note", "new"))]
    assert keeper.begin("k", "c") == (3, packed)
    keeper.release("k")
    assert not keeper.save("k", 3, packed)


def test_a_run_is_held_from_the_moment_that_it_stands_until_it_is_released(
    tmp_path: Path, packed: bytes
) -> None:
    run = tmp_path / "run"
    keeper = Keeper({"k": str(run)})
    keeper.begin("k", "a")
    keeper.save("k", 1, packed)
    with pytest.raises(HeldRunError), alone_in(run):
        pass
    with pytest.raises(HeldRunError):
        Keeper({"k": str(run)}).begin("k", "a")
    keeper.release("k")
    with alone_in(run), pytest.raises(HeldRunError, match="another process"):
        keeper.begin("k", "a")
    assert keeper.begin("k", "a") is not None


def test_nothing_begins_once_the_sweep_is_stopped(tmp_path: Path) -> None:
    keeper = Keeper({"k": str(tmp_path / "run")})
    keeper.stop()
    assert keeper.begin("k", "a") is None
