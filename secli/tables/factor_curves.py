"""Accuracy and Δ at every scale factor: rows of networks, columns of factors, published curves below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secli.errors import InputError
from secli.tables import notes
from secli.tables.belonging import check_facts
from secli.tables.collect import Run, SetAside
from secli.tables.pivot import PivotColumn, TableSpec, arrange
from secli.tables.published import Published
from secli.tables.quantities import Quantity, accuracy_at_factor, delta_at
from secli.tables.readings import common_factors
from secli.tables.table import Table


def curve_tables(
    runs: Sequence[Run],
    aside: list[SetAside],
    spec: TableSpec,
    published: Published | None = None,
    planned: Sequence[Mapping[str, Any]] = (),
) -> list[Table]:
    """Return two tables, accuracy and Δ, with a column for each factor at which all networks were measured.

    The arguments are those of ``pivot_tables``; the factors that have a column are those of ``spec``, if any.

    Raises
    ------
    InputError
        When nothing was measured.
    """
    rows = check_facts(spec.rows, runs, "fact --rows")
    arranged = arrange(runs, aside, spec, rows, published=published, planned=planned)
    groups = arranged.groups
    if groups.measure is None:
        raise InputError("--curves: none of the runs was measured; run 'secli equivariance' on them first")
    title = spec.title or f"Curves over {notes.trained_on(groups.rows)}"
    factors = spec.factors or common_factors([record for group in groups.rows for record in group.curves])
    on = f"{groups.measure[3]} images of {groups.measured_on}"
    tables = []
    if groups.accuracy_factors:
        columns = [_column(accuracy_at_factor(f), f) for f in sorted(groups.accuracy_factors, reverse=True)]
        note = f"Accuracy on {on} rescaled by s."
        tables.append(arranged.table(f"{title}: accuracy (%)", columns, [note]))
    if factors:
        columns = [_column(delta_at(f), f) for f in sorted(factors, reverse=True)]
        more = [notes.measured(groups.measure, groups.measured_on)]
        more += notes.taps(groups.rows)
        more += notes.little_compared(groups.rows, factors)
        tables.append(
            arranged.table(f"{title}: Δ(s){notes.own_depths(groups.rows)}", columns, more, taps=True)
        )
    return tables


def _column(quantity: Quantity, factor: float) -> PivotColumn:
    return PivotColumn(f"s\u00a0=\u00a0{factor:.3g}", quantity, {"factor": factor})
