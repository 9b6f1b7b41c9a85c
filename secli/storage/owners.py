"""Who writes a temporary file: its name holds the process, when that began, and the machine."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import platform
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["tmp", "old", "set"]
"""tmp: half made; old: moved away by its replacement; set: whole files that are about to be moved."""

ABANDONED = 24 * 3600.0
"""Seconds after which the files of a process that this machine cannot see count as abandoned."""
LONGEST = 255
"""Bytes of a file's name."""

_NAME = re.compile(
    r"\.(?P<name>.+)\.(?P<pid>\d+)-(?P<start>\w+)-(?P<host>\w+)-\d+\.(?P<kind>tmp|old|set)(?:\.\w{1,16})?",
    re.DOTALL,
)
_count = itertools.count()


class Owned(NamedTuple):
    """What the name of a temporary file or folder holds."""

    name: str
    pid: int
    start: str
    host: str
    kind: str


def owned_name(name: str, kind: Kind, suffix: str = "") -> str:
    """Return a temporary name for ``name``; no other process or call gets the same."""
    pid = os.getpid()
    mark = f"{pid}-{_own_start(pid)}-{_host()}-{next(_count)}.{kind}{suffix}"
    if kind != "old":  # that one is read back
        room = LONGEST - len(os.fsencode(mark)) - 2
        while len(os.fsencode(name)) > room:
            name = name[:-1]
    return f".{name}.{mark}"


def read_name(name: str) -> Owned | None:
    """Parse the name of a temporary file; None for any other file."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return Owned(match["name"], int(match["pid"]), match["start"], match["host"], match["kind"])


def final_path(path: Path) -> Path:
    """Return the later path of a folder that is being made: itself, unless its name is a temporary one."""
    owned = read_name(path.name)
    return path if owned is None else path.with_name(owned.name)


def is_mine(owned: Owned) -> bool:
    """Return whether this process is the owner."""
    pid = os.getpid()
    return (owned.pid, owned.start, owned.host) == (pid, _own_start(pid), _host())


def is_dead(path: Path, owned: Owned) -> bool:
    """Return whether the owner of a temporary file is gone.

    A process of another machine or container cannot be seen: its file counts as abandoned when nothing has changed
    in it for a day.
    """
    if owned.host == _host() and _sees_processes():
        start = _start_of(owned.pid)
        if start is not None or not _exists(owned.pid):
            return start != owned.start
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED
    except OSError:
        return False


@functools.lru_cache(maxsize=1)
def _own_start(pid: int) -> str:
    # by the pid: a forked process is another owner
    return _start_of(pid) or "0"


@functools.lru_cache(maxsize=1)
def _sees_processes() -> bool:
    return _start_of(os.getpid()) is not None


@functools.lru_cache(maxsize=1)
def _host() -> str:
    """Return a hash of this machine and container: each counts its processes by itself."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _start_of(pid: int) -> str | None:
    """Return when a process began, in a form of this system's own; empty for a zombie.

    None where there is no such process, or it is another user's and hidden.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _start_by_ps(pid)
    except OSError:
        return None
    # the command's name, in brackets, may hold anything: fields are counted from its end
    fields = status.rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X"):
        return ""
    return f"{_boot()}{int(fields[19]):x}"


@functools.lru_cache(maxsize=1)
def _boot() -> str:
    """Return digits that change with every start of the machine, when process times begin anew."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:4]
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    """Return whether there is such a process, hidden or not. Only on POSIX: elsewhere signal 0 is no question."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _start_by_ps(pid: int) -> str | None:
    if os.name != "posix":
        return None
    try:
        listed = subprocess.run(
            ["ps", "-o", "lstart=", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False
        )
    except OSError:
        return None
    words = listed.stdout.split()
    if not words:
        return None
    if words[-1].startswith(b"Z"):
        return ""
    return hashlib.sha256(b" ".join(words[:-1])).hexdigest()[:8]
