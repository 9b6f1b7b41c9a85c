"""Hostile names in records, manifests and sweeps: none becomes a path, a formula, a tag or a command of a terminal.

``python -m tests.campaigns.hostile_names --count 300 --seed 0``
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.campaigns.forked import Ended, invoke, rehearse, warm
from tests.campaigns.standing import Standing, changed, digests, stand_up

NAME = "hostile_names"
NAMES = (
    "../../outside", "/outside", "..", ".", "", " ", "a/b", "a\\b", "~", "-rf", "--help", "con", "x" * 255,
    "x" * 5000,
    '=HYPERLINK("http://x","y")', "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;b&gt;", "]]>", "<!--", "' onclick='x",
    '" onload="x',
    "[x](http://x)", "![x](http://x)", "`x`", "*x*", "a|b", "# x", "x\n\n# y",
    "\x1b]0;t\x07\x1b[31mred", "\x9b31m", "\x07", "\x08\x08", "\u202egpj.exe", "\u2028x", "\ud800", "\ufeffx",
    "$\\frac{$", "$x$", "\\input{x}", "%", "%s", "{0}", "{}", "\\", "_x", "__x__", "[/bold]", "[red]x", "💥", "漢字",
    "İı",
    "NaN", "null", "true", "-0.5", "1e5", "0x10", "a,b", "a;b", "a\x00b", "$(touch x)", "`touch x`", "; touch x", "| x",
)  # fmt: skip


def _set(file: Path, places: Sequence[tuple[str, ...]], value: Any) -> None:
    """Put a value at some places of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    for place in places:
        holder: Any = content
        for key in place[:-1]:
            holder = holder[int(key)] if isinstance(holder, list) else holder[key]
        holder[place[-1]] = value
    file.write_text(json.dumps(content), encoding="utf-8")


def in_a_run(name: str, at: Standing, here: Path) -> None:
    """The name of a network, of its data and of all that a table or a report tells of them."""
    run = here / "runs" / "a"
    shutil.copytree(at.run, run)
    told = [("model", "name"), ("data", "name"), ("provenance", "command"), ("provenance", "device")]
    _set(run / "record.json", told, name)
    rows = [("rows", "1", "field"), ("rows", "2", "tap")]
    _set(run / "equivariance.json", [("rows", "0", "reason")], {"code": "failed", "data": {"error": name}})
    _set(run / "equivariance.json", [*told, *rows, ("trained_on", "name")], name)


def in_a_sweep(name: str, at: Standing, here: Path) -> None:
    """The names that a sweep gives to its runs, its tables and itself."""
    shutil.copytree(at.swept, here / "runs")
    told = [("name",), ("about",), ("command",), ("runs", "0", "label"), ("tables", "0", "title")]
    _set(here / "runs" / "sweep.json", told, name)


def where_a_run_lies(name: str, at: Standing, here: Path) -> None:
    """The directory of a run, as a sweep's record says it."""
    shutil.copytree(at.swept, here / "runs")
    _set(here / "runs" / "sweep.json", [("runs", "0", "run")], name)


READ: tuple[tuple[str, ...], ...] = (
    *(("compare", "runs", "--format", format) for format in ("table", "markdown", "latex", "csv", "json")),
    ("report", "runs", "-o", "r.html"),
    ("report", "runs", "-o", "r.md"),
)


def in_a_manifest(name: str, at: Standing, here: Path) -> None:
    """The name of a dataset, which becomes that of a run's directory."""
    shutil.copytree(at.data, here / "given")
    _set(here / "given" / "manifest.json", [("name",)], name)


def in_a_specification(name: str, at: Standing, here: Path) -> None:
    """The name of a sweep, which becomes that of its directory."""
    text = at.sweep.read_text(encoding="utf-8").replace("name: small", f"name: {json.dumps(name)}", 1)
    (here / "s.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")


