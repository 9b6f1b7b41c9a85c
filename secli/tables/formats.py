"""A table with its notes, and the five ways to write it: table, markdown, latex, csv, json."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from secli.errors import UnknownNameError, printable
from secli.tables.statistic import Statistic

FORMATS = ("table", "markdown", "latex", "csv", "json")
MISSING = "—"

Value = str | bool | int | float | Statistic | None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    key
        Name in CSV and JSON; in CSV a statistic becomes ``<key>_mean``, ``<key>_std``, ``<key>_n``.
    title
        Heading, with the unit.
    percent
        Whether fractions are written as per cent (everywhere but in JSON; CSV says so in the column's name).
    digits
        Decimals; None for three significant digits.
    statistic
        Whether the cells hold a ``Statistic``.
    text
        Whether the cells hold words (aligned left, wrapped where there is no room; numbers never are).
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
    """A value, a mark behind it (†) that a note explains, and the words that a reader sees in its place, if any."""

    value: Value
    mark: str = ""
    said: str = ""


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


def check_format(name: str) -> str:
    """Return the format's name, or raise on an unknown one with the near miss."""
    if name not in FORMATS:
        raise UnknownNameError("format --format", name, FORMATS)
    return name


def render(table: Table | Sequence[Table], format: str, width: int = 100) -> str:
    """Write one table, or several one below the other.

    Parameters
    ----------
    table : Table or sequence of Table
        What to write.
    format : str
        ``table`` (for a terminal), ``markdown``, ``latex`` (booktabs), ``csv`` or ``json``.
    width : int
        Columns of the terminal; matters to ``table`` only.

    Returns
    -------
    str
        The text. JSON is a list of rows ``{key: value}`` (a statistic as ``{mean, std, n}``, fractions as
        fractions, null where there is no value); several tables become ``{title: rows}``. CSV has one column per
        number and no notes; several tables are parted by an empty line.

    Raises
    ------
    UnknownNameError
        On an unknown format.
    """
    check_format(format)
    tables = [table] if isinstance(table, Table) else list(table)
    if format == "json":
        content = {one.title: json_rows(one) for one in tables} if len(tables) != 1 else json_rows(tables[0])
        return dump_json(content)
    if format == "latex":
        from secli.tables.render.latex import latex

        return "\n".join(latex(one) for one in tables)
    if format == "markdown":
        return "\n".join(markdown(one) for one in tables)
    if format == "csv":
        return "\n".join(_csv(one) for one in tables)
    from secli.tables.render.terminal import terminal

    return "\n".join(terminal(one, width) for one in tables)


