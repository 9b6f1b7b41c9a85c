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
    """A table of the report.

    Attributes
    ----------
    key
        Its anchor, and the stem of what is written for it: letters, digits, hyphens.
    table
        The table; its title is the heading.
    command
        What makes this table again; None where the report alone does.
    """

    key: str
    table: Table
    command: str | None = None


@dataclass(frozen=True)
class FigurePart:
    """A figure of the report.

    Attributes
    ----------
    key
        Its anchor, and the stem of its file.
    title, caption
        Heading, and what the reader must know to read it.
    draw
        Draws the figure.
    numbers
        The numbers behind it, as tables.
    measured_by
        The commands that measured what it shows.
    """

    key: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    numbers: tuple[Table, ...]
    measured_by: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """One line of the provenance: what, and its values, each with the number of records that say so."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
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
    """A report: what it is about, its tables and figures in order, and where the numbers come from.

    Attributes
    ----------
    title
        Heading of the whole.
    lead
        Sentences under it.
    command
        The command that wrote the report.
    tables, figures
        Its parts.
    set_aside
        Runs that entered no average, with the reason; None when there are none.
    """

    title: str
    lead: tuple[str, ...]
    command: str
    tables: tuple[TablePart, ...]
    figures: tuple[FigurePart, ...]
    set_aside: TablePart | None
    origin: Origin
