"""A table: columns, rows of cells, notes below; and how one cell reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secli.errors import printable
from secli.tables.statistic import Statistic

MISSING = "—"

Value = str | bool | int | float | Statistic | None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    key, title
        Name in CSV and JSON (a statistic has ``<key>_mean``, ``_std``, ``_n`` in CSV); heading with the unit.
    percent
        Whether fractions are written as per cent (everywhere but in JSON; CSV says so in the column's name).
    digits
        Decimals; None for three significant digits.
    statistic, text
        Whether the cells hold a ``Statistic``, or words (aligned left, wrapped where there is no room).
    machine
        Whether only programs read it (CSV and JSON): what a mark and its note say to a reader.
    whole
        Whether its words are never wrapped either.
    """

    key: str
    title: str
    percent: bool = False
    digits: int | None = None
    statistic: bool = False
    text: bool = False
    machine: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Cell:
    """A value, a mark behind it (†) that a note explains, and the words that a reader sees instead, if any."""

    value: Value
    mark: str = ""
    words: str = ""


@dataclass(frozen=True)
class Table:
    """A table: title, columns, rows of cells, notes below; the first ``heads`` columns name the row.

    Where a reader's table is no good for programs (a pivot, whose columns depend on the runs), ``machine`` is the
    same content as CSV and JSON write it.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    machine: Table | None = None
    heads: int = 1

    @property
    def shown(self) -> list[int]:
        """The indices of the columns that a reader sees."""
        return [index for index, column in enumerate(self.columns) if not column.machine]


def cell_parts(cell: Cell, column: Column) -> tuple[str, ...]:
    """Return the text of a cell: one part, or two (mean, ± standard deviation) that may stand on two lines."""
    value = cell.words or cell.value
    if isinstance(value, Statistic):
        if value.mean is None:
            return (MISSING + cell.mark,)
        factor = 100 if column.percent else 1
        digits = _digits(factor * value.mean, column.digits)
        mean = number(factor * value.mean, digits)
        if value.std is None:
            return (mean + cell.mark,)
        return (mean, f"± {number(factor * value.std, digits)}{cell.mark}")
    if value is None:
        text = MISSING
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, str):
        text = printable(value)
    elif isinstance(value, int):
        text = f"{value:,}".replace(",", " ")
    else:
        scaled = 100 * value if column.percent else value
        text = number(scaled, _digits(scaled, column.digits))
    return (text + cell.mark,)


def number(value: float, digits: int) -> str:
    """Write a number with fixed decimals; a small one that three or more would not show, in scientific form."""
    if value == 0:
        return "0" if digits > 2 else f"{0:.{digits}f}"
    if digits > 2 and abs(value) < 0.5 * 10.0**-digits:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.{digits}f}"


def significant(value: float) -> str:
    """Write a number with three significant digits, as a cell does whose column says nothing else.

    Examples
    --------
    >>> significant(2288.91), significant(83.72), significant(0.0381)
    ('2289', '83.7', '0.0381')
    """
    return number(value, _digits(value, None))


def _digits(value: float, digits: int | None) -> int:
    """Return the decimals for three significant digits, at most four (smaller numbers go scientific)."""
    if digits is not None:
        return digits
    if value == 0 or not math.isfinite(value):
        return 3
    return min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
