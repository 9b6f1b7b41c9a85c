"""What the kinds of ``secli bench`` share: where they time, how they say how far they are, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from secli.cli.console import note, out, progress

if TYPE_CHECKING:
    from secli.config import TrainingSettings
    from secli.training.speed import Mode

Row = dict[str, Any]
Tell = Callable[[int, int], None]


class Asked(NamedTuple):
    """What was asked for on the command line.

    Attributes
    ----------
    names, modes
        Networks of the registry; ``train`` and ``eval``.
    device, threads, precision
        As in training, not yet resolved for this machine.
    batch, repeats, image_size
        Images per pass, rounds, and side of the images; None: each network's own.
    format, quiet
        ``table`` or ``json``; whether no progress is shown.
    """

    names: Sequence[str]
    modes: Sequence[Mode]
    device: str
    threads: int
    precision: str
    batch: int
    repeats: int
    image_size: int | None
    format: str
    quiet: bool

    def work(self, where: TrainingSettings) -> dict[str, Any]:
        """Return the arguments that all measurements take."""
        return {
            "batch": self.batch,
            "repeats": self.repeats,
            "device": where.device,
            "precision": where.precision,
            "image_size": self.image_size,
        }


def timed_rows(
    asked: Asked,
    measure: Callable[[TrainingSettings, Tell], Sequence[Any]],
    more: Callable[[Any, TrainingSettings], Row] | None = None,
) -> list[Row]:
    """Measure on this machine and return a row per result, with the place and the command.

    Parameters
    ----------
    asked : Asked
        What was asked for.
    measure : callable
        Returns dataclasses, given the resolved settings and whom to tell how far it is.
    more : callable, optional
        Adds to the row of a result what is measured afterwards.
    """
    from secli.config import TrainingSettings, validated
    from secli.provenance import command_line, library_versions
    from secli.training.determinism import reproducible
    from secli.training.devices import device_name, on_this_machine

    settings = {"device": asked.device, "threads": asked.threads, "precision": asked.precision}
    where = on_this_machine(validated(TrainingSettings, settings, "bench"))
    with progress(asked.quiet) as display, reproducible(where, strict=False):
        task = display.add_task("timing", total=None, unit="timings", detail="")
        found = measure(where, lambda done, total: display.update(task, completed=done, total=total))
    place: Row = {
        "device": device_name(where.device),
        "threads": where.threads,
        "torch": library_versions()["torch"],
        "command": command_line(),
    }
    return [asdict(each) | (more(each, where) if more else {}) | place for each in found]


def print_rows(asked: Asked, rows: Sequence[Row], table: Callable[[Sequence[Row], int], str]) -> None:
    """Print the rows, and say on stderr which of them the machine was too busy to decide."""
    from shutil import get_terminal_size

    width = get_terminal_size((100, 24)).columns
    out(
        json.dumps(rows, indent=1, ensure_ascii=False) if asked.format == "json" else table(rows, width),
        asked.format,
    )
    noisy = [
        " ".join(row[key] for key in ("model", "mode", "form") if key in row) for row in rows if row["noisy"]
    ]
    if noisy:
        note(
            f"the repeats differ too much to decide ({', '.join(noisy)}); time again on a quieter machine, "
            "or with more --repeats"
        )


def place_of(row: Row) -> str:
    """Return the machine and the settings of a row, for a table's title."""
    return (
        f"{row['device']}, {row['threads']} thread{'s' * (row['threads'] != 1)}, batch {row['batch']}, "
        f"{row['repeats']} repeat{'s' * (row['repeats'] != 1)}"
    )


def low_to_high(low: float | None, high: float | None) -> str | None:
    """Return the range of the rounds as text; None where there is none."""
    from secli.tables.table import significant

    return None if low is None or high is None else f"{significant(low)} to {significant(high)}"
