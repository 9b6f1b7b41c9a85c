"""Rows × columns: numbers recomputed, nothing blank, the published crossing, what is set aside, every format."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secli.catalogue import MODELS
from secli.errors import InputError, UnknownNameError
from secli.tables.ablation import ablation_tables
from secli.tables.collect import SetAside, collect
from secli.tables.compare import compare
from secli.tables.factor_curves import curve_tables
from secli.tables.groups import summarise
from secli.tables.pivot import TableSpec, pivot_tables
from secli.tables.published import load_published
from secli.tables.render import render
from secli.tables.render.csv import csv_document
from secli.tables.render.json import document, json_rows
from secli.tables.table import Table
from tests.tables.fabricate import curve_row, curves, data, training, write_run

SYSTEMS = {"mnist_cnn": 0.026, "mnist_ses_scalar": 0.0205, "mnist_ses_vector": 0.0203}
NOISE = (0.0, 0.0004, -0.0003, 0.0002, -0.0005, 0.0001)


def error_of(system: str, size: int, augment: str, r: int) -> float:
    """The error of a fabricated run: a level, a gain per column, noise of the realisation, a little of its own."""
    own = 0.0001 * math.sin(7 * r + len(system) + size)
    return SYSTEMS[system] - 0.003 * (size == 56) - 0.002 * (augment == "scale") + NOISE[r] + own


def write(directory: Path, name: str, augment: str, r: int, error: float, **more: Any) -> None:
    options = {"image_size": 28, "upsampling": 2 if "_56" in name else 1}
    record = training(name, error, realisation=r, options=options, augment=augment, **more)
    measured = curves(
        name,
        seed=more.get("seed", 0),
        realisation=r,
        trained_on=data("mnist-scale", r),
        options=options,
        level=20 * error,
    )
    folder = f"mnist-scale-r{r}-s{more.get('seed', 0)}-{augment}"
    write_run(directory / name / folder, record, measured)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The published crossings of three systems; the plain CNN lacks 56+."""
    for system in SYSTEMS:
        for size in (28, 56):
            for augment in ("none", "scale"):
                name = f"{system}_{size}"
                name += "p" if augment == "scale" and f"{name}p" in MODELS else ""
                for r in range(6) if name != "mnist_cnn_56" or augment == "none" else ():
                    write(tmp_path, name, augment, r, error_of(system, size, augment, r))
    return tmp_path


def pivot(
    directory: Path, wanted: TableSpec, published: bool = False
) -> tuple[list[Table], list[SetAside], list[dict[str, Any]]]:
    found, aside = collect([directory])
    tables = pivot_tables(found, aside, wanted, load_published() if published else None)
    return tables, aside, json_rows(tables[0])


def at(rows: list[dict[str, Any]], **facts: Any) -> dict[str, Any]:
    (row,) = (one for one in rows if all(one[key] == value for key, value in facts.items()))
    return row


GRID = TableSpec(rows=("system",), columns=("size", "augment"))


def test_cells_are_mean_and_spread(runs: Path) -> None:
    _, aside, rows = pivot(runs, GRID)
    assert not aside
    for system in SYSTEMS:
        for size, augment in ((28, "none"), (28, "scale"), (56, "none")):
            errors = [error_of(system, size, augment, r) for r in range(6)]
            cell = at(rows, system=system, size=size, augment=augment)["test_error"]
            assert cell["n"] == 6
            assert cell["mean"] == pytest.approx(statistics.fmean(errors))
            assert cell["std"] == pytest.approx(statistics.stdev(errors))


def test_a_missing_cell_is_a_dash_with_a_note(runs: Path) -> None:
    (table,), _, rows = pivot(runs, GRID)
    assert at(rows, system="mnist_cnn", size=56, augment="scale")["test_error"] == {
        "mean": None,
        "std": None,
        "n": 0,
    }
    text = render(table, "markdown")
    line = next(line for line in text.splitlines() if line.startswith("| mnist_cnn "))
    assert line.split("|")[-2].strip() == "—"
    assert "- — in a cell: no finished run." in text
    for cell in (
        cell for line in text.splitlines() if line.startswith("| mnist") for cell in line.split("|")[1:-1]
    ):
        assert cell.strip()


def test_best_and_tied_are_marked_per_column(runs: Path) -> None:
    (table,), _, rows = pivot(runs, GRID)
    assert at(rows, system="mnist_cnn", size=28, augment="none")["test_error_standing"] == "worse"
    standing = [at(rows, system=s, size=28, augment="none")["test_error_standing"] for s in list(SYSTEMS)[1:]]
    assert "best" in standing
    text = render(table, "table", 160)
    assert text.count("(6)*") == 4
    assert "paired t test over common realisations (the mean over their seeds), two-sided" in text
    assert "seeds alone" not in text


