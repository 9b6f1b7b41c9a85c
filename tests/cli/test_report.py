"""``secli report``: what it writes and says, the numbers of ``secli compare``, and bad input in one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from secli.cli.app import app
from secli.records.schema import RECORD_FILE
from tests.tables.fabricate import curves, training, write_run


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for r in (0, 1):
        for name, error in (("cnn", 0.05), ("mnist_ses_scalar_28", 0.02)):
            record = training(name, error + 0.01 * r, realisation=r)
            write_run(
                tmp_path / "runs" / name / f"r{r}", record, curves(name, realisation=r, level=0.5 + error)
            )
    return tmp_path / "runs"


def test_one_file_that_says_how_it_was_made(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out" / "report.html"
    arguments = [str(runs), "-o", str(file), "--title", "A & B", "--published"]
    monkeypatch.setattr(sys, "argv", ["secli", "report", *arguments])
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{file}\n"
    assert list(file.parent.iterdir()) == [file]
    page = file.read_text(encoding="utf-8")
    assert "<title>A &amp; B</title>" in page
    assert page.count("secli report ") >= 3  # at both figures and at the foot
    assert "--title &#x27;A &amp; B&#x27;" in page
    assert f"secli compare {runs} --published --accuracy" in page
    assert "2.10 ± 0.10".replace("± ", "±\u00a0") in page  # the published error of the scalar SESN


def test_the_command_below_a_table_prints_its_numbers(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    assert run(runs, "-o", file).exit_code == 0
    page = file.read_text(encoding="utf-8")
    found = re.search(r"Made by <code>secli (compare [^<]*)</code>", page)
    assert found is not None
    rows = json.loads(CliRunner().invoke(app, [*found[1].split(), "--format", "json"]).stdout)
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    lines = [
        re.findall(r'data-value="([^"]+)"', line) for line in body.splitlines() if line.startswith("<tr")
    ]
    assert len(lines) == len(rows) == 2
    for line, row in zip(lines, rows, strict=True):
        wanted = [row["n"], row["test_error"]["mean"], row["delta"]["mean"]]
        wanted += [one["mean"] for one in row["delta_at"]] + [one["mean"] for one in row["accuracy_at"]]
        wanted += [row["parameters"], row["train_seconds"]["mean"]]
        assert [float(text) for text in line] == wanted


def test_markdown_beside_its_pictures(runs: Path, tmp_path: Path) -> None:
    result = run(runs, "-o", tmp_path / "page" / "results.md")
    assert result.exit_code == 0, result.stderr
    files = [Path(line).name for line in result.stdout.splitlines()]
    assert files == ["results-heatmap-1.png", "results-curves-1.png", "results.md"]
    assert sorted(files) == sorted(path.name for path in (tmp_path / "page").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "r.html"], "nowhere: no such run directory"),
        ([".", "-o", "r.html"], "no record here or below"),
        (["runs", "-o", "r.pdf"], "r.pdf: a report is written as .html"),
        (["runs", "-o", "taken.html"], "taken.html: already there; add --force"),
        (["runs", "-o", "taken.html/r.html"], "taken.html is a file, not a directory"),
        (["runs", "-o", "r.html", "--by", "augmnt"], "did you mean 'augment'?"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_line(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    place = tmp_path / "desk"
    place.mkdir()
    (place / "taken.html").write_text("mine")
    monkeypatch.chdir(place)
    if arguments[:1] == ["runs"]:
        (place / "runs").symlink_to(runs)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert (place / "taken.html").read_text() == "mine"
    assert not (place / "r.html").exists()


def test_damaged_and_failed_runs(runs: Path, tmp_path: Path) -> None:
    write_run(runs / "bad" / "r0", training("dcn", status="failed", reason="loss is NaN"))
    (runs / "bad" / "r1").mkdir()
    (runs / "bad" / "r1" / RECORD_FILE).write_text("{")
    assert run(runs, "-o", tmp_path / "r.html").exit_code == 0
    page = (tmp_path / "r.html").read_text()
    assert "loss is NaN" in page
    assert "damaged record" in page
    alone = run(runs / "bad" / "r1", "-o", tmp_path / "s.html")
    assert alone.exit_code == 2
    assert "damaged record" in alone.stderr
    none = run(runs / "bad" / "r0", "-o", tmp_path / "s.html")
    assert none.exit_code == 2
    assert "nothing to compare" in none.stderr
    sweep = runs / "sweep.json"
    sweep.write_text('{"kind": "sweep"}')
    assert run(runs, "-o", tmp_path / "s.html").exit_code == 0
    assert "damaged record (not a record of secli)" in (tmp_path / "s.html").read_text()


def test_force_replaces(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    assert run(runs, "-o", file).exit_code == 0
    before = file.read_bytes()
    assert run(runs, "-o", file, "--title", "new").exit_code == 2
    assert file.read_bytes() == before
    assert run(runs, "-o", file, "--title", "new", "--force").exit_code == 0
    assert b"<title>new</title>" in file.read_bytes()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash for a limit on file sizes")
def test_a_full_disk_leaves_the_old_report(runs: Path, tmp_path: Path) -> None:
    """A file size limit of 1 KiB stands for the full disk: the write fails half-way."""
    file = tmp_path / "r.html"
    file.write_text("old")
    command = f"ulimit -f 1; trap '' XFSZ; {sys.executable} -m secli report {runs} -o {file} --force"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2), done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {file}: ")
    assert "Traceback" not in done.stderr
    assert file.read_text() == "old"
    assert [path for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_the_command_line_starts_without_matplotlib() -> None:
    code = (
        "import sys, secli.cli.app\n"
        "assert not {'matplotlib', 'numpy', 'secli.tables.report.gather'} & set(sys.modules), 'loaded too early'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
