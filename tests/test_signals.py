"""A signal ends a command from within its handler: undone, one line, the code of the signal, wherever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from secli import signals

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def _handlers_come_back() -> object:
    before = {number: signal.getsignal(number) for number in signals.CAUGHT}
    signals.forget()
    yield
    signals.forget()
    for number, handler in before.items():
        signal.signal(number, handler)


def told(code: str, tmp_path: Path) -> tuple[int, str]:
    """Return how a process ended that sends itself signals, and its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
    )
    return done.returncode, done.stderr


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_line_and_the_code_of_the_signal(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import os, pathlib, signal\n"
        "from secli import signals\n"
        "from secli.storage.writing import atomic_directory, atomic_path\n"
        "signals.install()\n"
        "pathlib.Path('kept').write_text('old')\n"
        "with signals.advising('again'), atomic_path(pathlib.Path('kept')) as one, "
        "atomic_directory(pathlib.Path('new/er/set')) as two:\n"
        "    one.write_text('half')\n"
        "    (two / 'file').write_text('half')\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    try: raise ValueError\n"
        "    except ValueError: pass\n"
        "print('not reached')\n"
    )
    assert told(code, tmp_path) == (128 + number, "interrupted: again\n")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "old"


@posix
def test_code_that_swallows_every_exception_cannot_swallow_a_signal(tmp_path: Path) -> None:
    """As the C code of numpy and torch does while it is imported."""
    (tmp_path / "greedy.py").write_text(
        "import os, signal\n"
        "try: os.kill(os.getpid(), signal.SIGINT); [None for _ in range(1000)]\n"
        "except BaseException: raise ImportError('a library could not be loaded')\n"
    )
    code = "import sys; sys.path.insert(0, '.')\nfrom secli import signals; signals.install(); import greedy"
    assert told(code, tmp_path) == (130, "interrupted\n")


@posix
def test_a_worker_is_quiet_and_dies_of_the_signal(tmp_path: Path) -> None:
    code = "import os; from secli import signals; signals.install(quiet=True); os.kill(os.getpid(), 15)"
    assert told(code, tmp_path) == (-signal.SIGTERM, "")


@posix
def test_a_command_that_is_over_keeps_its_code(tmp_path: Path) -> None:
    code = (
        "import os; from secli import signals; signals.install(); signals.finish(); os.kill(os.getpid(), 15)"
    )
    assert told(code, tmp_path) == (0, "")


def test_to_import_the_entry_sets_no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "secli.__main__", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    __import__("secli.__main__")
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_first_signal_decides_the_exit_code() -> None:
    assert signals.exit_code() == 130
    signals.note(signal.SIGTERM)
    signals.note(signal.SIGINT)
    assert signals.exit_code() == 143
    signals.forget()
    assert signals.exit_code() == 130


def test_what_was_taken_back_is_not_undone() -> None:
    done: list[str] = []
    take_back = signals.at_end(lambda: done.append("undone"))
    take_back()
    take_back()
    signals.undo_all()
    assert done == []
