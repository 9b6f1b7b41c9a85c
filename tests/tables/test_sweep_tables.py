"""The tables of a sweep: as its file names them, with what is missing, mixed or stood in for said."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from secli.errors import InputError
from secli.records.schema import SWEEP_FILE, SweepRecord, SweptRun, write_record
from secli.tables.aggregate import summarise
from secli.tables.collect import collect
from secli.tables.formats import Table, csv_document, json_rows, render
from secli.tables.sweep import sweep_tables
from tests.tables.fabricate import curves, data, training, write_run

LABELS = {"so2_cnn": "SO(2)", "cnn": "CNN", "dss_v1": "DSS v1"}


def write_sweep(directory: Path, tables: list[dict[str, Any]], runs: list[SweptRun] | None = None) -> None:
    record = SweepRecord(
        name="trial",
        about="a trial",
        command="secli sweep trial.yaml",
        secli="0.1.0",
        runs=runs if runs is not None else swept(),
        tables=tables,
    )
    write_record(directory / SWEEP_FILE, record)


def key(name: str, r: int) -> str:
    return hashlib.sha256(f"{name}{r}".encode()).hexdigest()[:12]


def swept(dataset: str = "mnist-scale") -> list[SweptRun]:
    return [
        SweptRun(
            key=key(name, r),
            run=f"{name}/{dataset}-r{r}-s0-{key(name, r)}",
            model=name,
            label=label,
            tag=tag,
        )
        for name, label in LABELS.items()
        for r in range(3)
        for tag in ("small", "all")
        if tag == "all" or name != "cnn"
    ]


def write_runs(
    directory: Path, names: tuple[str, ...] = tuple(LABELS), dataset: str = "mnist-scale", **more: Any
) -> None:
    for one in swept():
        name, r = one.model, int(one.run.split("-r")[1][0])
        if name in names:
            error = 0.03 + 0.01 * list(LABELS).index(name) + 0.001 * r
            record = training(name, error, realisation=r, dataset=dataset, **more)
            write_run(directory / one.run, record, curves(name, realisation=r, trained_on=data(dataset, r)))


def titles(tables: list[Table]) -> list[str]:
    return [table.title for table in tables]


def test_named_tables_in_the_order_of_the_file(tmp_path: Path) -> None:
    write_sweep(
        tmp_path,
        [
            {"title": "Errors", "rows": ["label"], "columns": ["tag"], "ranks": True},
            {"title": "Curves", "rows": ["label"], "curves": True, "only": {"tag": "small"}},
            {"title": "Two", "rows": ["label"], "values": ["test_error", "delta"], "only": {"model": "*cnn"}},
            {"title": "Rates", "rows": ["label"], "ablate": ["training.lr"]},
        ],
    )
    write_runs(tmp_path)
    tables = sweep_tables(tmp_path)
    assert titles(tables) == ["Errors", "Curves: accuracy (%)", "Curves: Δ(s)", "Two", "Rates: lr"]
    errors = json_rows(tables[0])
    # rows in the sweep's order, columns by the first appearance of the tag
    assert [(row["label"], row["tag"]) for row in errors] == [
        (label, tag) for label in LABELS.values() for tag in ("small", "all")
    ]
    cells = {(row["label"], row["tag"]): row["test_error"] for row in errors}
    assert cells["SO(2)", "small"]["mean"] == pytest.approx(0.031)
    assert cells["SO(2)", "all"] == cells["SO(2)", "small"]  # one run, listed in two blocks
    assert cells["CNN", "small"]["mean"] is None
    assert {row["label"] for row in json_rows(tables[1])} == {"SO(2)", "DSS v1"}
    assert {row["label"] for row in json_rows(tables[3])} == {"SO(2)", "CNN"}


def test_missing_runs_have_their_row_and_are_counted(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"title": "Errors", "rows": ["label"], "columns": ["tag"]}])
    write_runs(tmp_path, ("so2_cnn",))
    failed = swept()[-1]
    write_run(tmp_path / failed.run, training("dss_v1", status="failed", reason="loss is NaN"))
    table, aside = sweep_tables(tmp_path)
    assert [row["reason"] for row in json_rows(aside)] == ["failed: loss is NaN"]
    rows = json_rows(table)
    assert {row["label"] for row in rows} == set(LABELS.values())
    assert [row["test_error"]["n"] for row in rows if row["label"] == "DSS v1"] == [0, 0]
    assert "Missing: 6 of 9 runs of the sweep (5 not begun, 1 failed)." in table.notes
    line = next(line for line in render(table, "markdown").splitlines() if line.startswith("| DSS v1"))
    assert line.count("—") == 2


def test_without_named_tables_the_flat_comparison(tmp_path: Path) -> None:
    write_sweep(tmp_path, [])
    write_runs(tmp_path)
    tables = sweep_tables(tmp_path)
    assert tables[0].title == "Comparison over networks trained on mnist-scale r0 to r2"
    assert [row["model"] for row in json_rows(tables[0])] == list(LABELS)


def test_versions_and_stand_ins_are_said(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"title": "Errors"}])
    write_runs(tmp_path, dataset="folder-scale-0123abcd")
    first = swept()[0]
    record = training("so2_cnn", 0.03, dataset="folder-scale-0123abcd", secli="0.0.9")
    write_run(tmp_path / first.run, record)
    (table,) = sweep_tables(tmp_path)
    assert "Not mnist-scale: folder-scale-0123abcd stands in for it." in table.notes
    assert any("several versions of secli: 0.0.9 (1)" in note for note in table.notes)


def test_a_set_with_other_parameters_is_no_stand_in(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"title": "Errors"}])
    write_runs(tmp_path, dataset="mnist-scale-0123abcd")
    (table,) = sweep_tables(tmp_path)
    assert not any("stands in" in note for note in table.notes)


def test_data_of_other_sizes_go_by_both_names_and_have_one_row(tmp_path: Path) -> None:
    hashed = "mnist-scale-901a1f98"
    tables: list[dict[str, Any]] = [
        {"title": "All", "rows": ["label", "dataset"]},
        {"title": "By the file's name", "rows": ["label", "dataset"], "only": {"dataset": "mnist-scale"}},
        {"title": "By its own", "rows": ["label", "dataset"], "only": {"dataset": hashed}},
        {"title": "Columns", "rows": ["label"], "columns": ["dataset"], "only": {"dataset": "mnist-scale"}},
        {"title": "None", "rows": ["label"], "only": {"dataset": "mnist"}},
    ]
    write_sweep(tmp_path, tables)
    write_runs(tmp_path, ("so2_cnn", "cnn"), dataset=hashed)  # DSS v1 has not begun
    *found, nothing = sweep_tables(tmp_path)
    for table in found:
        rows = json_rows(table)
        assert [(row["label"], row["dataset"]) for row in rows] == [
            (label, hashed) for label in LABELS.values()
        ]
        assert [row["test_error"]["n"] for row in rows] == [3, 3, 0]
    assert len(found[3].columns) == 2
    assert json_rows(nothing) == []


def test_two_sizes_of_one_set_make_no_row_that_is_neither(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"title": "All", "rows": ["label", "dataset"]}])
    write_runs(tmp_path, ("so2_cnn",), dataset="mnist-scale-901a1f98")
    write_runs(tmp_path, ("cnn",), dataset="mnist-scale-0123abcd")
    rows = json_rows(sweep_tables(tmp_path)[0])
    assert [(row["label"], row["dataset"]) for row in rows] == [
        ("SO(2)", "mnist-scale-901a1f98"),
        ("CNN", "mnist-scale-0123abcd"),
    ]


def test_a_damaged_sweep_is_set_aside_and_its_own_tables_are_an_error(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        write_sweep(tmp_path / name, [])
        write_runs(tmp_path / name, ("cnn",) if name == "good" else ("dss_v1",))
    (tmp_path / "bad" / SWEEP_FILE).write_text("{")
    runs, aside = collect([tmp_path])
    assert {run.model.name for run in runs} == {"cnn", "dss_v1"}
    assert [(one.path, one.reason) for one in aside] == [
        (str(tmp_path / "bad" / SWEEP_FILE), "damaged record (not JSON)")
    ]
    assert {(run.model.name, run.names) for run in collect([tmp_path / "bad"])[0]} == {("dss_v1", ())}
    inside = tmp_path / "good" / "inner"
    (tmp_path / "bad").rename(inside)
    tables = sweep_tables(tmp_path / "good")
    assert [row["path"] for row in json_rows(tables[-1])] == [str(inside / SWEEP_FILE)]
    with pytest.raises(InputError, match=r"sweep\.json: damaged record"):
        sweep_tables(inside)


def test_one_impossible_table_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"title": "Bad", "rows": ["model.nothing"]}, {"title": "Errors"}])
    write_runs(tmp_path)
    bad, good = sweep_tables(tmp_path)
    assert bad.notes[-1].startswith("This table cannot be made: unknown fact --rows 'model.nothing'")
    assert json_rows(good)
    for format in ("table", "markdown", "latex", "csv", "json"):
        assert render([bad, good], format)
    assert csv_document([bad, good]).startswith("table,")


def test_runs_that_are_not_the_sweeps_stay_out(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"title": "Errors"}])
    write_runs(tmp_path)
    write_run(tmp_path / "other" / "run", training("dcn", 0.5))
    assert {row["model"] for row in json_rows(sweep_tables(tmp_path)[0])} == set(LABELS)


def test_titles_that_occur_twice_are_numbered(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"title": "Errors"}, {"title": "Errors", "rows": ["label"]}])
    write_runs(tmp_path)
    assert titles(sweep_tables(tmp_path)) == ["Errors", "Errors (2)"]


def test_no_sweep_and_no_runs_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sweep here"):
        sweep_tables(tmp_path)
    write_sweep(tmp_path, [])
    with pytest.raises(InputError, match="no run of the sweep trial has begun"):
        sweep_tables(tmp_path)


def test_labels_and_tags_are_facts_of_the_comparison_too(tmp_path: Path) -> None:
    write_sweep(tmp_path, [])
    write_runs(tmp_path)
    summary = summarise([tmp_path], ("label", "tag"))
    assert ("cnn", "CNN", "all") in [tuple(row.by.values()) for row in summary.rows]
    assert len(summary.rows) == 5


def test_results_saved_elsewhere_are_found_and_other_json_is_not(tmp_path: Path) -> None:
    saved = tmp_path / "results"
    write_record(saved / "cnn.json", curves("cnn", trained=False))
    write_record(saved / "dcn.json", curves("dcn", trained=False))
    (saved / "notes.json").write_text('{"kind": "equivariance"}')
    (saved / "list.json").write_text("[1, 2]")
    (saved / "broken.json").write_text("{")
    (saved / "bad.json").write_text('{"schema_version": 1, "kind": "equivariance"}')
    (saved / ".cnn.json").write_text((saved / "cnn.json").read_text())
    write_sweep(tmp_path, [])
    run = write_run(tmp_path / "run", training("cnn", 0.05))
    write_record(run / "extra.json", curves("cnn", seed=9, trained=False))
    runs, aside = collect([tmp_path])
    assert sorted((one.model.name, one.trained) for one in runs) == [
        ("cnn", False),
        ("cnn", True),
        ("dcn", False),
    ]
    (damaged,) = aside
    assert damaged.path.endswith("bad.json")
    assert "damaged record" in damaged.reason