def test_too_few_pairs_for_wilcoxon_are_said(runs: Path) -> None:
    three = TableSpec(rows=("system",), columns=("size",), test="wilcoxon")
    (table,), _, rows = pivot(runs, three)  # six realisations, two comparisons: p ≥ 2 · 2 / 2⁶ > 0.05
    assert {row["test_error_standing"] for row in rows} == {"best", None}
    assert any(note.startswith("Too few pairs for this test (Wilcoxon signed-rank") for note in table.notes)
    for net in runs.glob("mnist_cnn*"):
        shutil.rmtree(net)
    (both,) = pivot(runs, replace(GRID, test="wilcoxon"))[0]  # one comparison: p ≥ 2 / 2⁶
    assert any("Wilcoxon signed-rank test over common realisations" in note for note in both.notes)


def test_one_realisation_tests_seeds_alone_and_says_so(tmp_path: Path) -> None:
    for seed in range(4):
        write(tmp_path, "mnist_cnn_28", "none", 0, 0.03 + 0.0003 * seed**2, seed=seed)
        write(tmp_path, "mnist_ses_scalar_28", "none", 0, 0.02 + 0.0002 * seed, seed=seed)
    (table,), _, rows = pivot(tmp_path, GRID)
    assert at(rows, system="mnist_cnn")["test_error_standing"] == "worse"
    text = " ".join(table.notes)
    assert "over common seeds, two-sided" in text
    assert "With one realisation the test covers seeds alone" in text


def test_no_tie_is_claimed_of_two_realisations(tmp_path: Path) -> None:
    for r in range(2):
        write(tmp_path, "mnist_cnn_28", "none", r, 0.02 + 0.001 * r)
        write(tmp_path, "mnist_ses_scalar_28", "none", r, 0.0201 + 0.001 * r)
    (table,), _, _ = pivot(tmp_path, GRID)
    text = render(table, "table", 200)
    assert "≈" not in text
    assert "Fewer than 3 pairs with the best, so not said whether tied: all other cells." in text


def test_published_figures_and_the_difference_in_standard_errors(runs: Path) -> None:
    (table,), _, rows = pivot(runs, GRID, published=True)
    cell = at(rows, system="mnist_ses_scalar", size=28, augment="none")
    ours = cell["test_error"]
    assert cell["test_error_paper"] == {"mean": 0.021, "std": 0.001, "n": 6}
    expected = (ours["mean"] - 0.021) / math.sqrt(ours["std"] ** 2 / 6 + 0.001**2 / 6)
    assert cell["test_error_paper_difference_se"] == pytest.approx(expected)
    # the p net with augmentation stands beside its own figure
    assert at(rows, system="mnist_ses_scalar", size=28, augment="scale")["test_error_paper"]["mean"] == 0.0179
    text = render(table, "markdown")
    line = next(line for line in text.splitlines() if "ours − paper (SE)" in line)
    assert f"{expected:+.1f}".replace("-", "−") in line
    assert "2.10 ± 0.10 (6)" in text
    assert at(rows, system="mnist_cnn", size=28, augment="none")["test_error_paper"]["mean"] is None


def test_accuracy_stands_beside_the_complement_of_a_published_error(runs: Path) -> None:
    wanted = TableSpec(rows=("system",), columns=("size", "augment"), values=("test_accuracy",))
    rows = pivot(runs, wanted, published=True)[2]
    cell = at(rows, system="mnist_ses_scalar", size=28, augment="none")
    assert cell["test_accuracy_paper"]["mean"] == pytest.approx(0.979)
    assert cell["test_accuracy"]["mean"] > 0.97


def test_departures_are_marked(tmp_path: Path) -> None:
    for r in range(3):
        write(tmp_path, "mnist_ses_scalar_28", "none", r, 0.03 + 0.001 * r, epochs=2)
    text = render(pivot(tmp_path, GRID, published=True)[0][0], "table", 200)
    assert "2.10 ± 0.10 (6)†" in text
    assert "† Not the published setting: epochs 60 there, 2 here." in text


