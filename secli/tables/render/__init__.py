"""A table in each of the five formats: one writer per format."""

from __future__ import annotations

from collections.abc import Sequence

from secli.errors import UnknownNameError
from secli.tables.table import Table

FORMATS = ("table", "markdown", "latex", "csv", "json")


def check_format(name: str) -> str:
    """Return the format's name, or raise on an unknown one with the near miss."""
    if name not in FORMATS:
        raise UnknownNameError("format --format", name, FORMATS)
    return name


def render(table: Table | Sequence[Table], format: str, width: int = 100) -> str:
    """Write one table, or several one below the other; ``width`` is that of the terminal (``table`` only).

    JSON is a list of rows ``{key: value}`` (a statistic as ``{mean, std, n}``, fractions as fractions, null where
    there is no value); several tables become ``{title: rows}``. CSV has one column per number and no notes; several
    tables are parted by an empty line. LaTeX needs booktabs.

    Raises
    ------
    UnknownNameError
        On an unknown format.
    """
    tables = [table] if isinstance(table, Table) else list(table)
    match check_format(format):
        case "json":
            from secli.tables.render.json import dump_json, json_rows

            rows = [json_rows(one) for one in tables]
            titles = [one.title for one in tables]
            return dump_json(rows[0] if len(rows) == 1 else dict(zip(titles, rows, strict=True)))
        case "csv":
            from secli.tables.render.csv import csv

            return "\n".join(csv(one) for one in tables)
        case "latex":
            from secli.tables.render.latex import latex

            return "\n".join(latex(one) for one in tables)
        case "markdown":
            from secli.tables.render.markdown import markdown

            return "\n".join(markdown(one) for one in tables)
        case _:
            from secli.tables.render.terminal import terminal

            return "\n".join(terminal(one, width) for one in tables)
