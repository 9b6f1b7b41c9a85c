"""Run commands on full disks, in read-only folders and under limits, and see whether anything is lost.

``python -m tests.campaigns.fault --count 60 --seed 0``. Each trial runs one command under one fault:

- ``disk``: in a small file system of its own, which has a few KiB to a few MiB left (Linux, as root);
- ``file``: no file may be larger than a few KiB to a few MiB (``ulimit -f``);
- ``read-only``: the folder that it writes into may not be written;
- ``open``: it may open but few files at once (``ulimit -n``).

A trial is survived when the command has either ended well or told one line and left with 1 or 2 (1 where there was no
room), nothing that was there has changed, nothing half made is left, and without the fault it ends well.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.commands import (
    NAMES,
    Done,
    Tally,
    commands,
    content,
    forked,
    in_lanes,
    left_behind,
    stock,
    warm,
    workplace,
)

FAULTS = ("disk", "file", "read-only", "open")
NO_ROOM = ("no space left", "file too large", "disk quota exceeded")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@dataclass(frozen=True)
class Trial:
    """One command under one fault, of this size (bytes or files)."""

    command: str
    fault: str
    size: int

    def __str__(self) -> str:
        return f"{self.command} with {self.fault} {self.size}"


class Campaign:
    """The commands and the faults."""

    def __init__(self, place: Path, trials: Sequence[Trial]) -> None:
        self.place, self.stock = place, place / "stock"
        self.commands = {trial.command: commands()[trial.command] for trial in trials}
        stock(self.stock, list(self.commands.values()))

    def carry_out(self, trial: Trial) -> list[str]:
        """Return what was lost; nothing, if all went well."""
        command = self.commands[trial.command]
        with self._file_system(trial) as inside, workplace(self.stock, command, inside) as place:
            before = content(place)
            with _read_only(place) if trial.fault == "read-only" else _leaving_room(place, trial):
                done = forked(command.argv(), place, _limit(trial))
            faults = _faults(done, trial)
            after = content(place)
            changed = [name for name, held in before.items() if after.get(name) != held]
            if changed and done.code != 0:
                faults.append(f"changed: {', '.join(changed)}")
            left = left_behind(place)
            faults += [f"left behind: {', '.join(left)}"] if left else []
            again = forked(command.argv(again=True), place)
            if again.code != 0:
                faults.append(f"without the fault, it left with {again.code}: {again.err.strip()[-300:]}")
            return faults

    @contextlib.contextmanager
    def _file_system(self, trial: Trial) -> Iterator[Path]:
        """Give a file system of the trial's own, or the campaign's folder."""
        if trial.fault not in ("disk", "read-only") or not ROOT:
            yield self.place
            return
        with tempfile.TemporaryDirectory(prefix="small-", dir=self.place) as folder:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
            try:
                yield Path(folder)
            finally:
                subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def _leaving_room(place: Path, trial: Trial) -> Iterator[None]:
    """Fill the trial's file system up to some bytes, while the body runs."""
    if trial.fault != "disk":
        yield
        return
    filler = place.parent / "filler"
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    with filler.open("wb") as file:
        file.write(b"x" * max(0, free - trial.size))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def _read_only(place: Path) -> Iterator[None]:
    """Let nobody write below a folder while the body runs; for root only a file system can say so."""
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    if ROOT:
        mounted = place.parent.parent
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", mounted], check=True)
        return
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


def _limit(trial: Trial) -> Callable[[], None]:
    """Return what sets the trial's limit in the process of the command."""

    def limit() -> None:
        import resource

        if trial.fault == "file":
            resource.setrlimit(resource.RLIMIT_FSIZE, (trial.size, resource.RLIM_INFINITY))
        elif trial.fault == "open":
            resource.setrlimit(resource.RLIMIT_NOFILE, (trial.size, trial.size))

    return limit


def _faults(done: Done, trial: Trial) -> list[str]:
    if done.code == 0:
        return []
    if done.code not in (1, 2) or "Traceback" in done.err:
        return [f"left with {done.code}: {done.err.strip()[-600:]}"]
    faults = []
    if trial.command != "sweep" and len(done.lines) != 1:  # a sweep tells of each run that failed
        faults.append(f"told {done.lines}")
    if any(len(line) > 400 for line in done.lines):
        faults.append(f"told at length: {done.err}")
    if trial.fault in ("disk", "file") and (done.code != 1 or not any(word in done.err for word in NO_ROOM)):
        faults.append(f"left with {done.code}, and told {done.lines}")
    if trial.fault == "read-only" and done.code != 2:
        faults.append(f"left with {done.code}, and told {done.lines}")
    return faults


def _size(fault: str, draw: random.Random) -> int:
    if fault == "open":
        return draw.randint(12, 60)
    return int(2 ** draw.uniform(12, 21))


def main(argv: list[str] | None = None) -> int:
    """Carry out the campaign; the exit code says whether anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.fault", description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="trials in all")
    parser.add_argument("--seed", type=int, default=0, help="of commands, faults and their sizes")
    parser.add_argument("--lanes", type=int, default=2, help="commands at once")
    parser.add_argument("--only", default=",".join(NAMES), help="which commands")
    given = parser.parse_args(argv)
    names, draw = given.only.split(","), random.Random(given.seed)
    kinds = [fault for fault in FAULTS if ROOT or fault != "disk"]
    trials = []
    for index in range(given.count):
        fault = kinds[index % len(kinds)]
        trials.append(Trial(names[index // len(kinds) % len(names)], fault, _size(fault, draw)))
    tally = Tally("fault")
    warm()
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        in_lanes(trials, Campaign(Path(folder), trials).carry_out, tally, given.lanes)
    return tally.conclude()


if __name__ == "__main__":
    sys.exit(main())
