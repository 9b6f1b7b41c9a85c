"""What dead processes leave is removed, put back or finished by whoever comes next; the living are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from secli.signals import undo_all
from secli.storage import owners
from secli.storage.leftovers import owned, tidy, tidy_below
from secli.storage.locks import hold, in_turn
from secli.storage.owners import Kind, final_path, is_dead, is_mine, owned_name, read_name
from secli.storage.writing import atomic_path, replace_folder


def name_of(pid: int, name: str, kind: Kind = "tmp", start: str | None = None) -> str:
    """Return the name of what another process of this machine makes."""
    mine = read_name(owned_name(name, kind))
    assert mine is not None
    began = start or owners._start_of(pid) or "0"
    return f".{name}.{pid}-{began}-{mine.host}-0.{kind}"


@pytest.fixture
def dead() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_names_tell_their_owner_and_never_come_twice() -> None:
    name = owned_name("report.html", "tmp", ".html")
    assert name != owned_name("report.html", "tmp", ".html")
    owner = read_name(name)
    assert owner is not None
    assert (owner.name, owner.pid, owner.kind) == ("report.html", os.getpid(), "tmp")
    assert is_mine(owner)
    assert len(os.fsencode(owned_name("ü" * 127, "tmp"))) <= 255
    for other in ("report.html", ".hidden", ".a.tmp", ".a.12.tmp", ".held"):
        assert read_name(other) is None
    assert final_path(Path("runs/cnn") / owned_name("r0-s0", "tmp")) == Path("runs/cnn/r0-s0")
    assert final_path(Path("runs/cnn/r0-s0")) == Path("runs/cnn/r0-s0")


def test_the_next_writer_removes_what_dead_processes_left_and_nothing_else(tmp_path: Path, dead: int) -> None:
    (tmp_path / name_of(dead, "a.json")).write_text("half")
    (tmp_path / name_of(dead, "r0") / "state").mkdir(parents=True)
    living = tmp_path / name_of(os.getppid(), "b.json")
    living.write_text("being written")
    for other in (".a.tmp", ".held", "c.tmp"):
        (tmp_path / other).write_text("somebody else's")
    with atomic_path(tmp_path / "d") as temporary:
        temporary.write_text("d")
    assert {path.name for path in tmp_path.iterdir()} == {living.name, ".a.tmp", ".held", "c.tmp", "d"}


def test_a_number_that_another_process_has_by_now_is_dead(tmp_path: Path) -> None:
    path = tmp_path / name_of(os.getppid(), "a", start="0")
    path.write_text("half")
    tidy(tmp_path)
    assert not path.exists()


def test_what_another_machine_left_is_kept_for_a_day(tmp_path: Path) -> None:
    path = tmp_path / ".a.1-0-otherhost-0.tmp"
    path.write_text("perhaps being written")
    tidy(tmp_path)
    assert path.exists()
    long_ago = time.time() - owners.ABANDONED - 60
    os.utime(path, (long_ago, long_ago))
    tidy(tmp_path)
    assert not path.exists()


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path = tmp_path / name_of(process.pid, "a")
    owner = read_name(path.name)
    assert owner is not None
    assert not is_dead(path, owner)
    assert process.stdin is not None
    process.stdin.close()
    deadline = time.monotonic() + 30
    while not is_dead(path, owner) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_dead(path, owner), "it has ended, and nobody has asked for its exit code yet"
    process.wait()


def test_a_process_that_is_hidden_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's, where /proc shows everybody only his own."""
    path = tmp_path / name_of(os.getppid(), "a")
    path.write_text("being written")
    shown = owners._start_of
    monkeypatch.setattr(owners, "_start_of", lambda pid: shown(pid) if pid == os.getpid() else None)
    tidy(tmp_path)
    assert path.exists()


