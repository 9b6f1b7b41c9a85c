"""What campaigns share: small commands with their data, carried out in processes of their own, and what they left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from secli.storage.owners import read_name

LONGEST = 300.0
"""Seconds after which a command is taken for hung."""
SWEEP = """name: tiny
about: a trial
models: [{name: cnn, options: {widths: [2, 2, 2, 2]}}]
datasets: [{name: digits-scale, sizes: [64, 20, 30]}]
training: {epochs: 3, batch: 16, device: cpu, milestones: []}
measure: {factors: [1, 0.5], images: 5}
"""
TRAIN = "train cnn --data DATA --out runs --epochs 4 --batch 16 --threads 1 --device cpu -q"
TIMES = {"created", "seconds", "images_per_second", "train_seconds", "command", "commit"}


@dataclass(frozen=True)
class Command:
    """One command of a campaign.

    Attributes
    ----------
    name
        What the campaign calls it.
    arguments
        Of its first call.
    again
        What is added when it is called again.
    needs
        Which part of the common stock is there before: nothing, the data, a finished run beside them.
    """

    name: str
    arguments: str
    again: str = ""
    needs: str = "data"

    def argv(self, again: bool = False) -> list[str]:
        """Return the arguments of a call."""
        return [*self.arguments.split(), *(self.again.split() if again else [])]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it told on stderr."""
        return [line for line in self.err.splitlines() if line.strip()]


def commands() -> dict[str, Command]:
    """Return all commands."""
    measure = "equivariance RUN --data data/digits/r0 --images 5 --factors 1,0.5 --threads 1 -q"
    each = [
        Command(
            "make-data", "make-data digits-scale --sizes 300 50 50 --out made --jobs 2 -q", needs="nothing"
        ),
        Command("train", TRAIN, "--resume"),
        Command("force", f"{TRAIN} --force", needs="run"),
        Command("sweep", "sweep sweep.yaml --data data --jobs 1 -q"),
        Command("equivariance", measure, "--force", needs="run"),
        Command("report", "report runs -o results/report.md", "--force", needs="run"),
    ]
    return {command.name: command for command in each}


NAMES = tuple(commands())


def stock(place: Path, wanted: Sequence[Command]) -> None:
    """Make what the commands need, once: ``place/nothing``, ``place/data``, ``place/run``."""
    needs = {command.needs for command in wanted}
    nothing, data = place / "nothing", place / "data"
    nothing.mkdir(parents=True)
    if needs & {"data", "run"}:
        data.mkdir()
        (data / "sweep.yaml").write_text(SWEEP)
        for arguments in ("digits", "digits-scale --sizes 64 20 30"):
            expect(forked(f"make-data {arguments} --out data --jobs 1 -q".split(), data))
    if "run" in needs:
        shutil.copytree(data, place / "run")
        expect(forked(in_place(TRAIN.split(), place / "run"), place / "run"))


def in_place(argv: Sequence[str], place: Path) -> list[str]:
    """Return arguments with the names that the data and the run have there."""
    named = {"DATA": "data/digits-scale-*/r0", "RUN": "runs/cnn/*"}
    found = {word: next(place.glob(pattern), place) for word, pattern in named.items()}
    return [str(found[word].relative_to(place)) if word in found else word for word in argv]


def expect(done: Done) -> Done:
    """Return how an undisturbed command ended; it must have gone well."""
    if done.code != 0:
        raise RuntimeError(f"an undisturbed command failed: {done.err}")
    return done


@contextlib.contextmanager
def workplace(stock_place: Path, command: Command, inside: Path | None = None) -> Iterator[Path]:
    """Give a folder with a copy of what the command needs; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=inside, ignore_cleanup_errors=True) as folder:
        place = Path(folder) / "w"
        shutil.copytree(stock_place / command.needs, place)
        yield place


# ---- carrying out


class Running:
    """A command that runs in a process of its own, in a folder of its own."""

    def __init__(self, argv: Sequence[str], place: Path, before: Callable[[], None] = lambda: None) -> None:
        self.streams = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]  # noqa: SIM115
        self.pid = self._start(in_place(argv, place), place, before)

    def _start(self, argv: list[str], place: Path, before: Callable[[], None]) -> int:
        """Fork: what takes seconds to import has been imported here."""
        pid = os.fork()
        if pid == 0:
            _become(argv, place, [stream.fileno() for stream in self.streams], before)
        return pid

    def kill(self, number: int) -> None:
        """Send a signal; the process may be gone already."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ended(self) -> int | None:
        """Return the exit code, if it has ended."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self, longest: float = LONGEST) -> Done:
        """Return how it ended; one that hangs is killed, and has the code 999."""
        deadline, code = time.monotonic() + longest, None
        while (code := self.ended()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if code is None:
            self.kill(signal.SIGKILL)
            os.waitpid(self.pid, 0)
            code = 999
        told = []
        for stream in self.streams:
            stream.seek(0)
            told.append(stream.read().decode(errors="replace"))
            stream.close()
        return Done(code, *told)

    def catches(self, number: int) -> bool:
        """Say whether the process has set its own handler for a signal; where the system does not tell, it has."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return True
        mask = re.search(r"SigCgt:\s*([0-9a-f]+)", status)
        if re.search(r"State:\s*[ZX]", status):
            return True
        return mask is None or bool(int(mask[1], 16) >> (number - 1) & 1)