def test_the_other_crossings_are_set_aside_or_kept_apart_by_net(runs: Path) -> None:
    for r in range(6):
        write(runs, "mnist_ses_scalar_28p", "none", r, 0.5)
        write(runs, "mnist_ses_scalar_28", "scale", r, 0.5)
    _, aside, rows = pivot(runs, GRID)
    assert len(aside) == 12
    assert "not the published crossing; '--columns size,augment,net' keeps them apart" in aside[0].reason
    assert at(rows, system="mnist_ses_scalar", size=28, augment="none")["test_error"]["mean"] < 0.03
    _, aside, rows = pivot(runs, TableSpec(rows=("system", "net"), columns=("size", "augment")))
    assert not aside
    odd = at(rows, system="mnist_ses_scalar", net="p", size=28, augment="none")
    assert odd["test_error"]["mean"] == pytest.approx(0.5)


def test_a_cell_of_nothing_but_an_unpublished_crossing_says_so(tmp_path: Path) -> None:
    write(tmp_path, "mnist_ses_scalar_28p", "none", 0, 0.02)
    (table,), _, _ = pivot(tmp_path, GRID)
    assert any(
        "Not the published crossing" in note and "mnist_ses_scalar_28p" in note for note in table.notes
    )


def test_runs_that_differ_within_a_cell_are_set_aside_with_a_hint(runs: Path) -> None:
    write(runs, "mnist_cnn_28", "none", 0, 0.5, epochs=3, seed=7)
    _, aside, rows = pivot(runs, GRID)
    (one,) = aside
    assert one.reason == "epochs 3, not 60; '--columns size,augment,epochs' keeps them apart"
    assert at(rows, system="mnist_cnn", size=28, augment="none")["test_error"]["n"] == 6


def test_rows_that_were_trained_differently_are_said(tmp_path: Path) -> None:
    write(tmp_path, "mnist_cnn_28", "none", 0, 0.02)
    write(tmp_path, "mnist_ses_scalar_28", "none", 0, 0.02, epochs=3)
    (table,), _, _ = pivot(tmp_path, TableSpec(columns=("size",)))
    assert any(note.startswith("The rows differ in epochs") for note in table.notes)
    assert not any(note.startswith("The rows differ in lr") for note in table.notes)


def test_differences_of_optimizer_rate_batch_and_milestones_are_said(tmp_path: Path) -> None:
    write(tmp_path, "mnist_cnn_28", "none", 0, 0.02)
    other = {"optimizer": "sgd", "lr": 0.1, "batch": 64, "milestones": [5, 9]}
    write(tmp_path, "mnist_ses_scalar_28", "none", 0, 0.02, **other)
    (table,), _, _ = pivot(tmp_path, TableSpec(columns=("size",)))
    said = [note for note in table.notes if note.startswith("The rows differ in")]
    assert [note.split(":")[0].split(" in ")[1] for note in said] == [
        "optimizer",
        "lr",
        "batch",
        "milestones",
    ]
    assert said[3] == (
        "The rows differ in milestones: [20, 40] (mnist_cnn_28); [5, 9] (mnist_ses_scalar_28)."
    )


@pytest.mark.parametrize(
    "wanted",
    [
        TableSpec(values=("delta",)),
        TableSpec(values=("test_error", "delta_0.5")),
        TableSpec(columns=("dataset",), values=("delta_0.5",)),
    ],
)
def test_a_tap_of_which_little_was_compared_is_said(tmp_path: Path, wanted: TableSpec) -> None:
    for name, share in (("cnn", 0.9), ("dcn", 0.31)):
        rows = [
            curve_row("conv1", 0.5, 0.3, compared=0.1),  # not the tap that is read
            curve_row("conv2", 0.5, 0.3, compared=share),
            curve_row("conv2", 1.25, 0.3, compared=0.2),  # not a factor that is read
        ]
        write_run(tmp_path / name, training(name), curves(name, rows=rows, accuracy=False))
    (table,), _, _ = pivot(tmp_path, wanted)
    (note,) = (
        note for note in table.notes if note.startswith("Δ compares less than half of the tap's cells")
    )
    assert note.split("cells: ")[1].startswith("dcn")
    assert note.endswith("conv2: 31 % at s = 0.5.")
    (errors,), _, _ = pivot(tmp_path, TableSpec())
    assert not any("less than half" in note for note in errors.notes)


def test_little_compared_is_said_beside_curves_ablations_and_comparisons(tmp_path: Path) -> None:
    for r in (0, 1):
        low = [curve_row("conv2", f, 0.3, compared=0.25) for f in (0.5, 0.8)]
        record = training("cnn", realisation=r, lr=0.01 * (r + 1))
        write_run(tmp_path / f"r{r}", record, curves("cnn", realisation=r, rows=low))
    found, aside = collect([tmp_path])
    made = [
        curve_tables(found, aside, TableSpec(rows=("model", "lr")))[1],
        *ablation_tables(found, aside, ["lr"], TableSpec()),
        compare(summarise([tmp_path], ("lr",))).main,
    ]
    assert len(made) == 3
    for table in made:
        assert any("conv2: 25 % at s = 0.5" in note for note in table.notes), table.title
    accuracy = curve_tables(found, aside, TableSpec(rows=("model", "lr")))[0]
    assert not any("less than half" in note for note in accuracy.notes)