def dump_json(content: Any) -> str:
    """Write JSON as all commands do: readable, UTF-8, no NaN."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # within strings alone, where \\u009b is the same character and no terminal obeys it
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


_OBEYED = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def statistic_json(value: Statistic) -> dict[str, Any]:
    """Return ``{mean, std, n}``."""
    return {"mean": value.mean, "std": value.std, "n": value.n}


def document(tables: Sequence[Table], **more: Any) -> dict[str, Any]:
    """Return several tables as one JSON object: ``{..., tables: [{title, rows, notes}]}``."""
    return {
        **more,
        "tables": [{"title": one.title, "rows": json_rows(one), "notes": list(one.notes)} for one in tables],
    }


def json_rows(table: Table) -> list[dict[str, Any]]:
    """Return the rows as JSON objects, numbers unrounded, fractions as fractions."""
    table = table.machine or table
    return [
        {
            column.key: statistic_json(cell.value) if isinstance(cell.value, Statistic) else cell.value
            for column, cell in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]


def shown_columns(table: Table) -> list[int]:
    """Return the places of the columns that a reader sees."""
    return [index for index, column in enumerate(table.columns) if not column.machine]


def cell_parts(cell: Cell, column: Column) -> tuple[str, ...]:
    """Return the text of a cell: one part, or two (mean, ± standard deviation) that may stand on two lines."""
    value = cell.said or cell.value
    if value is None or (isinstance(value, Statistic) and value.mean is None):
        return (MISSING + cell.mark,)
    if isinstance(value, bool):
        return (("yes" if value else "no") + cell.mark,)
    if isinstance(value, str):
        return (printable(value) + cell.mark,)
    if isinstance(value, int):
        return (f"{value:,}".replace(",", " ") + cell.mark,)
    factor = 100 if column.percent else 1
    if isinstance(value, float):
        return (number(factor * value, _digits(factor * value, column.digits)) + cell.mark,)
    mean = factor * (value.mean or 0.0)
    digits = _digits(mean, column.digits)
    if value.std is None:
        return (number(mean, digits) + cell.mark,)
    return (number(mean, digits), f"± {number(factor * value.std, digits)}{cell.mark}")


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


_MARKUP = re.compile(r"([\\|*`\[\]])")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def escape_markdown(text: str) -> str:
    """Return text that markdown shows as it reads: no tag, no link, no emphasis, and no cell ends in it.

    An underscore within a word is none of these, so that names stay readable in the source.

    Examples
    --------
    >>> escape_markdown("a|b <script>")
    'a\\\\|b &lt;script>'
    """
    shown = _MARKUP.sub(r"\\\1", printable(text.replace("\n", " ")))
    return _ENTITY.sub("&amp;", shown).replace("<", "&lt;")


def markdown(table: Table, escape: Callable[[str], str] = escape_markdown) -> str:
    """Write a table as markdown; ``escape`` makes its words plain text."""
    from tabulate import tabulate

    shown = shown_columns(table)
    columns = [table.columns[index] for index in shown]
    rows = [
        [escape(" ".join(cell_parts(row[index], table.columns[index]))) for index in shown]
        for row in table.rows
    ]
    body = tabulate(
        rows,
        headers=[escape(column.title) for column in columns],
        tablefmt="pipe",
        colalign=["left" if column.text else "right" for column in columns] if rows else None,
        disable_numparse=True,
    )
    notes = "".join(f"- {escape(note)}\n" for note in table.notes)
    return f"**{escape(table.title)}**\n\n{body}\n" + (f"\n{notes}" if notes else "")


def _csv(table: Table) -> str:
    """Write RFC 4180 rows with one column per number, unrounded; missing values are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows(_csv_lines(table))
    return buffer.getvalue()


def csv_document(tables: Sequence[Table]) -> str:
    """Write several tables as one CSV: their columns side by side, the title of the table in the first one."""
    parts = [(one.title, _csv_lines(one)) for one in tables]
    names = list(dict.fromkeys(name for _, lines in parts for name in lines[0]))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["table", *names], lineterminator="\n")
    writer.writeheader()
    for title, lines in parts:
        writer.writerows(
            {"table": _csv_text(title), **dict(zip(lines[0], line, strict=True))} for line in lines[1:]
        )
    return buffer.getvalue()


def _csv_lines(table: Table) -> list[list[Any]]:
    table = table.machine or table
    names: list[Any] = []
    for column in table.columns:
        key = f"{column.key}_percent" if column.percent else column.key
        names.extend([f"{key}_mean", f"{key}_std", f"{key}_n"] if column.statistic else [key])
    lines = [names]
    for row in table.rows:
        values: list[Any] = []
        for column, cell in zip(table.columns, row, strict=True):
            factor = 100 if column.percent else 1
            value = cell.value
            if isinstance(value, Statistic):
                values.extend([_scaled(value.mean, factor), _scaled(value.std, factor), _count(value)])
            elif column.statistic:
                values.extend([None, None, 0])
            else:
                values.append(_scaled(value, factor) if isinstance(value, float) else value)
        lines.append([_csv_text(value) if isinstance(value, str) else value for value in values])
    return [[_csv_text(str(name)) for name in names], *lines[1:]]


_FORMULA = re.compile("[=+\\-@\t\r\n\uff0b\uff0d\uff1d\uff20]")


def _csv_text(text: str) -> str:
    """Return the text of a cell; what a spreadsheet would calculate gets an apostrophe in front, a number does not.

    Examples
    --------
    >>> _csv_text("=1+1"), _csv_text("-0.5"), _csv_text("cnn")
    ("'=1+1", '-0.5', 'cnn')
    """
    quote = "'" if _FORMULA.match(text) and not _is_number(text) else ""
    return quote + printable(text)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) is not None


def _count(value: Statistic) -> int | None:
    # a published figure whose number of runs is not known has a mean and no n
    return None if value.mean is not None and value.n == 0 else value.n


def _scaled(value: float | None, factor: int) -> float | None:
    # rounding to 12 digits removes the tail that ×100 leaves in binary
    return None if value is None else float(f"{factor * value:.12g}")


# Kept here so that every caller names formats alike in its type hints.
Format = Literal["table", "markdown", "latex", "csv", "json"]
