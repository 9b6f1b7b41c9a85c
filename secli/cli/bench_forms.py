"""The part of ``secli bench`` that says what each faster form of the layers brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secli.cli.bench_rows import Asked, Row, low_to_high, place_of, print_rows, timed_rows

ROOM = 100
"""From this width of the terminal on, each form is explained beside its name."""


def time_forms(asked: Asked) -> None:
    """Time networks without each form in turn and print a row for each."""
    from secli.training.speed_forms import measure_forms

    rows = timed_rows(
        asked,
        lambda where, tell: measure_forms(asked.names, asked.modes, on_progress=tell, **asked.work(where)),
    )
    print_rows(asked, rows, _table)


def _table(rows: Sequence[Row], width: int) -> str:
    from secli.layers.fast.forms import FORMS
    from secli.tables.formats import Cell, Column, Table, render

    title = f"Time without a form over time with all: {place_of(rows[0])}"
    columns: dict[Column, Callable[[Row], float | str | None]] = {
        Column("model", "model", text=True, whole=True): lambda row: row["model"],
        Column("mode", "mode", text=True, whole=True): lambda row: row["mode"],
        Column("form", "left out", text=True, whole=True): lambda row: row["form"],
        Column("ratio", "ratio", digits=2): lambda row: row["ratio"],
        Column("range", "low to high"): lambda row: low_to_high(row["low"], row["high"]),
    }
    if width >= ROOM:
        columns[Column("what", "what it is", text=True)] = lambda row: FORMS[row["form"]]
    lines = tuple(tuple(Cell(read(row)) for read in columns.values()) for row in rows)
    return render(Table(title, tuple(columns), lines, heads=3), "table", width)