def test_delta_names_its_taps(runs: Path) -> None:
    tables, _, rows = pivot(
        runs, TableSpec(rows=("system",), columns=("size",), values=("delta", "delta_0.5"))
    )
    factors = (1 / 3, 0.5, 0.8)
    expected = statistics.fmean(
        20 * error_of("mnist_cnn", 56, "none", r) * 2 * statistics.fmean(math.log(f) ** 2 for f in factors)
        for r in range(6)
    )
    assert at(rows, system="mnist_cnn", size=56)["delta"]["mean"] == pytest.approx(expected)
    assert "Δ is read at tap 'conv2' of every network." in tables[0].notes
    half = at(json_rows(tables[1]), system="mnist_cnn", size=56)["delta_0.5"]
    assert half["mean"] == pytest.approx(
        expected / statistics.fmean(math.log(f) ** 2 for f in factors) * math.log(2) ** 2
    )


def test_networks_read_at_their_own_taps_keep_the_column(tmp_path: Path) -> None:
    deep = [curve_row("conv1", 0.5, 0.3), curve_row("conv2", 0.5, None)]
    write_run(tmp_path / "a", training("cnn", 0.05), curves("cnn", rows=deep, accuracy=False))
    write_run(tmp_path / "b", training("dcn", 0.05), curves("dcn", factors=(0.5,)))
    (table,), _, rows = pivot(tmp_path, TableSpec(values=("test_error", "delta"), tap="deepest"))
    assert {row["model"]: row["tap"] for row in rows} == {"cnn": "conv1", "dcn": "conv2"}
    assert table.columns[-1].key == "tap"
    assert "rows do not compare" in table.title
    (table,), _, rows = pivot(tmp_path, TableSpec(values=("test_error", "delta")))
    assert {row["delta"]["mean"] is not None for row in rows} == {True}
    assert "rows do not compare" not in table.title
    assert {row["tap"] for row in rows} == {"conv1"}


def at_different_taps(directory: Path) -> None:
    """Three networks of three realisations; the last is read at a shallower tap, where Δ is small."""
    for r in range(3):
        for place, name in enumerate(("cnn", "dcn", "dss_v1")):
            deep = None if name == "dss_v1" else 0.3 + 0.1 * place + 0.001 * r**2
            rows = [curve_row("conv1", 0.5, 0.1 * (place + 1) + 0.01 * r), curve_row("conv2", 0.5, deep)]
            measured = curves(
                name, realisation=r, trained_on=data("mnist-scale", r), rows=rows, accuracy=False
            )
            write_run(
                directory / name / f"r{r}", training(name, 0.05 + 0.001 * r * place, realisation=r), measured
            )


@pytest.mark.parametrize("columns", [(), ("dataset",)])
def test_delta_at_different_taps_is_neither_tested_nor_ranked(
    tmp_path: Path, columns: tuple[str, ...]
) -> None:
    at_different_taps(tmp_path)
    wanted = TableSpec(columns=columns, values=("delta", "test_error"), ranks=True, tap="deepest")
    tables, _, rows = pivot(tmp_path, wanted)
    assert {row["delta_standing"] for row in rows} == {None}
    assert any(
        note.startswith("No best and no rank") and "different taps" in note for note in tables[0].notes
    )
    (over,) = (note for note in tables[0].notes if "ean rank" in note)
    assert "Δ" not in over
    same, _, rows = pivot(tmp_path, replace(wanted, tap="conv1"))
    assert at(rows, model="cnn")["delta_standing"] == "best"
    assert at(rows, model="cnn")["delta"]["mean"] == pytest.approx(0.11)
    assert not any("different taps" in note for note in same[0].notes)


def test_delta_at_one_tap_is_ranked(tmp_path: Path) -> None:
    at_different_taps(tmp_path)
    shutil.rmtree(tmp_path / "dss_v1")
    (table,), _, rows = pivot(tmp_path, TableSpec(values=("delta",)))
    assert at(rows, model="cnn")["delta_standing"] == "best"
    assert not any("different taps" in note for note in table.notes)


