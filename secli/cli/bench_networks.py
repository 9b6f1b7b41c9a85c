"""The part of ``secli bench`` that times networks and prints a row for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from secli.cli.console import note, out, progress

if TYPE_CHECKING:
    from secli.config import TrainingSettings
    from secli.training.speed import Speed

Row = dict[str, Any]


def time_networks(
    names: Sequence[str],
    modes: Sequence[str],
    *,
    settings: Mapping[str, Any],
    batch: int,
    repeats: int,
    image_size: int | None,
    literal: bool,
    memory: bool,
    format: str,
    quiet: bool,
) -> None:
    """Time networks and print a row for each mode; say on stderr what the machine was too busy to decide."""
    from shutil import get_terminal_size

    from secli.config import TrainingSettings, validated
    from secli.provenance import command_line, library_versions
    from secli.training.determinism import reproducible
    from secli.training.devices import device_name, on_this_machine
    from secli.training.speed import measure_speed

    where = on_this_machine(validated(TrainingSettings, dict(settings), "bench"))
    with progress(quiet) as display, reproducible(where, strict=False):
        task = display.add_task("timing", total=None, unit="timings", detail="")
        speeds = measure_speed(
            names,
            ["train" if mode == "train" else "eval" for mode in modes],
            batch=batch,
            repeats=repeats,
            device=where.device,
            precision=where.precision,
            image_size=image_size,
            literal=literal,
            on_progress=lambda done, total: display.update(task, completed=done, total=total),
        )
    place: Row = {
        "device": device_name(where.device),
        "threads": where.threads,
        "torch": library_versions()["torch"],
        "command": command_line(),
    }
    if memory:
        peaks = [_peaks(speed, where, image_size) for speed in speeds]
    else:
        peaks = [{"peak_memory_mib": None, "memory_vs_literal": None} for _ in speeds]
    rows = [asdict(speed) | peak | place for speed, peak in zip(speeds, peaks, strict=True)]
    width = get_terminal_size((100, 24)).columns
    out(json.dumps(rows, indent=1, ensure_ascii=False) if format == "json" else _table(rows, width))
    noisy = [f"{row['model']} {row['mode']}" for row in rows if row["noisy"]]
    if noisy:
        note(
            f"the repeats differ too much to decide ({', '.join(noisy)}); time again on a quieter machine, "
            "or with more --repeats"
        )


def _peaks(speed: Speed, where: TrainingSettings, image_size: int | None) -> Row:
    """Return the peak memory of a training step, and what share of the literal form's it is."""
    from secli.training.memory import Asked, peak_memory

    if speed.mode != "train":
        return {"peak_memory_mib": None, "memory_vs_literal": None}
    asked = Asked(speed.model, speed.batch, where.device, image_size, where.precision, where.threads)
    own = peak_memory(asked)
    other = peak_memory(asked._replace(literal=True)) if speed.vs_literal is not None else None
    share = own / other if own is not None and other else None
    return {"peak_memory_mib": own, "memory_vs_literal": share}


def _table(rows: Sequence[Row], width: int) -> str:
    """Return the rows as a table that fits a terminal."""
    from secli.tables.formats import Cell, Column, Table, render

    first = rows[0]
    title = (
        f"{first['device']}, {first['threads']} thread{'s' * (first['threads'] != 1)}, batch {first['batch']}, "
        f"precision {first['precision']}, {first['repeats']} repeats"
    )
    columns: dict[Column, Callable[[Row], float | str | None]] = {
        Column("model", "model", text=True, whole=True): lambda row: row["model"],
        Column("mode", "mode", text=True, whole=True): lambda row: row["mode"],
        Column("images_per_second", "images/s"): lambda row: row["images_per_second"],
        Column("range", "low to high"): lambda row: _range(row["low"], row["high"]),
        Column("gflops", "GFLOP/s"): lambda row: row["flops_per_second"] / 1e9,
        Column("of_roof", "of roof", digits=2): lambda row: row["of_roof"],
        Column("vs_literal", "vs literal", digits=2): lambda row: row["vs_literal"],
        Column("vs_literal_range", "low to high"): lambda row: _range(
            row["vs_literal_low"], row["vs_literal_high"]
        ),
        Column("vs_float32", "vs float32", digits=2): lambda row: row["vs_float32"],
        Column("vs_float32_range", "low to high"): lambda row: _range(
            row["vs_float32_low"], row["vs_float32_high"]
        ),
        Column("peak_memory_mib", "peak memory (MiB)", digits=1): lambda row: row["peak_memory_mib"],
        Column("memory_vs_literal", "memory of literal", digits=2): lambda row: row["memory_vs_literal"],
    }
    # what was not asked for, or no network of these has, takes no room
    shown = {column: read for column, read in columns.items() if any(read(row) is not None for row in rows)}
    lines = tuple(tuple(Cell(read(row)) for read in shown.values()) for row in rows)
    return render(Table(title, tuple(shown), lines, heads=2), "table", width)


def _range(low: float | None, high: float | None) -> str | None:
    from secli.tables.formats import significant

    return None if low is None or high is None else f"{significant(low)} to {significant(high)}"
