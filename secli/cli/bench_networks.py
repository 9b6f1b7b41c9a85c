"""The part of ``secli bench`` that times networks and prints a row for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    out(json.dumps(rows, indent=1, ensure_ascii=False) if format == "json" else _table(rows))
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


def _table(rows: Sequence[Row]) -> str:
    first = rows[0]
    head = (
        f"{first['device']}, {first['threads']} threads, batch {first['batch']}, precision {first['precision']}, "
        f"{first['repeats']} repeats"
    )
    titles = ["model", "mode", "images/s", "(low to high)", "GFLOP/s", "of roof", "vs literal", "(low to high)",
              "peak MiB", "of literal"]  # fmt: skip
    cells = [titles, *[_cells(row) for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(titles))]
    lines = [
        "   ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in cells)
    ]
    return "\n".join([head, *lines])


def _cells(row: Row) -> list[str]:
    return [
        row["model"],
        row["mode"],
        f"{row['images_per_second']:.1f}",
        f"{row['low']:.1f} to {row['high']:.1f}",
        f"{row['flops_per_second'] / 1e9:.1f}",
        f"{row['of_roof']:.2f}",
        _number(row["vs_literal"]),
        "" if row["vs_literal"] is None else f"{row['vs_literal_low']:.2f} to {row['vs_literal_high']:.2f}",
        _number(row["peak_memory_mib"], 1),
        _number(row["memory_vs_literal"]),
    ]


def _number(value: float | None, digits: int = 2) -> str:
    """Return a number, or a dash for what is not measured."""
    return "–" if value is None else f"{value:.{digits}f}"
