"""The tables that a sweep ends in, printed."""

from __future__ import annotations

from pathlib import Path

from secli.cli.console import out


def print_tables(directory: Path, format: str) -> None:
    """Print the tables of what is finished in a sweep's directory; for programs, as one document."""
    from shutil import get_terminal_size

    from secli.records.schema import read_sweep_record
    from secli.tables.formats import csv_document, document, dump_json, render
    from secli.tables.sweep import sweep_tables

    tables = sweep_tables(directory)
    if format == "json":
        record = read_sweep_record(directory)
        assert record is not None  # sweep_tables has read it
        out(dump_json(document(tables, name=record.name, about=record.about, command=record.command)), "json")
    elif format == "csv":
        out(csv_document(tables), "csv")
    else:
        out(render(tables, format, get_terminal_size((100, 24)).columns))
