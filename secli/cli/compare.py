"""``secli compare``: runs and results side by side, one row per model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secli.cli.console import names, note, out

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

    from secli.config import merged, parse_factors
    from secli.tables.compare import compare as lay_out
    from secli.tables.groups import summarise
    from secli.tables.published import load_published
    from secli.tables.render import check_format, render
    from secli.tables.render.json import dump_json

    check_format(format)
    chosen = None if factors is None else merged(parse_factors(factors))
    if any(text is not None for text in (rows, columns, value, ablate)) or ranks or curves or test != "t":
        from secli.cli.compare_grid import print_grid, refuse_mixtures, wanted_table

        refuse_mixtures(by, sort, accuracy, columns, value, ablate, curves, published, ranks)
        wanted = wanted_table(rows, columns, value, tap, chosen, ranks, test)
        print_grid(paths, wanted, ablate, curves, published, format)
        return
    groups = names("--by", by)
    summary = summarise(paths, groups, chosen, tap)
    comparison = lay_out(summary, load_published() if published else None, sort, accuracy)
    width = get_terminal_size((100, 24)).columns
    aside = [comparison.set_aside] if comparison.set_aside is not None else []
    if format not in ("csv", "json"):
        out(render([comparison.main, *comparison.others, *aside], format, width))
        return
    # one table only on stdout, for programs; the rest is for the person at the terminal
    out(dump_json(comparison.as_json()) if format == "json" else render(comparison.main, format), format)
    for line in comparison.notes:
        note(line)
    for table in (*comparison.others, *aside):
        note("\n" + render(table, "table", width).rstrip("\n"))
