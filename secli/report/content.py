"""What a report holds, whatever it is written as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secli.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TablePart:
    """A table of the report: its anchor, the table, and the command that makes it again where one does."""

    key: str
    table: Table
    command: str | None = None


@dataclass(frozen=True)
class FigurePart:
    """A figure of the report: anchor, heading, what a reader must know, and the numbers with the commands behind it."""

    key: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    numbers: tuple[Table, ...]
    measured_by: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """One line of the provenance: what, and its values, each with the number of records that have it."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class ReportProvenance:
    """Where all numbers of a report come from.

    Attributes
    ----------
    mixes
        Sentences on what differs between records though it should rather not.
    facts
        Versions, commits, machines, dates, data.
    commands
        The commands that trained and measured, each with the number of records.
    runs
        Every run, with its own version, machine and date.
    """

    mixes: tuple[str, ...]
    facts: tuple[Fact, ...]
    commands: tuple[str, ...]
    runs: Table


@dataclass(frozen=True)
class Report:
    """A report: heading, sentences under it, the command that wrote it, its parts, and where the numbers come from."""

    title: str
    lead: tuple[str, ...]
    command: str
    tables: tuple[TablePart, ...]
    figures: tuple[FigurePart, ...]
    set_aside: TablePart | None
    origin: ReportProvenance
