"""``secli compare``: runs and results side by side, one row per model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from secli.cli.console import names, note, out, terminal_width
from secli.cli.options import TABLES, Depth, Published, argument, format_option, option

of_pivot = partial(option, panel="Rows and columns")


def compare(
    paths: Annotated[
        list[Path],
        argument(
            "(RUN|RESULT.json)...",
            "Run directories, directories that hold runs at any depth, or record files.",
        ),
    ],
    by: Annotated[
        str,
        option(
            "What makes a row, comma-separated: model, options, dataset, augment, seed, realisation, any training "
            "setting (epochs, lr, ...), or an option of the model (model.base). The model is always part of it.",
            default=True,
        ),
    ] = "model",
    published: Published = False,
    sort: Annotated[
        str | None,
        option(
            "Column to sort by: model, error, delta, parameters, time, n, delta_0.5, ...; a '-' before it sorts "
            "from the largest (--sort=-error).",
            default="the order given",
        ),
    ] = None,
    format: Annotated[str, format_option(*TABLES)] = "table",
    factors: Annotated[
        str | None,
        option(
            "Scale factors whose Δ gets a column, as 0.5,0.8 or LOW:HIGH:COUNT.",
            default="those measured nearest to 0.5 and 0.8",
        ),
    ] = None,
    tap: Annotated[
        str | None,
        option(
            "Tap at which Δ is read; 'deepest': the deepest of each network by itself, which do not compare.",
            default="at --depth",
        ),
    ] = None,
    depth: Depth = None,
    accuracy: Annotated[
        bool, option("Also the accuracy (%) on images rescaled by each of the factors.", "--accuracy")
    ] = False,
    rows: Annotated[
        str | None,
        of_pivot(
            "What makes a row, comma-separated: model, label, system, net (plain or p), tag, or whatever --by takes.",
            default="model",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        of_pivot(
            "What makes a column: size (pixels the network sees), augment, lr, dataset, ...; none: one column "
            "per quantity."
        ),
    ] = None,
    value: Annotated[
        str | None,
        of_pivot(
            "Quantities: test_error, test_accuracy, delta, delta_0.5, accuracy, accuracy_0.5, parameters, ...",
            default="test_error",
        ),
    ] = None,
    ranks: Annotated[bool, of_pivot("Also the mean rank over the columns.", "--ranks")] = False,
    test: Annotated[
        str,
        of_pivot(
            "Paired test over (realisation, seed) that tells the best of a column from its equals.",
            default=True,
            metavar="t|wilcoxon",
        ),
    ] = "t",
    ablate: Annotated[
        str | None,
        of_pivot(
            "One table per parameter (model.base, lr, ...): its values, all else at the base configuration.",
            metavar="KEY,...",
        ),
    ] = None,
    curves: Annotated[
        bool, of_pivot("Accuracy and Δ at every scale factor, a column each.", "--curves")
    ] = False,
) -> None:
    """Compare runs: mean ± standard deviation over realisations and seeds, one row per model.

    With --rows or --columns, a table of rows and columns; with --ablate, one parameter at a time; with --curves,
    scale factors. There, the best of a column is marked, and those that a paired test cannot tell from it.

    Test error in per cent (fractions in JSON), equivariance error Δ where 'secli equivariance' measured it,
    parameters and training time in seconds. Runs that failed or do not belong together are listed with the reason.
    """
    from secli.config import merged, parse_factors
    from secli.errors import InputError
    from secli.tables.compare import compare as lay_out
    from secli.tables.groups import summarise
    from secli.tables.published import load_published
    from secli.tables.render import render
    from secli.tables.render.json import dump_json

    if tap is not None and depth is not None:
        raise InputError("--depth: --tap names the tap already; give one of the two")
    where = depth if tap is None else tap
    chosen = None if factors is None else merged(parse_factors(factors))
    if any(text is not None for text in (rows, columns, value, ablate)) or ranks or curves or test != "t":
        from secli.cli.compare_grid import print_grid, refuse_mixtures, table_spec

        refuse_mixtures(by, sort, accuracy, columns, value, ablate, curves, published, ranks)
        spec = table_spec(rows, columns, value, where, chosen, ranks, test)
        print_grid(paths, spec, ablate, curves, published, format)
        return
    groups = names("--by", by)
    summary = summarise(paths, groups, chosen, where)
    comparison = lay_out(summary, load_published() if published else None, sort, accuracy)
    width = terminal_width()
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
