"""The ways in that CONTRIBUTING.md describes, carried out as they are written there, on a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PROGRAM = """
import glob, sys
from typer.testing import CliRunner
from secli.cli.app import app
for command in sys.argv[1].splitlines():
    words = [found for word in command.split() for found in (glob.glob(word) or [word])]
    result = CliRunner().invoke(app, words)
    print(result.stdout)
    if result.exit_code:
        sys.exit(f"{command}: {result.stderr}")
"""


def blocks() -> dict[str, list[str]]:
    """The page's blocks by the file that their first line names, and the registry where a line goes into one."""
    found: dict[str, list[str]] = {}
    for _, text in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        head, _, body = dedent(text).partition("\n")
        found.setdefault(head.removeprefix("# "), []).append(body)
    return found


def carry_out(copy: Path, *steps: str) -> None:
    """Write a new file, or add a line to the registry of one that is there."""
    for step in steps:
        (body,) = blocks()[step]
        name, _, registry = step.partition(", in ")
        file = copy / name
        if not registry:
            file.write_text(body, encoding="utf-8")
            continue
        text = file.read_text(encoding="utf-8")
        start = re.search(rf"^{registry}\b[^\n]*Registry\(\n[^\n]*\n    \[\n", text, re.MULTILINE)
        assert start is not None, f"{registry} of {name}"
        file.write_text(text[: start.end()] + body + text[start.end() :], encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "secli", tmp_path / "secli", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(copy: Path, *commands: str) -> list[str]:
    """Run commands in one fresh process that imports the copy."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "\n".join(commands)],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


SMALL = "--sizes 60 20 20 --out d -q"
TRAIN = "train {} --data d/{}*/r0 --epochs 1 --out runs --threads 1 -q"
MEASURE = "equivariance runs/*/* --factors 0.5,1 --images 8 --threads 1 -q"


def test_a_model_is_a_file_and_a_line(copy: Path) -> None:
    carry_out(copy, "secli/models/cnn_strided.py", "secli/catalogue/models.py, in MODELS")
    data = f"make-data digits {SMALL}"
    train = TRAIN.format("cnn_strided", "digits")
    lines = run(copy, data, train, MEASURE, "models", "compare runs --format json")
    assert [line for line in lines if "cnn_strided" in line and "1 418" in line]
    (row,) = json.loads("\n".join(lines[lines.index("[") :]))
    assert row["model"] == "cnn_strided"


def test_a_metric_is_a_line(copy: Path) -> None:
    carry_out(copy, "secli/metrics.py, in METRICS")
    data = f"make-data digits {SMALL}"
    lines = run(copy, data, TRAIN.format("cnn", "digits"), f"{MEASURE} --metric cosine", "compare runs")
    text = "\n".join(lines)
    assert "One minus the cosine between L_sΦ(f) and Φ(L_s f)" in text
    assert "one minus the cosine; background Φ(0) subtracted" in text


def test_a_protocol_is_a_line_and_its_transform_another(copy: Path) -> None:
    before = f"make-data digits-scale {SMALL}"
    run(copy, before)
    carry_out(
        copy,
        "secli/datasets/protocols.py, in DATASETS",
        "secli/datasets/transforms.py, in TRANSFORMS",
        "scipy_turn.py",
    )
    # what was made before is read as it is
    own = ["make-data digits-turned --factors 0 45 --out d -q", TRAIN.format("cnn", "digits-turned-")]
    measure = f"{MEASURE} --data d/digits-turned-*/r0"
    lines = run(copy, before, *own, measure, "compare runs --format json")
    (row,) = json.loads("\n".join(lines[lines.index("[") :]))
    assert (row["model"], row["n"]) == ("cnn", 1)
