"""A small part of each campaign; ``python -m tests.campaigns.kill`` and ``.fault`` carry them out in full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from secli.storage.owners import owned_name
from tests.campaigns.commands import Done
from tests.campaigns.fault import Trial, _faults
from tests.campaigns.kill import _faults_of_leaving

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="campaigns fork")


def last_line(*arguments: str) -> str:
    """Return how a campaign ended; in a process of its own, for a forked one must not inherit pytest's threads."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=False, timeout=600, cwd=root
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


@needs_fork
def test_of_killed_commands_nothing_is_lost() -> None:
    told = last_line(
        "tests.campaigns.kill", "--count", "2", "--seed", "3", "--only", "make-data,train", "--fresh", "0"
    )
    assert told == "kill: tried 2, survived 2, lost 0"


@needs_fork
def test_of_hindered_commands_nothing_is_lost() -> None:
    told = last_line("tests.campaigns.fault", "--count", "4", "--seed", "3", "--only", "make-data")
    assert told == "fault: tried 4, survived 4, lost 0"


def test_a_campaign_sees_what_is_lost(tmp_path: Path) -> None:
    """A file that stays, a wrong exit code, a line too many: each is a fault."""
    assert _faults_of_leaving(Done(143, "", "interrupted\n"), signal.SIGTERM, tmp_path) == []
    assert _faults_of_leaving(Done(1, "", "error\n"), signal.SIGTERM, tmp_path)
    assert _faults_of_leaving(Done(143, "", "interrupted\nTraceback\n"), signal.SIGTERM, tmp_path)
    (tmp_path / owned_name("a", "tmp")).write_text("half")
    assert _faults_of_leaving(Done(143, "", "interrupted\n"), signal.SIGTERM, tmp_path)
    full = Trial("train", "disk", 4096)
    assert _faults(Done(1, "", "error: a: no space left on device\n"), full) == []
    assert _faults(Done(2, "", "error: a: no space left on device\n"), full)
    assert _faults(Done(1, "", "error: a: failed\n"), full)
    assert _faults(Done(1, "", "Traceback (most recent call last)\n"), full)
