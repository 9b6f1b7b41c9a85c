"""The part of ``secli bench`` that times replicas at once beside replicas one after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from secli.cli.console import note, out, progress


def time_replicas(
    names: Sequence[str],
    replicas: int,
    *,
    settings: Mapping[str, Any],
    batch: int,
    repeats: int,
    image_size: int | None,
    format: str,
    quiet: bool,
) -> None:
    """Time training steps and print a row for each network."""
    from secli.config import TrainingSettings, validated
    from secli.provenance import command_line, library_versions
    from secli.training.determinism import reproducible
    from secli.training.devices import device_name, on_this_machine
    from secli.training.replicas.benchmark import replica_speed

    where = on_this_machine(validated(TrainingSettings, dict(settings), "bench"))
    with progress(quiet) as display, reproducible(where, strict=False):
        task = display.add_task("timing", total=len(names) * repeats, unit="rounds", detail="")
        speeds = []
        for name in names:
            display.update(task, description=name)
            speeds.append(
                replica_speed(
                    name,
                    replicas,
                    batch=batch,
                    repeats=repeats,
                    device=where.device,
                    precision=where.precision,
                    image_size=image_size,
                    on_progress=lambda done, total: display.advance(task),
                )
            )
    place = {
        "device": device_name(where.device),
        "threads": where.threads,
        "torch": library_versions()["torch"],
        "command": command_line(),
    }
    rows = [asdict(speed) | place for speed in speeds]
    out(json.dumps(rows, indent=1, ensure_ascii=False) if format == "json" else _table(rows))
    noisy = [row["model"] for row in rows if row["noisy"]]
    if noisy:
        note(f"the repeats differ too much to decide ({', '.join(noisy)}); time again on a quieter machine")


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    first = rows[0]
    head = (
        f"{first['device']}, {first['threads']} threads, {first['replicas']} replicas, batch {first['batch']} each, "
        f"precision {first['precision']}, {first['repeats']} repeats"
    )
    cells = [["model", "at once, images/s", "one after the other", "gain", "(low to high)"]]
    for row in rows:
        spread = f"{row['gain_low']:.2f} to {row['gain_high']:.2f}"
        cells.append(
            [row["model"], f"{row['at_once']:.1f}", f"{row['singly']:.1f}", f"{row['gain']:.2f}", spread]
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "   ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in cells)
    ]
    return "\n".join([head, *lines])
