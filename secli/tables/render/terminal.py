"""Tables for a terminal: they fit its width without cutting a number; names wrap, columns move below if they must."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from secli.errors import printable
from secli.tables.render.columns import Laid, blocks, total_width
from secli.tables.table import Table


def terminal(table: Table, width: int) -> str:
    """Write the table for a terminal ``width`` columns wide, its title above and its notes below."""
    text = "\n".join(_draw(block) for block in blocks(table, width))
    title = textwrap.fill(printable(table.title), width)
    notes = [textwrap.fill(printable(note), width, subsequent_indent="  ") for note in table.notes]
    return "\n".join([title, "", text.rstrip("\n"), *([""] if notes else []), *notes]) + "\n"


def _draw(block: Sequence[Laid]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, collapse_padding=True
    )
    for laid in block:
        grid.add_column(
            Text("\n".join(laid.heading)),
            width=laid.width,
            no_wrap=True,
            justify="left" if laid.column.text else "right",
        )
    for row in zip(*(laid.cells for laid in block), strict=True):
        grid.add_row(*(Text("\n".join(lines)) for lines in row))
    buffer = io.StringIO()
    console = Console(
        file=buffer, width=total_width(block) + 2 * len(block) + 4, color_system=None, highlight=False
    )
    console.print(grid)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
