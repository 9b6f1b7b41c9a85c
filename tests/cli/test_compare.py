"""``secli compare``: five formats, published figures, what goes to stderr, bad input, and no torch."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from secli.cli.app import app
from secli.records.schema import RECORD_FILE, write_record
from tests.tables.fabricate import curves, training, write_run

SCALAR = "mnist_ses_scalar_28"


def run(*arguments: str | Path, **environment: str) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env=environment)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two models, two seeds each, all measured; and a run that failed."""
    for seed in (0, 1):
        for name, error in (("cnn", 0.05), (SCALAR, 0.02)):
            record = training(name, error + 0.01 * seed, seed=seed)
            write_run(
                tmp_path / name / f"mnist-scale-r0-s{seed}",
                record,
                curves(name, seed=seed, level=0.5 + error),
            )
    write_run(tmp_path / "dcn" / "broken", training("dcn", status="failed", reason="loss is NaN at epoch 1"))
    return tmp_path


def test_table(runs: Path) -> None:
    result = run(runs)
    assert result.exit_code == 0, result.stderr
    assert "5.50 ± 0.71" in result.stdout
    assert "2.50 ± 0.71" in result.stdout
    assert "loss is NaN at epoch 1" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("columns", ["80", "160"])
def test_table_fits_the_terminal(runs: Path, columns: str) -> None:
    result = run(runs, "--published", "--accuracy", COLUMNS=columns)
    assert max(len(line) for line in result.stdout.splitlines()) <= int(columns)
    assert "…" not in result.stdout


def test_markdown_and_latex(runs: Path) -> None:
    markdown = run(runs, "--format", "markdown").stdout
    assert "| mnist_ses_scalar_28 |   2 |" in markdown
    latex = run(runs, "--format", "latex").stdout
    assert "5.50 $\\pm$ 0.71" in latex
    assert "\\toprule" in latex


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)"
)
def test_latex_compiles_as_it_stands(runs: Path) -> None:
    latex = run(runs, "--format", "latex", "--published", "--accuracy").stdout
    source = runs / "table.tex"
    source.write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{latex}\\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source.name]
    done = subprocess.run(command, cwd=runs, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-1500:]


def test_csv_is_one_table_and_the_rest_goes_to_stderr(runs: Path) -> None:
    result = run(runs, "--format", "csv", "--published")
    lines = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [line["model"] for line in lines] == ["cnn", SCALAR]
    assert float(lines[0]["test_error_percent_mean"]) == pytest.approx(5.5)
    assert lines[1]["reported_paper_percent_mean"] == "2.1"
    assert lines[0]["reported_paper_percent_mean"] == ""
    assert "loss is NaN" in result.stderr
    assert "Fourier layers" in result.stderr


def test_json_is_a_list_of_rows(runs: Path) -> None:
    result = run(runs, "--format", "json", "--published")
    rows = {row["model"]: row for row in json.loads(result.stdout)}
    assert rows["cnn"]["n"] == 2
    assert rows["cnn"]["test_error"]["mean"] == pytest.approx(0.055)
    assert rows["cnn"]["delta"]["tap"] == "conv2"
    assert [entry["mean"] for entry in rows[SCALAR]["reported"]] == [0.021, 0.0195]
    assert [entry["kind"] for entry in rows[SCALAR]["reported"]] == ["paper", "reproduction"]
    assert rows["cnn"]["reported"][0]["by_factor"][0] == {"factor": 1.0, "value": 0.934}
    assert "seed" not in rows["cnn"]["training"]
    assert "loss is NaN" in result.stderr


def test_missing_is_null_or_a_dash_never_zero(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("cnn", None), curves("cnn", accuracy=False))
    (row,) = json.loads(run(tmp_path, "--format", "json").stdout)
    assert row["test_error"] == {"mean": None, "std": None, "n": 0}
    assert row["accuracy_at"][0]["mean"] is None
    write_run(tmp_path / "b", training("dcn", 0.04))
    line = next(
        line for line in run(tmp_path, "--format", "markdown").stdout.splitlines() if line.startswith("| dcn")
    )
    assert line.count("—") >= 3
    assert " 0 " not in line


def test_published_that_departs_is_marked(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training(SCALAR, 0.03, epochs=2))
    table = run(tmp_path, "--published").stdout
    assert "2.10 ± 0.10†" in table
    assert "† Not the published setting: epochs 60 there, 2 here." in table
    (line,) = csv.DictReader(io.StringIO(run(tmp_path, "--published", "--format", "csv").stdout))
    assert line["reported_departures"] == "epochs 60 there, 2 here"


