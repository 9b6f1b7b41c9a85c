"""The part of ``secli bench`` that says what each faster form of the layers brings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from secli.cli.console import note, out, progress

ROOM = 100
"""From this width of the terminal on, each form is explained beside its name."""


def time_forms(
    names: Sequence[str],
    modes: Sequence[str],
    *,
    settings: Mapping[str, Any],
    batch: int,
    repeats: int,
    image_size: int | None,
    format: str,
    quiet: bool,
) -> None:
    """Time networks without each form in turn and print a row for each."""
    from shutil import get_terminal_size

    from secli.config import TrainingSettings, validated
    from secli.provenance import command_line, library_versions
    from secli.training.determinism import reproducible
    from secli.training.devices import device_name, on_this_machine
    from secli.training.speed_forms import measure_forms

    where = on_this_machine(validated(TrainingSettings, dict(settings), "bench"))
    with progress(quiet) as display, reproducible(where, strict=False):
        task = display.add_task("timing", total=None, unit="timings", detail="")
        speeds = measure_forms(
            names,
            ["train" if mode == "train" else "eval" for mode in modes],
            batch=batch,
            repeats=repeats,
            device=where.device,
            precision=where.precision,
            image_size=image_size,
            on_progress=lambda done, total: display.update(task, completed=done, total=total),
        )
    place = {
        "device": device_name(where.device),
        "threads": where.threads,
        "torch": library_versions()["torch"],
        "command": command_line(),
    }
    rows: list[dict[str, Any]] = [asdict(speed) | place for speed in speeds]
    width = get_terminal_size((100, 24)).columns
    out(json.dumps(rows, indent=1, ensure_ascii=False) if format == "json" else _table(rows, width))
    if any(row["noisy"] for row in rows):
        note("some rounds differ too much to decide; time again on a quieter machine, or with more --repeats")


def _table(rows: Sequence[dict[str, Any]], width: int) -> str:
    from secli.layers.forms import FORMS
    from secli.tables.formats import Cell, Column, Table, render, significant

    first = rows[0]
    title = (
        f"Time without a form over time with all: {first['device']}, {first['threads']} "
        f"thread{'s' * (first['threads'] != 1)}, batch {first['batch']}, {first['repeats']} repeats"
    )
    columns: tuple[Column, ...] = (
        Column("model", "model", text=True, whole=True),
        Column("mode", "mode", text=True, whole=True),
        Column("form", "left out", text=True, whole=True),
        Column("ratio", "ratio", digits=2),
        Column("range", "low to high"),
    )
    explained = width >= ROOM
    if explained:
        columns = (*columns, Column("what", "what it is", text=True))
    lines = tuple(
        (
            Cell(row["model"]),
            Cell(row["mode"]),
            Cell(row["form"]),
            Cell(row["ratio"]),
            Cell(f"{significant(row['low'])} to {significant(row['high'])}"),
            *([Cell(FORMS[row["form"]])] if explained else []),
        )
        for row in rows
    )
    return render(Table(title, columns, lines, heads=3), "table", width)
