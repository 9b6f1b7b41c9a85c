"""Rows of the benchmarks that time networks: what was asked for, where it was measured, and a table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from secli.bench.timing import Mode
from secli.config import TrainingSettings, validated
from secli.provenance import command_line, library_versions
from secli.tables.render import render
from secli.tables.table import Cell, Column, Table, significant
from secli.training.determinism import reproducible
from secli.training.devices import device_name, on_this_machine

Row = dict[str, Any]


class TimingRequest(NamedTuple):
    """Which networks are timed, and how.

    Attributes
    ----------
    names, modes
        Networks of the registry; ``train`` and ``eval``.
    device, threads, precision
        As in training, not yet resolved for this machine.
    batch, repeats, image_size
        Images per pass, rounds, and side of the images; None: each network's own.
    """

    names: Sequence[str]
    modes: Sequence[Mode] = ("train", "eval")
    device: str = "auto"
    threads: int = 0
    precision: str = "32"
    batch: int = 32
    repeats: int = 5
    image_size: int | None = None

    def work(self, where: TrainingSettings) -> dict[str, Any]:
        """Return the arguments that all measurements take."""
        return {
            "batch": self.batch,
            "repeats": self.repeats,
            "device": where.device,
            "precision": where.precision,
            "image_size": self.image_size,
        }


def measured_rows(
    request: TimingRequest,
    measure: Callable[[TrainingSettings], Sequence[Any]],
    more: Callable[[Any, TrainingSettings], Row] | None = None,
) -> list[Row]:
    """Measure on this machine and return a row per result, with the machine and the command.

    Parameters
    ----------
    request : TimingRequest
        What is asked for.
    measure : callable
        Returns dataclasses, given the resolved settings.
    more : callable, optional
        Adds to the row of a result what is measured afterwards.
    """
    settings = {"device": request.device, "threads": request.threads, "precision": request.precision}
    where = on_this_machine(validated(TrainingSettings, settings, "bench"))
    with reproducible(where, strict=False):
        found = measure(where)
    machine: Row = {
        "device": device_name(where.device),
        "threads": where.threads,
        "torch": library_versions()["torch"],
        "command": command_line(),
    }
    return [asdict(each) | (more(each, where) if more else {}) | machine for each in found]


def rows_table(
    title: str,
    columns: Mapping[Column, Callable[[Row], float | str | None]],
    rows: Sequence[Row],
    heads: int,
    width: int,
) -> str:
    """Return a table that fits a terminal; its first columns, as many as ``heads``, name the row."""
    lines = tuple(tuple(Cell(read(row)) for read in columns.values()) for row in rows)
    return render(Table(title, tuple(columns), lines, heads=heads), "table", width)


def settings_text(row: Row) -> str:
    """Return the machine and the settings of a row, for a table's title."""
    return (
        f"{row['device']}, {row['threads']} thread{'s' * (row['threads'] != 1)}, batch {row['batch']}, "
        f"{row['repeats']} repeat{'s' * (row['repeats'] != 1)}"
    )


def range_text(low: float | None, high: float | None) -> str | None:
    """Return the range of the rounds as text; None where there is none."""
    return None if low is None or high is None else f"{significant(low)} to {significant(high)}"


def noisy_rows(rows: Sequence[Row]) -> list[str]:
    """Return the names of the rows that the machine was too busy to decide."""
    noisy = [row for row in rows if row.get("noisy")]
    return [" ".join(row[key] for key in ("model", "mode", "form") if key in row) for row in noisy]