class Started(Running):
    """The same in a fresh interpreter, which imports everything itself."""

    def _start(self, argv: list[str], place: Path, before: Callable[[], None]) -> int:
        root = str(Path(__file__).parents[2])
        out, err = self.streams
        self.process = subprocess.Popen(
            [sys.executable, "-m", "secli", *argv],
            cwd=place,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])},
            start_new_session=True,
        )
        return self.process.pid

    def ended(self) -> int | None:
        """Return the exit code, if it has ended."""
        return self.process.poll()

    def wait(self, longest: float = LONGEST) -> Done:
        """Return how it ended."""
        try:
            self.process.wait(longest)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return super().wait(longest)


def forked(argv: Sequence[str], place: Path, before: Callable[[], None] = lambda: None) -> Done:
    """Carry out a command to its end."""
    return Running(argv, place, before).wait()


def _become(argv: list[str], place: Path, streams: list[int], before: Callable[[], None]) -> NoReturn:
    """Be the command, in a forked process."""
    code = 70
    try:
        os.setsid()
        for descriptor, stream in zip((1, 2), streams, strict=True):
            os.dup2(stream, descriptor)
        os.chdir(place)
        sys.argv = ["secli", *argv]
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        from secli.cli.app import main

        before()
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def warm() -> None:
    """Import what commands need, so that forked ones do not; nothing is computed, no thread is started."""
    import matplotlib.figure
    import torch

    import secli.cli.app
    import secli.cli.results
    import secli.datasets.build
    import secli.report.files
    import secli.sources.registry
    import secli.sweeps.measure
    import secli.sweeps.prepare_data
    import secli.training.run  # noqa: F401

    torch.set_num_threads(1)
    del matplotlib


# ---- what they left


def left_behind(place: Path) -> list[str]:
    """Return the temporary files below a folder."""
    return sorted(str(path.relative_to(place)) for path in place.rglob(".*") if read_name(path.name))


def content(place: Path) -> dict[str, Any]:
    """Return all files below a folder, apart from times and from how the command was called."""
    files = (path for path in sorted(place.rglob("*")) if path.is_file())
    return {str(path.relative_to(place)): _timeless(path) for path in files}


def _timeless(path: Path) -> Any:
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".pt":  # holds times; what follows from it is compared
        return True
    if path.suffix == ".md":
        return re.sub(r"\d{4}-\d\d-\d\d[T ][\d:+Z.]+| --force| --resume", "", path.read_text())
    return path.read_bytes()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in TIMES}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


@dataclass
class Tally:
    """What a campaign counts."""

    name: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)

    def add(self, what: str, faults: Sequence[str]) -> None:
        """Count one trial, and tell what went wrong with it."""
        self.tried += 1
        if faults:
            self.lost.append(what)
            sys.stdout.write(f"lost: {what}: {'; '.join(faults)}\n")
            sys.stdout.flush()

    def conclude(self) -> int:
        """Print the last line, and return the exit code."""
        survived = self.tried - len(self.lost)
        sys.stdout.write(f"{self.name}: tried {self.tried}, survived {survived}, lost {len(self.lost)}\n")
        return 1 if self.lost else 0


def in_lanes(trials: Sequence[Any], carry_out: Callable[[Any], list[str]], tally: Tally, lanes: int) -> None:
    """Carry out trials in so many processes at once; each gets every n-th."""
    reading, writing = os.pipe()
    children = []
    for lane in range(lanes):
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                for trial in trials[lane::lanes]:
                    line = json.dumps([str(trial), carry_out(trial)]) + "\n"
                    os.write(writing, line.encode()[:4000])
            finally:
                os._exit(0)
        children.append(pid)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as answers:
        for line in answers:
            tally.add(*json.loads(line))
    for pid in children:
        os.waitpid(pid, 0)
    if tally.tried < len(trials):
        tally.add("the campaign itself", [f"{len(trials) - tally.tried} trials did not come back"])
