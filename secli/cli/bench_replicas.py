"""The part of ``secli bench`` that times replicas at once beside replicas one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secli.cli.bench_rows import Asked, Row, low_to_high, place_of, print_rows, timed_rows


def time_replicas(asked: Asked, replicas: int) -> None:
    """Time training steps and print a row for each network."""
    from secli.training.replicas.benchmark import replica_speeds

    rows = timed_rows(
        asked,
        lambda where, tell: replica_speeds(asked.names, replicas, on_progress=tell, **asked.work(where)),
    )
    print_rows(asked, rows, _table)


def _table(rows: Sequence[Row], width: int) -> str:
    from secli.tables.render import render
    from secli.tables.table import Cell, Column, Table

    first = rows[0]
    title = f"{first['replicas']} replicas: {place_of(first)}, precision {first['precision']}"
    columns: dict[Column, Callable[[Row], float | str | None]] = {
        Column("model", "model", text=True, whole=True): lambda row: row["model"],
        Column("at_once", "at once, images/s"): lambda row: row["at_once"],
        Column("singly", "one after the other, images/s"): lambda row: row["singly"],
        Column("gain", "gain", digits=2): lambda row: row["gain"],
        Column("range", "low to high"): lambda row: low_to_high(row["gain_low"], row["gain_high"]),
    }
    lines = tuple(tuple(Cell(read(row)) for read in columns.values()) for row in rows)
    return render(Table(title, tuple(columns), lines, heads=1), "table", width)
