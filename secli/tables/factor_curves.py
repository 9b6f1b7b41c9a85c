"""Accuracy and Δ at every scale factor: rows of networks, columns of factors, published curves below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from secli.errors import InputError
from secli.tables.belonging import check_facts
from secli.tables.collect import Run, SetAside
from secli.tables.compare import measure_note
from secli.tables.compared import compared_notes
from secli.tables.formats import Table
from secli.tables.grid import Grid, GridColumn, accuracy_factors
from secli.tables.groups import trained_words
from secli.tables.layout import lay_grid
from secli.tables.pivot import Wanted, in_order, planned_key, row_names, sort_runs, split_key
from secli.tables.published import Published
from secli.tables.quantities import Quantity, accuracy_at_factor, delta_at
from secli.tables.readings import common_factors


def curve_tables(
    runs: Sequence[Run],
    aside: list[SetAside],
    wanted: Wanted,
    published: Published | None = None,
    planned: Sequence[Mapping[str, Any]] = (),
) -> list[Table]:
    """Return two tables, accuracy and Δ, with a column for each factor at which all networks were measured.

    Parameters
    ----------
    runs : sequence of Run
        Finished runs.
    aside : list of SetAside
        Takes what enters no row, with the reason.
    wanted : Wanted
        Rows, factors (those at which something has a column; None: all that are common), tap.
    published : Published, optional
        Figures over scale to put below the measured ones.
    planned : sequence of mapping
        As in ``pivot_tables``.

    Raises
    ------
    InputError
        When nothing was measured.
    """
    rows = check_facts(wanted.rows, runs, "fact --rows")
    names = ",".join(rows)
    sorted_runs = sort_runs(
        runs, rows, aside, wanted, (), lambda key: f"'--rows {names},{key}' keeps them apart"
    )
    found = sorted_runs.found
    if found.measure is None:
        raise InputError("--curves: none of the runs was measured; run 'secli equivariance' on them first")
    keys = [split_key(row, len(rows), rows)[0] for row in found.rows]
    lacking = [key for key, _ in (planned_key(one, rows, ()) for one in planned) if key is not None]
    order = in_order([*keys, *lacking], sorted_runs, rows, planned)
    records = [record for row in found.rows for record in row.curves]
    title = wanted.title or f"Curves over {trained_words(found.rows)}"
    apart: list[tuple[str, Callable[[float], Quantity], Sequence[float], str]] = [
        (
            "accuracy (%)",
            accuracy_at_factor,
            accuracy_factors(found.rows, wanted.factors),
            f"Accuracy on {found.measure[3]} images of {found.measured_on} rescaled by s.",
        ),
        (
            "Δ(s)",
            delta_at,
            common_factors(records) if wanted.factors is None else wanted.factors,
            measure_note(found.measure, found.measured_on),
        ),
    ]
    tables = []
    for words, quantity_at, factors, note in apart:
        if not factors:
            continue
        columns = tuple(
            GridColumn(f"s\u00a0=\u00a0{factor:.3g}", quantity_at(factor), {"factor": factor})
            for factor in sorted(factors, reverse=True)
        )
        cells = {
            (order.index(key), place): sorted_runs.fill(row, column.quantity, published)
            for key, row in zip(keys, found.rows, strict=True)
            for place, column in enumerate(columns)
        }
        taps = {key: row.tap for key, row in zip(keys, found.rows, strict=True)}
        is_delta = words.startswith("Δ")
        grid = Grid(
            f"{title}: {words}",
            rows,
            tuple(row_names(key) for key in order),
            columns,
            cells,
            taps=tuple(taps.get(key) for key in order) if is_delta else None,
            said=sorted_runs.said,
            notes=(note, *(compared_notes(found.rows, factors) if is_delta else ()), *sorted_runs.notes),
        )
        tables.append(lay_grid(grid, wanted.ranks, wanted.test))
    return tables