def test_other_protocols_have_a_table_of_their_own(runs: Path) -> None:
    text = run(runs, "--published").stdout
    main, rest = text.split("Other published figures")
    assert "98.30" not in main
    assert "98.30 ± 0.06" in rest
    assert "Accuracy (%) over scale factors" in main


def test_sort(runs: Path) -> None:
    def order(*arguments: str) -> list[str]:
        return [row["model"] for row in json.loads(run(runs, "--format", "json", *arguments).stdout)]

    assert order() == ["cnn", SCALAR]
    assert order("--sort", "error") == [SCALAR, "cnn"]
    assert order("--sort=-error") == ["cnn", SCALAR]
    assert order("--sort=-parameters") == [SCALAR, "cnn"]
    assert order("--sort", "delta_0.5") == [SCALAR, "cnn"]
    assert order("--sort=-model") == [SCALAR, "cnn"]


def test_sort_puts_missing_values_last(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("cnn", None))
    write_run(tmp_path / "b", training("dcn", 0.04))
    for key in ("error", "-error"):
        rows = json.loads(run(tmp_path, "--format", "json", f"--sort={key}").stdout)
        assert [row["model"] for row in rows] == ["dcn", "cnn"]


def test_by_adds_columns(runs: Path) -> None:
    text = run(runs, "--by", "model,seed", "--format", "markdown").stdout
    assert "| model               | seed   |   n |" in text
    assert "A single run (n = 1), so no ±: every row." in text


def test_factors_and_accuracy(runs: Path) -> None:
    (row, _) = json.loads(run(runs, "--factors", "0.8,1", "--tap", "conv1", "--format", "json").stdout)
    assert [entry["factor"] for entry in row["delta_at"]] == [0.8, 1.0]
    assert row["delta_at"][1]["mean"] == 0.0
    assert row["delta"]["tap"] == "conv1"
    assert "accuracy at" in " ".join(run(runs, "--accuracy", "--format", "markdown").stdout.split())


def test_untrained_networks_have_a_row_of_their_own(runs: Path) -> None:
    write_record(runs / "fresh.json", curves("cnn", trained=False, level=2.0))
    rows = json.loads(run(runs, runs / "fresh.json", "--format", "json").stdout)
    assert [(row["model"], row["trained"], row["delta"]["n"]) for row in rows] == [
        ("cnn", True, 2),
        (SCALAR, True, 2),
        ("cnn", False, 1),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["nowhere"], "nowhere: no such run directory"),
        (["{runs}", "--by", "modle"], "did you mean 'model'?"),
        (["{runs}", "--sort", "eror"], "did you mean 'error'?"),
        (["{runs}", "--tap", "conv"], "unknown tap --tap 'conv'; did you mean"),
        (["{runs}", "--format", "jsn"], "did you mean 'json'?"),
        (["{runs}", "--by", ","], "--by ',': names nothing"),
        (["{runs}", "--factors", "0"], "must be finite and greater than 0"),
        (["{runs}", "--factors", "nan"], "must be finite and greater than 0"),
        (["{runs}", "--factors", "a"], "write a list like"),
        (["{runs}/dcn"], "nothing to compare"),
        (["{runs}/empty"], "no record here or below"),
        (["{runs}/damaged"], "damaged record (not JSON)"),
        (["{runs}/short"], "damaged record"),
        (["{runs}/other.json"], "not a record of secli"),
        (["{runs}/newer.json"], "upgrade secli"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(runs: Path, arguments: list[str], message: str) -> None:
    (runs / "empty").mkdir()
    for name, content in (("damaged", "{"), ("short", '{"schema_version": 1, "kind": "training"}')):
        (runs / name).mkdir()
        (runs / name / RECORD_FILE).write_text(content)
    (runs / "other.json").write_text('{"a": 1}')
    (runs / "newer.json").write_text('{"schema_version": 99}')
    result = run(*(argument.format(runs=runs) for argument in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


TORCH_CHECK = """
import sys
from secli.cli.app import app
{extra}
try:
    app({arguments!r})
except SystemExit as leave:
    assert not leave.code, leave.code
print("torch" in sys.modules, "pandas" in sys.modules, file=sys.stderr)
"""


def modules_after(arguments: list[str], extra: str = "") -> str:
    code = TORCH_CHECK.format(arguments=arguments, extra=extra)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    return done.stderr.splitlines()[-1]


def test_compare_and_help_never_import_torch(runs: Path) -> None:
    assert modules_after(["compare", str(runs), "--published", "--format", "json"]) == "False False"
    assert modules_after(["--help"]) == "False False"


def test_the_check_for_torch_can_fail() -> None:
    assert modules_after(["--help"], extra="import torch").startswith("True")