def test_without_columns_each_quantity_has_one(runs: Path) -> None:
    tables, _, rows = pivot(
        runs, TableSpec(rows=("model", "augment"), values=("test_error", "parameters", "accuracy_0.5"))
    )
    assert len(tables) == 1
    row = at(rows, model="mnist_cnn_28", augment="none")
    assert row["parameters"]["mean"] == MODELS["mnist_cnn_28"].parameters
    assert row["accuracy_0.5"]["mean"] == pytest.approx(0.95 - 0.2 * math.log(2))
    text = render(tables[0], "table", 160)
    assert "494 549" in text


def test_ranks(runs: Path) -> None:
    (table,), _, rows = pivot(runs, TableSpec(rows=("system",), columns=("size", "augment"), ranks=True))
    assert at(rows, system="mnist_cnn", size=28, augment="none")["mean_rank"] == 3
    both = [at(rows, system=s, size=28, augment="none")["mean_rank"] for s in list(SYSTEMS)[1:]]
    assert sum(both) == pytest.approx(3)
    note = next(note for note in table.notes if note.startswith("Mean rank"))
    assert "56\u00a0px, augment scale" not in note
    assert "56\u00a0px, augment none" in note


def test_untrained_networks_have_rows_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("cnn", 0.05), curves("cnn"))
    write_run(tmp_path / "b", training("cnn", 0.05, seed=1), curves("cnn", trained=False, seed=3))
    fresh = curves("cnn", trained=False, seed=5, level=2.0)
    from secli.records.schema import write_record

    write_record(tmp_path / "fresh.json", fresh)
    rows = pivot(tmp_path, TableSpec(values=("delta",)))[2]
    assert [row["model"] for row in rows] == ["cnn", "cnn (untrained)"]


def test_unset_options_are_a_dash_with_a_note(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("dss_v1", 0.05, options={"base": 2.0}))
    write_run(tmp_path / "b", training("cnn", 0.06))
    (table,), _, rows = pivot(tmp_path, TableSpec(rows=("model", "model.base")))
    assert {(row["model"], row["model.base"]) for row in rows} == {("cnn", None), ("dss_v1", "2.0")}
    assert "— in a name: the network has no such option." in table.notes


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (TableSpec(rows=("sistem",)), "unknown fact --rows 'sistem'; did you mean 'system'?"),
        (TableSpec(columns=("sise",)), "unknown fact --columns 'sise'; did you mean 'size'?"),
        (TableSpec(values=("dleta",)), "unknown value --value 'dleta'; did you mean 'delta'?"),
        (TableSpec(values=("delta_0",)), "unknown value --value 'delta_0'"),
    ],
)
def test_unknown_names_suggest_the_near_miss(runs: Path, wanted: TableSpec, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        pivot(runs, wanted)
    assert message in str(caught.value)


def test_a_fact_is_row_or_column(runs: Path) -> None:
    with pytest.raises(InputError, match="--columns augment: is in --rows already"):
        pivot(runs, TableSpec(rows=("augment",), columns=("augmentation",)))


@pytest.mark.parametrize("width", [60, 80, 160])
def test_terminal_fits_and_names_every_row_of_every_block(runs: Path, width: int) -> None:
    (table,), _, _ = pivot(
        runs, TableSpec(rows=("system", "net"), columns=("size", "augment")), published=True
    )
    text = render(table, "table", width)
    assert max(len(line) for line in text.splitlines()) <= width
    headings = [line for line in text.splitlines() if line.startswith("system")]
    assert headings
    assert all("net" in line and "from" in line for line in headings)
    assert text.count("± 0.10 (6)") == 1


def test_csv_and_json_are_one_document(runs: Path) -> None:
    tables, _, _ = pivot(runs, TableSpec(rows=("system",), columns=("size",), values=("test_error", "delta")))
    lines = list(csv.DictReader(io.StringIO(csv_document(tables))))
    assert len(lines) == 12
    assert {line["table"] for line in lines} == {table.title for table in tables}
    first = lines[0]
    assert (first["system"], first["size"], first["test_error_percent_n"]) == ("mnist_cnn", "28", "6")
    content: Mapping[str, Any] = json.loads(json.dumps(document(tables)))
    assert [len(table["rows"]) for table in content["tables"]] == [6, 6]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_as_it_stands(runs: Path, tmp_path: Path) -> None:
    wanted = TableSpec(rows=("system", "net"), columns=("size", "augment"), ranks=True)
    tables, _, _ = pivot(runs, wanted, published=True)
    deltas = pivot(runs, TableSpec(rows=("system",), columns=("size",), values=("delta",)))[0]
    body = render([*tables, *deltas], "latex")
    assert body.isascii()
    document_text = (
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + body + "\\end{document}\n"
    )
    (tmp_path / "table.tex").write_text(document_text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stdout[-1500:]
    assert "[U+" not in body