TRAIN = ("train", "cnn", "--data", "given", "--out", "runs", "--epochs", "1", "--threads", "1", "-q")
PLAN = ("sweep", "s.yaml", "--dry-run")
Place = Callable[[str, Standing, Path], None]
PLACES: tuple[tuple[Place, tuple[tuple[str, ...], ...]], ...] = (
    (in_a_run, READ),
    (in_a_sweep, READ),
    (where_a_run_lies, READ),
    (in_a_manifest, (TRAIN,)),
    (in_a_specification, (PLAN,)),
)


def cases() -> Iterator[tuple[str, Place, tuple[str, ...]]]:
    """Give every name at every place, read by every command that reads it."""
    for name, (place, commands) in itertools.product(NAMES, PLACES):
        for command in commands:
            yield name, place, command


_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def problems(name: str, place: Place, command: tuple[str, ...], here: Path, ended: Ended) -> list[str]:
    """Return what is wrong with what came of a name; nothing where it harmed nobody."""
    found = []
    if ended.code not in (0, 1, 2) or "Traceback (most recent call last)" in ended.stderr:
        found.append(f"exit code {ended.code}: {ended.stderr[-200:]!r}")
    if place in (in_a_run, in_a_sweep) and ended.code != 0:
        found.append(f"the others were not read: {ended.stderr[-200:]!r}")
    if _OBEYED.search(ended.stdout + ended.stderr):
        found.append("a terminal would obey it")
    if "--format" in command and command[-1] == "csv":
        cells = (cell for row in csv.reader(io.StringIO(ended.stdout)) for cell in row)
        found += [
            f"a formula: {cell[:40]!r}"
            for cell in cells
            if cell[:1] in tuple("=+-@\t\r") and not _NUMBER.fullmatch(cell)
        ]
    if "--format" in command and command[-1] == "markdown" and re.search(r"(?<!\\)<[a-z!/]", ended.stdout):
        found.append("a tag in markdown")
    page = here / "r.html"
    if page.is_file() and re.search(r"<script>alert|<img src=x|onclick='x|onload=\"x", page.read_text()):
        found.append("a tag in the report")
    allowed = {"runs", "given", "s.yaml", "sweeps", "r.html", ".stdout", ".stderr"}
    found += [
        f"written: {path.name}"
        for path in here.iterdir()
        if path.name not in allowed and not path.name.startswith("r")
    ]
    return found


def campaign(count: int, seed: int, scratch: Path, at: Standing) -> tuple[int, list[str]]:
    """Try so many cases; return how many were tried, and a line on each that was lost."""
    (scratch / "rehearsal").mkdir()
    for command in (
        ("compare", str(at.swept)),
        *(("report", str(at.swept), "-o", f"r.{kind}") for kind in ("html", "md")),
    ):
        rehearse(command, scratch / "rehearsal")
    before = digests(at.root)
    everything = list(cases())
    chosen = random.Random(seed).sample(everything, min(count, len(everything)))
    room = scratch / "deep" / "er"
    room.mkdir(parents=True)
    lost = []
    for number, (name, place, command) in enumerate(chosen):
        here = room / f"{number}"
        here.mkdir()
        place(name, at, here)
        ended = invoke(command, here)
        wrong = problems(name, place, command, here, ended) + changed(before, digests(at.root))
        wrong += [
            f"outside: {path}"
            for path in (*room.iterdir(), *room.parent.iterdir())
            if path not in (here, room)
        ]
        if wrong:
            lost.append(f"{name[:60]!r} {place.__name__}, {' '.join(command)}: {'; '.join(wrong)}")
        shutil.rmtree(here)
    return len(chosen), lost


def main(argv: Sequence[str]) -> int:
    """Run the campaign and print its result; 1 when something was lost."""
    parser = argparse.ArgumentParser(prog=f"tests.campaigns.{NAME}")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="secli-campaign-") as scratch:
        warm()
        at = stand_up(Path(scratch) / "standing")
        tried, lost = campaign(given.count, given.seed, Path(scratch), at)
    for line in lost:
        sys.stdout.write(f"{line.encode('unicode_escape').decode()}\n")
    sys.stdout.write(f"{NAME}: tried {tried}, survived {tried - len(lost)}, lost {len(lost)}\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
