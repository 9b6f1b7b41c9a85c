"""Compare what two commits show and compute, in one environment: ``python tools/compare_before_after.py OLD NEW``.

For a change that must change nothing: the help of every command; what make-data, train, equivariance, compare, report
and models print on the digits; the bytes of trained weights; dry runs of every sweep in configs/; a figure as SVG.
Takes some minutes; prints a difference per line of output, and leaves with 1 where there is any. Times, dates, commits
and folders are left out.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = (
    "make-data",
    "models",
    "train",
    "equivariance",
    "compare",
    "sweep",
    "report",
    "bench",
    "demo",
    "doctor",
)
ON_DIGITS = {
    "make-data": "make-data digits-scale --realisations 0 --sizes 200 50 50 --out data",
    "twin": "make-data digits --realisations 0 --sizes 200 50 50 --out data",
    "train": "train cnn --data data/{scaled} --out runs --epochs 2 --threads 1",
    "train-ses": "train mnist_ses_vector_28 --data data/{scaled} --out runs --epochs 1 --batch 50 --threads 1",
    "equivariance": "equivariance {run} --images 20 --threads 1 --local --lie --controls --format json",
    "equivariance-table": "equivariance {run} --images 20 --threads 1 --force",
    "untrained": "equivariance dss_v1 --data data/{plain} --images 10 --factors 0.5,0.8 --threads 1 --format json",
    "curves": "equivariance dss_v1 --data data/{plain} --images 10 --threads 1 --save curves",
    "compare": "compare runs --format json",
    "compare-table": "compare runs --rows model --value test_error,delta,parameters",
    "pivot": "compare runs --rows model --columns lr --format json",
    "models": "models --format json",
    "report": "report runs -o report.md",
    "heatmap": "equivariance dss_v1 --data data/{plain} --images 10 --threads 1 --heatmap heatmap.svg",
}
LEFT_OUT = (
    (re.compile(r'"([a-z_]*(?:second|created|commit|command)[a-z_]*)": (?:\{[^}]*\}|[^\n]*)'), r'"\1": …'),
    (re.compile(r"\d+\.\d+ s\b"), "… s"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.+]+"), "DATE"),
)


def settled(text: str, folder: Path) -> str:
    """Return a text without what differs from call to call."""
    text = text.replace(str(folder), "FOLDER")
    for pattern, instead in LEFT_OUT:
        text = pattern.sub(instead, text)
    return text


class Commit:
    """One commit, checked out, and what its commands gave."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.tree = name, folder, folder / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(self.tree), name], check=True)
        self.work = folder / "work"
        self.work.mkdir()
        self.seen: dict[str, str] = {}

    def secli(self, name: str, line: str) -> None:
        """Run a command and keep what it printed, and how it ended."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.tree),
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
            "SECLI_CACHE": str(self.folder / "cache"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "secli", *line.split()],
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and name.startswith("help "):  # one of the commits does not have it
            self.seen[name] = "no such command"
            return
        if done.returncode:
            raise SystemExit(f"{self.name}: secli {line} ended with {done.returncode}: {done.stderr}")
        self.seen[name] = settled(done.stdout + done.stderr, self.folder)

    def look(self) -> None:
        """Run everything."""
        self.secli("help", "--help")
        for command in COMMANDS:
            self.secli(f"help {command}", f"{command} --help")
        for name, line in ON_DIGITS.items():
            self.secli(name, line.format(**self._found()))
        for file in sorted(self.tree.glob("configs/*.yaml")):
            if "\nabout:" in file.read_text(encoding="utf-8"):  # others are settings of one run
                self.secli(f"dry run {file.name}", f"sweep {file} --dry-run --format json")
        for file in sorted(self.work.rglob("*")):
            if file.suffix in (".safetensors", ".npz", ".npy"):
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                self.seen[f"file {file.relative_to(self.work)}"] = digest
            elif file.suffix in (".svg", ".json", ".csv", ".yaml", ".jsonl"):
                text = file.read_text(encoding="utf-8")
                self.seen[f"file {file.relative_to(self.work)}"] = settled(text, self.folder)

    def _found(self) -> dict[str, str]:
        """Return what earlier commands made, by the names that later ones use."""
        data, runs = self.work / "data", self.work / "runs"
        sets = [path.parent for path in sorted(data.glob("*/*/manifest.json"))]
        named = {str(path.relative_to(data)) for path in sets}
        return {
            "scaled": next((name for name in sorted(named) if name.startswith("digits-scale")), ""),
            "plain": next((name for name in sorted(named) if not name.startswith("digits-scale")), ""),
            "run": str(next((path.parent for path in sorted(runs.glob("cnn/*/record.json"))), "")),
        }

    def remove(self) -> None:
        """Take the checkout away."""
        subprocess.run(["git", "worktree", "remove", "--force", str(self.tree)], check=False)


def main() -> int:
    """Compare two commits; 1 where they differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--lines", type=int, default=40, help="of each difference")
    asked = parser.parse_args()
    commits: list[Commit] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in (asked.old, asked.new):
                place = Path(folder) / ("old" if not commits else "new")
                place.mkdir()
                commits.append(Commit(name, place))
            for commit in commits:
                commit.look()
        finally:
            for commit in commits:
                commit.remove()
    old, new = (commit.seen for commit in commits)
    differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    for name in differing:
        lines = difflib.unified_diff(
            old.get(name, "").splitlines(),
            new.get(name, "").splitlines(),
            asked.old,
            asked.new,
            name,
            lineterm="",
        )
        sys.stdout.write(f"== {name}\n" + "\n".join(list(lines)[: asked.lines]) + "\n")
    sys.stdout.write(
        f"{len(old)} outputs of {asked.old}, {len(new)} of {asked.new}: {len(differing)} differ\n"
    )
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
