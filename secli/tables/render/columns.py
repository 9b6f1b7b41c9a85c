"""How the columns of a table fit a width: words wrap, numbers never do, and columns move below if they must."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from secli.errors import printable
from secli.tables.table import Column, Table, cell_parts

GAP = 2  # blanks between columns
NARROWEST_TEXT = 8  # no column of words is squeezed below this


@dataclass(frozen=True)
class Laid:
    """A column with the lines of its heading and cells; ``index`` is its place in the table."""

    index: int
    column: Column
    heading: list[str]
    cells: list[list[str]]

    @property
    def width(self) -> int:
        """Characters across."""
        return max((len(line) for lines in [self.heading, *self.cells] for line in lines), default=0)


def blocks(table: Table, width: int, stack: bool = True) -> list[list[Laid]]:
    """Return the columns in blocks that fit ``width``; each block begins with the columns that name the row.

    Where there is no room, words wrap first, then (with ``stack``) ± goes below its mean, then the columns are
    parted into several blocks.
    """
    everything = table.shown
    for stacked in (False, True) if stack else (False,):
        laid = _fit(table, everything, width, stacked)
        if laid is not None:
            return [laid]
    parted: list[list[Laid]] = []
    heads = everything[: max(1, table.heads)]
    chosen = list(heads)
    for index in everything[len(heads) :]:
        if len(chosen) > len(heads) and _fit(table, [*chosen, index], width, stack) is None:
            parted.append(_squeeze(table, chosen, width, stack))
            chosen = list(heads)
        chosen.append(index)
    return [*parted, _squeeze(table, chosen, width, stack)]


def _fit(table: Table, chosen: Sequence[int], width: int, stacked: bool) -> list[Laid] | None:
    laid = _squeeze(table, chosen, width, stacked)
    return laid if total_width(laid) <= width else None


def _squeeze(table: Table, chosen: Sequence[int], width: int, stacked: bool) -> list[Laid]:
    """Lay the chosen columns out, wrapping the widest words until the width is met or nothing wraps further."""
    limits = dict.fromkeys(chosen, 10_000)
    laid = {index: _lay(table, index, stacked, limits[index]) for index in chosen}
    while total_width(list(laid.values())) > width:
        words = [i for i in chosen if table.columns[i].text and not table.columns[i].whole]
        words = [i for i in words if limits[i] > NARROWEST_TEXT]
        words = [i for i in words if laid[i].width > NARROWEST_TEXT]
        if not words:
            break
        widest = max(words, key=lambda i: laid[i].width)
        limits[widest] = min(limits[widest], laid[widest].width) - 1
        laid[widest] = _lay(table, widest, stacked, limits[widest])
        if laid[widest].width > limits[widest]:  # one word that cannot be broken: leave it
            limits[widest] = 0
    return list(laid.values())


def _lay(table: Table, index: int, stacked: bool, limit: int) -> Laid:
    column = table.columns[index]
    cells = []
    for row in table.rows:
        parts = cell_parts(row[index], column)
        if column.text:
            cells.append(_wrap(parts[0], limit))
        else:
            cells.append(list(parts) if stacked else [" ".join(parts)])
    body = max((len(line) for lines in cells for line in lines), default=0)
    # a heading wraps at blanks, to the width of what stands below it
    title = printable(column.title)
    room = max(body, *(len(word) for word in title.split(" ")))
    heading = textwrap.wrap(title, room, break_long_words=False, break_on_hyphens=False)
    return Laid(index, column, heading, cells)


def _wrap(text: str, limit: int) -> list[str]:
    """Wrap words at blanks and behind underscores, slashes and dots, as names of models and paths are read."""
    lines = [""]
    for piece in re.findall(r"[^\s_/.]*[_/.]?\s*|\s+", text):
        if len((lines[-1] + piece).rstrip()) > limit and lines[-1]:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def total_width(laid: Sequence[Laid]) -> int:
    """Characters across a block."""
    return sum(column.width for column in laid) + GAP * (len(laid) - 1)
