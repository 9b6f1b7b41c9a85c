"""Tables as markdown, their words as plain text."""

from __future__ import annotations

import re
from collections.abc import Callable

from secli.errors import printable
from secli.tables.table import Table, cell_parts

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

    columns = [table.columns[index] for index in table.shown]
    rows = [
        [escape(" ".join(cell_parts(row[index], table.columns[index]))) for index in table.shown]
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
