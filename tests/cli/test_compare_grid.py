"""``secli compare`` with --rows, --columns, --ablate, --curves; and what ``secli sweep`` prints at its end."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from secli.cli.app import app
from secli.cli.sweep import print_tables
from secli.records.schema import SWEEP_FILE, SweepRecord, SweptRun, write_record
from tests.tables.fabricate import curves, data, training, write_run

PIVOT = ("--rows", "system", "--columns", "size,augment")


def run(*arguments: str | Path, **environment: str) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env=environment)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two systems at two sizes, three realisations; a run that failed; one that does not belong."""
    for name, error in (("mnist_cnn", 0.03), ("mnist_ses_scalar", 0.02)):
        for size in (28, 56):
            options = {"image_size": 28, "upsampling": size // 28}
            for r in range(3):
                found = error + 0.001 * r - 0.001 * (size == 56)
                record = training(f"{name}_{size}", found, realisation=r, options=options)
                measured = curves(
                    f"{name}_{size}",
                    realisation=r,
                    trained_on=data("mnist-scale", r),
                    options=options,
                    level=error,
                )
                write_run(tmp_path / f"{name}_{size}" / f"r{r}", record, measured)
    failed = training("mnist_cnn_28", status="failed", reason="loss is NaN at epoch 1")
    write_run(tmp_path / "mnist_cnn_28" / "bad", failed)
    return tmp_path


def test_table_goes_to_stdout_with_its_notes(runs: Path) -> None:
    result = run(runs, *PIVOT, "--published", "--ranks")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    for words in (
        "2.10 ± 0.10 (3)*",
        "ours − paper (SE)",
        "Mean rank (1 is the best)",
        "loss is NaN at epoch 1",
        "paired t test",
    ):
        assert words in result.stdout


@pytest.mark.parametrize("columns", ["80", "160"])
@pytest.mark.parametrize(
    "arguments",
    [
        (*PIVOT, "--published"),
        ("--curves",),
        ("--ablate", "model.upsampling"),
        ("--value", "test_error,delta"),
    ],
)
def test_table_fits_the_terminal(runs: Path, columns: str, arguments: tuple[str, ...]) -> None:
    result = run(runs, *arguments, COLUMNS=columns)
    assert result.exit_code == 0, result.stderr
    assert max(len(line) for line in result.stdout.splitlines()) <= int(columns)
    assert "…" not in result.stdout


def test_json_is_one_document(runs: Path) -> None:
    result = run(runs, *PIVOT, "--value", "test_error,delta", "--format", "json")
    content = json.loads(result.stdout)
    assert set(content) == {"tables", "set_aside"}
    errors, deltas = content["tables"]
    assert [(row["system"], row["size"]) for row in errors["rows"]] == [
        ("mnist_cnn", 28), ("mnist_cnn", 56), ("mnist_ses_scalar", 28), ("mnist_ses_scalar", 56),
    ]  # fmt: skip
    assert errors["rows"][2]["test_error"]["mean"] == pytest.approx(0.021)
    assert [row["delta_standing"] for row in deltas["rows"]] == ["worse", "worse", "best", "best"]
    assert content["set_aside"][0]["reason"] == "failed: loss is NaN at epoch 1"


def test_csv_is_one_document_and_notes_go_to_stderr(runs: Path) -> None:
    result = run(runs, *PIVOT, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 4
    assert rows[0]["test_error_percent_mean"] == "3.1"
    assert "loss is NaN" in result.stderr
    several = run(runs, "--curves", "--format", "csv")
    titles = {row["table"] for row in csv.DictReader(io.StringIO(several.stdout))}
    assert len(titles) == 2


def test_latex_and_markdown(runs: Path) -> None:
    markdown = run(runs, *PIVOT, "--format", "markdown").stdout
    assert "| 2.10 ± 0.10 (3)\\* |" in " ".join(markdown.split())
    latex = run(runs, *PIVOT, "--format", "latex").stdout
    assert latex.count("\\toprule") == latex.count("\\bottomrule") == 2
    assert latex.isascii()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "sistem"], "unknown fact --rows 'sistem'; did you mean 'system'?"),
        (["--columns", "sise"], "did you mean 'size'?"),
        (["--value", "eror"], "did you mean 'error'?"),
        (["--test", "wilcoxn", "--rows", "model"], "unknown test --test 'wilcoxn'; did you mean 'wilcoxon'?"),
        (["--ablate", "model.upsampeling"], "did you mean 'model.upsampling'?"),
        (["--rows", "size", "--columns", "size"], "--columns size: is in --rows already"),
        (["--rows", "model", "--by", "model,seed"], "--by: belongs to the comparison of one row per model"),
        (["--rows", "model", "--sort", "error"], "--sort: belongs to"),
        (["--curves", "--ablate", "lr"], "--ablate and --curves"),
        (["--curves", "--columns", "size"], "--columns: has no place in the tables of --curves"),
        (["--ablate", "lr", "--published"], "--published: has no place in the tables of --ablate"),
        (["--rows", "model", "--tap", "conv9"], "unknown tap --tap 'conv9'"),
        (
            ["--curves", "--factors", "0.07"],
            "no run was measured at s = 0.07; measured at s = 0.333, 0.5, 0.8, 1",
        ),
        (
            ["--value", "delta", "--factors", "0.07,3"],
            "no run was measured at s = 0.07, 3; measured at s = 0.333,",
        ),
        (["--value", "accuracy_3,delta_3"], "no run was measured at s = 3; measured at"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(runs: Path, arguments: list[str], message: str) -> None:
    result = run(runs, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_tables_of_a_sweep_in_every_format(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = [
        SweptRun(
            key=f"{n:012x}", run=f"{place.parent.name}/{place.name}", model=place.parent.name, label=label
        )
        for n, place in enumerate(sorted(runs.glob("*/r*")))
        for label in [place.parent.name.removeprefix("mnist_")]
    ]
    tables = [
        {"title": "Errors", "rows": ["system"], "columns": ["size"]},
        {"title": "All", "rows": ["label"]},
    ]
    record = SweepRecord(
        name="t", about="a trial", command="secli sweep t.yaml", secli="0.1.0", runs=swept, tables=tables
    )
    write_record(runs / SWEEP_FILE, record)
    printed = {}
    for format in ("table", "markdown", "latex", "csv", "json"):
        print_tables(runs, format)
        printed[format] = capsys.readouterr().out
    content = json.loads(printed["json"])
    assert content["name"] == "t"
    assert [table["title"] for table in content["tables"]] == ["Errors", "All"]
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert [row["table"] for row in rows] == ["Errors"] * 4 + ["All"] * 4
    assert printed["table"].index("Errors") < printed["table"].index("All")


CHECK = """
import sys
from secli.cli.app import app
try:
    app({arguments!r})
except SystemExit as leave:
    assert not leave.code, leave.code
print("torch" in sys.modules, "scipy" in sys.modules, "scipy.stats" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        ([], "False False False"),
        ([*PIVOT, "--published"], "False True False"),
        ([*PIVOT, "--test", "wilcoxon"], "False True True"),
    ],
)
def test_what_is_loaded_only_when_needed(runs: Path, arguments: list[str], loaded: str) -> None:
    for name, error in (("mnist_cnn_28", 0.03), ("mnist_ses_scalar_28", 0.02)):
        for r in range(
            3, 6
        ):  # of fewer than six pairs Wilcoxon's test could not tell anything, and is not made
            options = {"image_size": 28, "upsampling": 1}
            record = training(name, error + 0.001 * r, realisation=r, options=options)
            write_run(runs / name / f"more{r}", record)
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(arguments=["compare", str(runs), *arguments])],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.stderr.splitlines()[-1] == loaded
