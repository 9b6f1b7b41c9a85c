"""What ``secli compare`` prints with --rows, --columns, --ablate or --curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from secli.cli.console import names, note, out, out_json, terminal_width

if TYPE_CHECKING:
    from secli.tables.depth import TapChoice
    from secli.tables.pivot import TableSpec
    from secli.tables.table import Table


def _words(option: str, text: str | None) -> tuple[str, ...]:
    return () if text is None else names(option, text)


def table_spec(
    rows: str | None,
    columns: str | None,
    value: str | None,
    tap: TapChoice,
    factors: tuple[float, ...] | None,
    ranks: bool,
    test: str,
) -> TableSpec:
    """Return what the options ask for.

    Raises
    ------
    UnknownNameError
        On an unknown test.
    """
    from secli.errors import UnknownNameError
    from secli.tables.paired_tests import TESTS
    from secli.tables.pivot import TableSpec

    known = {name: name for name in TESTS}
    if test not in known:
        raise UnknownNameError("test --test", test, TESTS)
    return TableSpec(
        rows=_words("--rows", rows) or ("model",),
        columns=_words("--columns", columns),
        values=_words("--value", value) or ("test_error",),
        tap=tap,
        factors=factors,
        ranks=ranks,
        test=known[test],
    )


def refuse_mixtures(
    by: str,
    sort: str | None,
    accuracy: bool,
    columns: str | None,
    value: str | None,
    ablate: str | None,
    curves: bool,
    published: bool,
    ranks: bool,
) -> None:
    """Raise ``InputError`` on options that belong to another kind of table than the one asked for."""
    from secli.errors import InputError

    flat = [("--by", by != "model"), ("--sort", sort is not None), ("--accuracy", accuracy)]
    for option, given in flat:
        if given:
            raise InputError(f"{option}: belongs to the comparison of one row per model; leave it out here")
    if ablate and curves:
        raise InputError("--ablate and --curves: two kinds of table; give one of them")
    one = "--ablate" if ablate else "--curves" if curves else None
    others = [("--columns", bool(columns))]
    others += [("--value", bool(value))] if curves else []
    others += [("--published", published), ("--ranks", ranks)] if ablate else []
    for option, given in others if one else ():
        if given:
            raise InputError(f"{option}: has no place in the tables of {one}; leave it out")


def print_grid(
    paths: list[Path], spec: TableSpec, ablate: str | None, curves: bool, published: bool, format: str
) -> None:
    """Print pivots, ablations or curves, with what was set aside; for programs, as one document."""
    from secli.errors import InputError
    from secli.tables.ablation import ablation_tables
    from secli.tables.collect import SetAside, collect
    from secli.tables.compare import aside_table, grouped_aside
    from secli.tables.factor_curves import curve_tables
    from secli.tables.pivot import pivot_tables
    from secli.tables.published import load_published
    from secli.tables.render import render
    from secli.tables.render.csv import csv_document
    from secli.tables.render.json import document

    runs, aside = collect(paths)
    if not runs:
        raise InputError(f"nothing to compare, all {len(aside)} results were set aside")
    figures = load_published() if published else None
    tables: list[Table]
    if ablate:
        tables = ablation_tables(runs, aside, _words("--ablate", ablate), spec)
    elif curves:
        tables = curve_tables(runs, aside, spec, figures)
    else:
        tables = pivot_tables(runs, aside, spec, figures)
    left: list[SetAside] = list(dict.fromkeys(aside))
    if format == "json":
        apart = [{"path": one.path, "reason": one.reason} for one in left]
        out_json({**document(tables), "set_aside": apart})
        return
    rest = aside_table(grouped_aside(left))
    width = terminal_width()
    if format != "csv":
        out(render([*tables, *([rest] if rest is not None else [])], format, width))
        return
    out(csv_document(tables) if len(tables) > 1 else render(tables, format), "csv")
    for line in dict.fromkeys(line for table in tables for line in table.notes):
        note(line)
    if rest is not None:
        note("\n" + render(rest, "table", width).rstrip("\n"))
