"""The tables that a sweep ends in, printed."""

from __future__ import annotations

from pathlib import Path

from secli.cli.console import out


def print_tables(directory: Path, format: str) -> None:
    """Print the tables of what is finished in a sweep's directory."""
    from shutil import get_terminal_size

    from secli.tables.aggregate import summarise
    from secli.tables.comparison import compare
    from secli.tables.formats import render

    comparison = compare(summarise([directory]))
    aside = [comparison.set_aside] if comparison.set_aside is not None else []
    out(render([comparison.main, *comparison.others, *aside], format, get_terminal_size((100, 24)).columns))
