"""Counts made on several cores: the same as alone, whatever becomes of the children, and no compiler imported."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from secli.config import TrainingSettings
from secli.sweeps import forked_counts as room
from secli.sweeps.forked_counts import helped
from secli.sweeps.operation_counts import Counts, Shapes, shapes_of, uncounted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux only")

COUNT = """
import json, sys
from secli.config import TrainingSettings
from secli.sweeps.operation_counts import Counts, shapes_of
Counts().of(shapes_of("cnn", {"widths": [2, 2, 2, 2]}, TrainingSettings(batch=4), 28))
assert "torch._dynamo" not in sys.modules, "the compiler was imported"
import torch
assert torch._dynamo.explain, "a module without content is left in its place"
relu = torch.compile(lambda x: torch.sub(x, 1.0).relu(), backend="eager")
assert relu(torch.ones(2)).tolist() == [0, 0]
"""


def networks(count: int) -> list[Shapes]:
    """Return some networks that differ in their shapes."""
    settings = TrainingSettings(batch=4)
    return [
        shapes_of("cnn", {"widths": [width, 2, 2, 2], "in_channels": 1, "classes": 10}, settings, 28)
        for width in range(1, count + 1)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "cores", lambda: 3)
    return tmp_path / "cache" / "estimates"


def children() -> list[int]:
    """Return the processes that were forked here and are not waited for."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"PPid:\t{os.getpid()}\n" in _status(entry)
    ]


def _status(entry: Path) -> str:
    with contextlib.suppress(OSError):
        return (entry / "status").read_text()
    return ""


def test_children_count_from_the_end_and_leave_the_same_counts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = networks(8)
    before = children()
    with helped(wanted):
        assert len(children()) == len(before) + 2
        while len(uncounted(wanted)) > 4:  # nothing is counted here meanwhile
            pass
        assert wanted[-1] not in uncounted(wanted)
    assert children() == before
    counts = Counts()
    helped_counts = [counts.of(shapes) for shapes in wanted]
    assert not list(folder.glob("*.tmp*"))
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "alone"))
    alone = Counts()
    assert helped_counts == [alone.of(shapes) for shapes in wanted]


def test_few_networks_and_one_core_need_no_child(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> int:
        raise AssertionError("a child was forked")

    monkeypatch.setattr(room, "_forked", never)
    with helped(networks(3)), helped([]):
        pass
    monkeypatch.setattr(room, "cores", lambda: 1)
    with helped(networks(8)):
        pass


def test_children_that_cannot_count_or_never_end_cost_time_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(self: Counts, shapes: Shapes) -> None:
        os.read(os.pipe()[0], 1)

    before = children()
    with monkeypatch.context() as patch:
        patch.setattr(Counts, "of", hang)
        patch.setattr(room, "PATIENCE", 0.05)
        with helped(networks(8)):
            pass
    assert children() == before
    folder.parent.write_text("no folder")
    with helped(networks(8)):
        assert Counts().of(networks(1)[0]).peak > 0


def test_an_error_ends_the_children_too(folder: Path) -> None:
    before = children()

    def stopped() -> None:
        with helped(networks(8)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert children() == before


def test_the_compiler_is_neither_imported_nor_spoilt_by_a_count(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT],
        env={**os.environ, "SECLI_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
