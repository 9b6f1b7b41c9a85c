"""``secli compare``: runs and results side by side, one row per model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secli.cli.console import note, out

if TYPE_CHECKING:
    from secli.tables.formats import Table
    from secli.tables.pivot import Wanted

PIVOT = "Rows and columns"


def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="(RUN|RESULT.json)...",
            help="Run directories, directories that hold runs at any depth, or record files.",
            show_default=False,
        ),
    ],
    by: Annotated[
        str,
        typer.Option(
            help="What makes a row, comma-separated: model, options, dataset, augment, seed, realisation, any training "
            "setting (epochs, lr, ...), or an option of the model (model.base). The model is always part of it."
        ),
    ] = "model",
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="Put published figures beside the measured ones, with their sources."
        ),
    ] = False,
    sort: Annotated[
        str | None,
        typer.Option(
            help="Column to sort by: model, error, delta, parameters, time, n, delta_0.5, ...; a '-' before it sorts "
            "from the largest (--sort=-error). Default: the order given."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="table, markdown, latex (booktabs), csv or json.")] = "table",
    factors: Annotated[
        str | None,
        typer.Option(
            help="Scale factors whose Δ gets a column, as 0.5,0.8 or LOW:HIGH:COUNT. Default: those measured nearest "
            "to 0.5 and 0.8."
        ),
    ] = None,
    tap: Annotated[
        str | None,
        typer.Option(
            help="Tap at which Δ is read. Default: each network's deepest spatial tap that can be measured."
        ),
    ] = None,
    accuracy: Annotated[
        bool,
        typer.Option("--accuracy", help="Also the accuracy (%) on images rescaled by each of the factors."),
    ] = False,
    rows: Annotated[
        str | None,
        typer.Option(
            help="What makes a row, comma-separated: model, label, system, net (plain or p), "
            "tag, or whatever --by takes. \\[default: model]",
            show_default=False,
            rich_help_panel=PIVOT,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="What makes a column: size (pixels the network sees), augment, lr, dataset, ...; none: one column "
            "per quantity.",
            show_default=False,
            rich_help_panel=PIVOT,
        ),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            help="Quantities: test_error, test_accuracy, delta, delta_0.5, accuracy, accuracy_0.5, parameters, ... "
            "\\[default: test_error]",
            show_default=False,
            rich_help_panel=PIVOT,
        ),
    ] = None,
    ranks: Annotated[
        bool, typer.Option("--ranks", help="Also the mean rank over the columns.", rich_help_panel=PIVOT)
    ] = False,
    test: Annotated[
        str,
        typer.Option(
            metavar="t|wilcoxon",
            help="Paired test over (realisation, seed) that tells the best of a column from its equals.",
            rich_help_panel=PIVOT,
        ),
    ] = "t",
    ablate: Annotated[
        str | None,
        typer.Option(
            metavar="KEY,...",
            help="One table per parameter (model.base, lr, ...): its values, all else at the base configuration.",
            show_default=False,
            rich_help_panel=PIVOT,
        ),
    ] = None,
    curves: Annotated[
        bool,
        typer.Option(
            "--curves", help="Accuracy and Δ at every scale factor, a column each.", rich_help_panel=PIVOT
        ),
    ] = False,
) -> None:
    """Compare runs: mean ± standard deviation over realisations and seeds, one row per model.

    With --rows or --columns, a table of rows and columns; with --ablate, one parameter at a time; with --curves,
    scale factors. There, the best of a column is marked, and those that a paired test cannot tell from it.

    Test error in per cent (fractions in JSON), equivariance error Δ where 'secli equivariance' measured it,
    parameters and training time in seconds. Runs that failed or do not belong together are listed with the reason.
    """
    from shutil import get_terminal_size

    from secli.config import parse_factors
    from secli.tables.aggregate import summarise
    from secli.tables.comparison import compare as lay_out
    from secli.tables.formats import check_format, dump_json, render
    from secli.tables.published import load_published

    check_format(format)
    chosen = None if factors is None else parse_factors(factors)
    if rows or columns or value or ranks or ablate or curves or test != "t":
        _refuse(by, sort, accuracy, columns, value, ablate, curves, published, ranks)
        _print_grid(
            paths, _wanted(rows, columns, value, tap, chosen, ranks, test), ablate, curves, published, format
        )
        return
    groups = [key.strip() for key in by.split(",") if key.strip()]
    summary = summarise(paths, groups, chosen, tap)
    comparison = lay_out(summary, load_published() if published else None, sort, accuracy)
    width = get_terminal_size((100, 24)).columns
    aside = [comparison.set_aside] if comparison.set_aside is not None else []
    if format not in ("csv", "json"):
        out(render([comparison.main, *comparison.others, *aside], format, width))
        return
    # one table only on stdout, for programs; the rest is for the person at the terminal
    out(dump_json(comparison.as_json()) if format == "json" else render(comparison.main, format))
    for line in comparison.main.notes:
        note(line)
    for table in (*comparison.others, *aside):
        note("\n" + render(table, "table", width).rstrip("\n"))


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(key.strip() for key in (text or "").split(",") if key.strip())


def _wanted(
    rows: str | None,
    columns: str | None,
    value: str | None,
    tap: str | None,
    factors: tuple[float, ...] | None,
    ranks: bool,
    test: str,
) -> Wanted:
    from secli.errors import UnknownNameError
    from secli.tables.paired import TESTS
    from secli.tables.pivot import Wanted

    known = {name: name for name in TESTS}
    if test not in known:
        raise UnknownNameError("test --test", test, TESTS)
    return Wanted(
        rows=_words(rows) or ("model",),
        columns=_words(columns),
        values=_words(value) or ("test_error",),
        tap=tap,
        factors=factors,
        ranks=ranks,
        test=known[test],
    )


def _refuse(
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
    """Raise on options that belong to another kind of table than the one asked for."""
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


def _print_grid(
    paths: list[Path], wanted: Wanted, ablate: str | None, curves: bool, published: bool, format: str
) -> None:
    """Print pivots, ablations or curves, with what was set aside; for programs, as one document."""
    from shutil import get_terminal_size

    from secli.errors import InputError
    from secli.tables.ablation import ablation_tables
    from secli.tables.collect import SetAside, collect
    from secli.tables.comparison import aside_table
    from secli.tables.factor_curves import curve_tables
    from secli.tables.formats import csv_document, document, dump_json, render
    from secli.tables.pivot import pivot_tables
    from secli.tables.published import load_published

    runs, aside = collect(paths)
    if not runs:
        raise InputError(f"nothing to compare, all {len(aside)} results were set aside")
    figures = load_published() if published else None
    tables: list[Table]
    if ablate:
        tables = ablation_tables(runs, aside, _words(ablate), wanted)
    elif curves:
        tables = curve_tables(runs, aside, wanted, figures)
    else:
        tables = pivot_tables(runs, aside, wanted, figures)
    left: list[SetAside] = list(dict.fromkeys(aside))
    if format == "json":
        apart = [{"path": one.path, "reason": one.reason} for one in left]
        out(dump_json({**document(tables), "set_aside": apart}))
        return
    rest = aside_table(left)
    width = get_terminal_size((100, 24)).columns
    if format != "csv":
        out(render([*tables, *([rest] if rest is not None else [])], format, width))
        return
    out(csv_document(tables) if len(tables) > 1 else render(tables, format))
    for line in dict.fromkeys(line for table in tables for line in table.notes):
        note(line)
    if rest is not None:
        note("\n" + render(rest, "table", width).rstrip("\n"))
