"""Kill commands at random moments, repeat them, and see whether anything is lost.

``python -m tests.campaigns.kill --count 100 --seed 0``. Each trial starts one command in a folder of its own, sends
SIGKILL, SIGTERM or SIGINT at a random moment, and calls the command again. A trial is survived when

- after SIGTERM or SIGINT the command has told one line, left with 143 or 130, and left nothing half made;
- of a run that was being replaced, ``compare`` finds the old one or the new one in between;
- the repeated command ends well, with what an undisturbed one makes, apart from times, and with no other file.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaigns.commands import (
    NAMES,
    Command,
    Done,
    Running,
    Started,
    Tally,
    commands,
    content,
    expect,
    forked,
    in_lanes,
    left_behind,
    stock,
    warm,
    workplace,
)

NUMBERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Trial:
    """One kill: which command, which signal, after which share of its usual time, in a fresh interpreter or not."""

    command: str
    number: signal.Signals
    moment: float
    fresh: bool

    def __str__(self) -> str:
        how = "started" if self.fresh else "forked"
        return f"{self.command} ({how}) at {self.moment:.3f} of its time by {self.number.name}"


@dataclass(frozen=True)
class Usual:
    """What an undisturbed command makes, and how many seconds it takes, by whether its interpreter is fresh."""

    made: dict[str, Any]
    seconds: dict[bool, float]


class Campaign:
    """The commands, and what they make undisturbed."""

    def __init__(self, place: Path, trials: Sequence[Trial]) -> None:
        self.stock = place / "stock"
        self.commands = {trial.command: commands()[trial.command] for trial in trials}
        stock(self.stock, list(self.commands.values()))
        fresh = any(trial.fresh for trial in trials)
        self.usual = {name: self._usual(command, fresh) for name, command in self.commands.items()}

    def _usual(self, command: Command, fresh: bool) -> Usual:
        seconds, made = {}, {}
        for kind in (Running, Started) if fresh else (Running,):
            with workplace(self.stock, command) as place:
                began = time.monotonic()
                expect(kind(command.argv(), place).wait())
                seconds[kind is Started] = time.monotonic() - began
                made = content(place)
        return Usual(made, seconds)

    def carry_out(self, trial: Trial) -> list[str]:
        """Return what was lost; nothing, if all went well."""
        command, usual = self.commands[trial.command], self.usual[trial.command]
        with workplace(self.stock, command) as place:
            running = (Started if trial.fresh else Running)(command.argv(), place)
            while not running.catches(signal.SIGTERM):  # one that has ended is said to catch them
                time.sleep(0.001)
            time.sleep(trial.moment * usual.seconds[trial.fresh])
            running.kill(trial.number)
            faults = _faults_of_leaving(running.wait(), trial.number, place)
            if trial.command == "force":
                faults += _faults_of_replacing(place)
            again = forked(command.argv(again=True), place)
            if again.code != 0:
                return [*faults, f"repeated, it left with {again.code}: {again.err.strip()[-300:]}"]
            left = left_behind(place)
            faults += [f"left behind: {', '.join(left)}"] if left else []
            now = content(place)
            different = [
                name for name in sorted(now.keys() | usual.made) if now.get(name) != usual.made.get(name)
            ]
            return faults + ([f"not as undisturbed: {', '.join(different)}"] if different else [])


def _faults_of_leaving(done: Done, number: signal.Signals, place: Path) -> list[str]:
    if number == signal.SIGKILL or done.code == 0:
        return []
    faults = []
    if done.code != 128 + number:
        faults.append(f"left with {done.code}: {done.err.strip()[-300:]}")
    elif len(done.lines) != 1 or not done.lines[0].startswith("interrupted"):
        faults.append(f"told {done.lines}")
    left = left_behind(place)
    return faults + ([f"left behind at once: {', '.join(left)}"] if left else [])


def _faults_of_replacing(place: Path) -> list[str]:
    found = forked(["compare", "runs", "--format", "csv"], place)
    if found.code != 0 or "cnn" not in found.out:
        return [f"between the calls no finished run is found: {found.err.strip()[-300:]}"]
    return []


def main(argv: list[str] | None = None) -> int:
    """Carry out the campaign; the exit code says whether anything was lost.

    Commands in a fresh interpreter are hit at any moment from start-up on; the others, which begin where all is
    imported, at their work.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.kill", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="of commands, signals and moments")
    parser.add_argument("--lanes", type=int, default=2, help="commands at once")
    parser.add_argument("--only", default=",".join(NAMES), help="which commands")
    parser.add_argument("--fresh", type=float, default=0.3, help="share of kills in a fresh interpreter")
    given = parser.parse_args(argv)
    names, draw = given.only.split(","), random.Random(given.seed)
    trials = [
        Trial(names[i % len(names)], draw.choice(NUMBERS), draw.random() * 1.05, draw.random() < given.fresh)
        for i in range(given.count)
    ]
    tally = Tally("kill")
    warm()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        in_lanes(trials, Campaign(Path(folder), trials).carry_out, tally, given.lanes)
    return tally.conclude()


if __name__ == "__main__":
    sys.exit(main())
