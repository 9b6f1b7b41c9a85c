"""The part of ``secli bench`` that times networks and prints a row for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from secli.cli.bench_rows import Asked, Row, low_to_high, place_of, print_rows, timed_rows

if TYPE_CHECKING:
    from secli.config import TrainingSettings
    from secli.training.speed import Speed


def time_networks(asked: Asked, literal: bool, memory: bool) -> None:
    """Time networks and print a row for each mode."""
    from secli.training.speed import measure_speed

    rows = timed_rows(
        asked,
        lambda where, tell: measure_speed(
            asked.names, asked.modes, literal=literal, on_progress=tell, **asked.work(where)
        ),
        lambda speed, where: _peaks(speed, where, asked.image_size, memory),
    )
    print_rows(asked, rows, _table)


def _peaks(speed: Speed, where: TrainingSettings, image_size: int | None, wanted: bool) -> Row:
    """Return the peak memory of a training step, and what share of the literal form's it is."""
    from secli.training import memory

    if speed.mode != "train" or not wanted:
        return {"peak_memory_mib": None, "memory_vs_literal": None}
    asked = memory.Asked(speed.model, speed.batch, where.device, image_size, where.precision, where.threads)
    own = memory.peak_memory(asked)
    other = memory.peak_memory(asked._replace(literal=True)) if speed.vs_literal is not None else None
    share = own / other if own is not None and other else None
    return {"peak_memory_mib": own, "memory_vs_literal": share}


def _table(rows: Sequence[Row], width: int) -> str:
    """Return the rows as a table that fits a terminal."""
    from secli.tables.render import render
    from secli.tables.table import Cell, Column, Table

    title = f"{place_of(rows[0])}, precision {rows[0]['precision']}"
    columns: dict[Column, Callable[[Row], float | str | None]] = {
        Column("model", "model", text=True, whole=True): lambda row: row["model"],
        Column("mode", "mode", text=True, whole=True): lambda row: row["mode"],
        Column("images_per_second", "images/s"): lambda row: row["images_per_second"],
        Column("range", "low to high"): lambda row: low_to_high(row["low"], row["high"]),
        Column("gflops", "GFLOP/s"): lambda row: row["flops_per_second"] / 1e9,
        Column("of_roof", "of roof", digits=2): lambda row: row["of_roof"],
        Column("vs_literal", "vs literal", digits=2): lambda row: row["vs_literal"],
        Column("vs_literal_range", "low to high"): lambda row: low_to_high(
            row["vs_literal_low"], row["vs_literal_high"]
        ),
        Column("vs_float32", "vs float32", digits=2): lambda row: row["vs_float32"],
        Column("vs_float32_range", "low to high"): lambda row: low_to_high(
            row["vs_float32_low"], row["vs_float32_high"]
        ),
        Column("peak_memory_mib", "peak memory (MiB)", digits=1): lambda row: row["peak_memory_mib"],
        Column("memory_vs_literal", "memory of literal", digits=2): lambda row: row["memory_vs_literal"],
    }
    # what was not asked for, or no network of these has, takes no room
    shown = {column: read for column, read in columns.items() if any(read(row) is not None for row in rows)}
    lines = tuple(tuple(Cell(read(row)) for read in shown.values()) for row in rows)
    return render(Table(title, tuple(shown), lines, heads=2), "table", width)
