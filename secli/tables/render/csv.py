"""Tables as CSV (RFC 4180): one column per number, unrounded; missing values are empty, no cell is a formula."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from secli.errors import printable
from secli.tables.statistic import Statistic
from secli.tables.table import Cell, Column, Table

_FORMULA = re.compile("[=+\\-@\t\r\n\uff0b\uff0d\uff1d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv(table: Table) -> str:
    """Write one table."""
    return _written(_names(table), _lines(table))


def csv_document(tables: Sequence[Table]) -> str:
    """Write several tables as one CSV: their columns side by side, the title of the table in the first one."""
    names = dict.fromkeys(name for one in tables for name in _names(one))
    lines = [{"table": _safe(one.title), **line} for one in tables for line in _lines(one)]
    return _written(["table", *names], lines)


def _written(names: Sequence[str], lines: Sequence[dict[str, Any]]) -> str:
    from pandas import DataFrame

    frame = DataFrame(lines, columns=list(names), dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _names(table: Table) -> list[str]:
    names: list[str] = []
    for column in (table.machine or table).columns:
        key = f"{column.key}_percent" if column.percent else column.key
        names += [f"{key}_mean", f"{key}_std", f"{key}_n"] if column.statistic else [key]
    return [_safe(name) for name in names]


def _lines(table: Table) -> list[dict[str, Any]]:
    columns, names = (table.machine or table).columns, _names(table)
    lines = []
    for row in (table.machine or table).rows:
        values = [value for cell, column in zip(row, columns, strict=True) for value in _values(cell, column)]
        lines.append(dict(zip(names, values, strict=True)))
    return lines


def _values(cell: Cell, column: Column) -> list[Any]:
    factor = 100 if column.percent else 1
    value = cell.value
    if isinstance(value, Statistic):
        # a published figure whose number of runs is not known has a mean and no n
        n = None if value.mean is not None and value.n == 0 else value.n
        return [_scaled(value.mean, factor), _scaled(value.std, factor), n]
    if column.statistic:
        return [None, None, 0]
    if isinstance(value, str):
        return [_safe(value)]
    return [_scaled(value, factor) if isinstance(value, float) else value]


def _scaled(value: float | None, factor: int) -> float | None:
    # rounding to 12 digits removes the tail that ×100 leaves in binary
    return None if value is None else float(f"{factor * value:.12g}")


def _safe(text: str) -> str:
    """Return the text of a cell; what a spreadsheet would calculate gets an apostrophe in front, a number does not.

    Examples
    --------
    >>> _safe("=1+1"), _safe("-0.5"), _safe("cnn")
    ("'=1+1", '-0.5', 'cnn')
    """
    quote = "'" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else ""
    return quote + printable(text)