def test_a_run_that_was_moved_out_of_the_way_is_put_back(tmp_path: Path, dead: int) -> None:
    old = tmp_path / "cnn" / name_of(dead, "r0-s0", "old")
    old.mkdir(parents=True)
    (old / "record.json").write_text("finished")
    tidy_below(tmp_path)
    assert [path.name for path in (tmp_path / "cnn").iterdir()] == ["r0-s0"]
    assert (tmp_path / "cnn" / "r0-s0" / "record.json").read_text() == "finished"


def test_a_run_that_has_been_replaced_is_removed(tmp_path: Path, dead: int) -> None:
    (tmp_path / name_of(dead, "r0-s0", "old")).mkdir()
    (tmp_path / "r0-s0").mkdir()
    (tmp_path / "r0-s0" / "record.json").write_text("new")
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["r0-s0"]
    assert (tmp_path / "r0-s0" / "record.json").read_text() == "new"


def test_a_set_that_was_declared_is_finished(tmp_path: Path, dead: int) -> None:
    ready = tmp_path / name_of(dead, "m", "set")
    ready.mkdir()
    for end in ("json", "png"):  # the csv has been moved already
        (ready / f"m.{end}").write_text("new")
        (tmp_path / f"m.{end}").write_text("old")
    (tmp_path / "m.csv").write_text("new")
    tidy(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "m.csv": "new", "m.json": "new", "m.png": "new"
    }  # fmt: skip


@pytest.mark.parametrize("moment", range(4))
def test_of_two_runs_one_is_there_whenever_the_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Stop before the n-th rename or removal; then do as a signal's handler does, or as the next process would."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(name)
    rename, calls = Path.rename, []

    class Killed(BaseException):
        pass

    def stop(path: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == moment + 1:
            raise Killed
        return rename(path, target)

    monkeypatch.setattr("secli.storage.leftovers._settle", lambda *_: None)  # nothing runs after a kill
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        try:
            replace_folder(tmp_path / "new", tmp_path / "old")
        except Killed:
            assert moment < 2
    monkeypatch.undo()
    monkeypatch.setattr("secli.storage.leftovers.is_mine", lambda owner: False)
    monkeypatch.setattr("secli.storage.leftovers.is_dead", lambda path, owner: True)
    tidy(tmp_path)
    found = (tmp_path / "old" / "record.json").read_text()
    assert found == ("old" if moment < 2 else "new")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_signals_handler_settles_what_this_process_makes(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with owned(tmp_path / "a") as temporary, owned(tmp_path / "run", "old") as old:
        temporary.write_text("half")
        (tmp_path / "run").rename(old)
        undo_all()
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


# ---- one at a time


def test_the_second_process_waits_for_the_first(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    folder, order = tmp_path / "data" / "digits", list[str]()
    entered, waiting = threading.Event(), threading.Event()

    def first() -> None:
        with in_turn(folder):
            entered.set()
            assert waiting.wait(30)
            (folder / "r0").mkdir()
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(30)
    with in_turn(folder, on_wait=lambda folder: waiting.set()):
        order.append("second")
        assert (folder / "r0").is_dir()
    thread.join()
    assert order == ["first", "second"]
    assert [path.name for path in folder.iterdir()] == ["r0"], "locks leave no files"


def test_folders_made_for_a_turn_that_fails_are_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no source"), in_turn(tmp_path / "data" / "digits"):
        raise ValueError("no source")
    assert list(tmp_path.iterdir()) == []


def test_who_waited_for_a_folder_that_was_removed_makes_it_again(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    folder, waiting = tmp_path / "digits", threading.Event()
    folder.mkdir()
    descriptor = hold(folder, wait=False)
    assert descriptor is not None

    def give_up() -> None:
        assert waiting.wait(30)
        folder.rmdir()
        os.close(descriptor)

    thread = threading.Thread(target=give_up)
    thread.start()
    with in_turn(folder, on_wait=lambda folder: waiting.set()):
        assert folder.is_dir()
    thread.join()
