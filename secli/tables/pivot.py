"""Rows × columns of a quantity: which runs belong into which cell, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secli.errors import InputError
from secli.tables.belonging import (
    KeepsApart,
    check_facts,
    facts,
    named_apart,
    same_data,
    same_protocol,
)
from secli.tables.collect import Run, SetAside
from secli.tables.compare import measure_note
from secli.tables.compared import compared_notes
from secli.tables.formats import Table
from secli.tables.grid import (
    Grid,
    GridCell,
    GridColumn,
    accuracy_factors,
    fact_text,
    filled,
    ordered,
)
from secli.tables.groups import (
    Row,
    Rows,
    check_left,
    rows_of,
    trained_words,
    training_notes,
    version_notes,
)
from secli.tables.layout import lay_grid
from secli.tables.model_names import published_crossing
from secli.tables.paired_tests import Test
from secli.tables.published import Published
from secli.tables.quantities import Quantity, factors_of, quantity
from secli.tables.readings import check_measured

UNTRAINED = " (untrained)"
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Wanted:
    """What a table shall hold.

    Attributes
    ----------
    rows, columns
        Facts of runs; without columns there is one column per quantity.
    values
        Quantities; with columns, one table for each.
    title
        Caption; None: made from the quantity and the data.
    tap
        Where Δ is read; None: each network's deepest spatial tap.
    factors
        Scale factors that Δ and accuracy are averaged over, or that have a column; None: those below 1 for Δ, all
        for accuracy, as far as all rows have them.
    ranks
        Whether to add the mean rank over the columns.
    test
        Paired test that tells the best from its equals.
    """

    rows: tuple[str, ...] = ("model",)
    columns: tuple[str, ...] = ()
    values: tuple[str, ...] = ("test_error",)
    title: str | None = None
    tap: str | None = None
    factors: tuple[float, ...] | None = None
    ranks: bool = False
    test: Test = "t"

    @property
    def by(self) -> tuple[str, ...]:
        """Facts of the rows, then of the columns."""
        return (*self.rows, *self.columns)


@dataclass(frozen=True)
class Sorted:
    """Runs as rows of cells: what every table of this kind starts from."""

    found: Rows
    by: tuple[str, ...]
    order: tuple[Run, ...]
    accuracy_factors: tuple[float, ...]
    notes: tuple[str, ...]

    @property
    def said(self) -> dict[Any, str]:
        """What a reader calls the datasets, by their names."""
        return {row.data: row.data_called for row in self.found.rows if row.data_called is not None}

    def fill(self, row: Row, one: Quantity, published: Published | None) -> GridCell:
        """Return the cell of one group of runs."""
        return filled(row, one, self.found, self.accuracy_factors, published)


def pivot_tables(
    runs: Sequence[Run],
    aside: list[SetAside],
    wanted: Wanted,
    published: Published | None = None,
    planned: Sequence[Mapping[str, Any]] = (),
) -> list[Table]:
    """Return the pivot of each quantity, or one table with a column per quantity where no columns are named.

    Parameters
    ----------
    runs : sequence of Run
        Finished runs.
    aside : list of SetAside
        Takes what enters no cell, with the reason.
    wanted : Wanted
        Rows, columns, quantities.
    published : Published, optional
        Figures to put below the measured ones.
    planned : sequence of mapping
        What is known of runs that a sweep still lacks: they have a row, and a column, although nothing stands in it.

    Raises
    ------
    UnknownNameError
        On a fact or quantity that does not exist, with the near miss.
    InputError
        When a fact is both row and column, or nothing is left to compare.
    """
    quantities = [quantity(value) for value in wanted.values]
    rows = check_facts(wanted.rows, runs, "fact --rows")
    columns = check_facts(wanted.columns, runs, "fact --columns")
    both = set(rows) & set(columns)
    if both:
        raise InputError(f"--columns {min(both)}: is in --rows already")
    option = "--columns" if columns else "--rows"
    names = ",".join(columns or rows)
    sorted_runs = sort_runs(
        runs,
        (*rows, *columns),
        aside,
        wanted,
        quantities,
        lambda key: f"'{option} {names},{key}' keeps them apart",
    )
    keys = [split_key(row, len(rows), sorted_runs.by) for row in sorted_runs.found.rows]
    lacking = [planned_key(one, rows, columns) for one in planned]
    row_keys = in_order(
        [*(key for key, _ in keys), *(key for key, _ in lacking if key)], sorted_runs, rows, planned
    )
    column_keys = ordered([*(key for _, key in keys), *(key for _, key in lacking if key)], columns)
    if not columns:
        listed = _list_grid(wanted, sorted_runs, rows, row_keys, keys, quantities, published)
        return [lay_grid(listed, wanted.ranks, wanted.test)]
    tables = []
    for one in quantities:
        grid_columns = tuple(
            GridColumn(
                ", ".join(
                    fact_text(fact, sorted_runs.said.get(value, value))
                    for fact, value in zip(columns, key, strict=True)
                ),
                one,
                dict(zip(columns, key, strict=True)),
            )
            for key in column_keys
        )
        cells = {}
        for (row_key, column_key), row in zip(keys, sorted_runs.found.rows, strict=True):
            place = row_keys.index(row_key), column_keys.index(column_key)
            cells[place] = sorted_runs.fill(row, one, published)
        title = _title(wanted, one, sorted_runs.found)
        if len(quantities) > 1 and wanted.title is not None:
            title = f"{wanted.title}: {one.title}"
        grid = Grid(
            title,
            rows,
            tuple(row_names(key) for key in row_keys),
            grid_columns,
            cells,
            notes=(*_delta_notes(one, sorted_runs, (one,), True), *sorted_runs.notes),
            said=sorted_runs.said,
        )
        tables.append(lay_grid(grid, wanted.ranks, wanted.test))
    return tables


def sort_runs(
    runs: Sequence[Run],
    by: tuple[str, ...],
    aside: list[SetAside],
    wanted: Wanted,
    quantities: Sequence[Quantity],
    keeps_apart: KeepsApart,
) -> Sorted:
    """Put the runs into groups by facts and keep what belongs together in each.

    Raises
    ------
    InputError
        When nothing is left.
    """
    apart = named_apart(runs, by)
    kept = same_data(apart, by, aside, keeps_apart)
    groups: dict[Key, list[Run]] = {}
    for run in kept:
        known = facts(run)
        groups.setdefault((run.trained, *(known.get(key) for key in by)), []).append(run)
    mixes = "system" in by and not {"model", "net", "label"} & set(by)
    members = []
    for group in groups.values():
        same = _one_crossing(group, aside, keeps_apart) if mixes else group
        members.append(same_protocol(same, by, aside, keeps_apart))
    check_left(members, aside)
    shown = wanted.factors if wanted.factors is not None else factors_of(quantities) or None
    found = rows_of(members, by, aside, shown, wanted.tap, wanted.factors)
    if shown and all(one.curves for one in quantities):
        check_measured(shown, [record for row in found.rows for record in row.curves])
    notes = (
        *version_notes(runs),
        *training_notes(found.rows),
        *(_crossing_notes(found.rows) if mixes else ()),
    )
    return Sorted(found, by, tuple(kept), accuracy_factors(found.rows, wanted.factors), notes)


def _one_crossing(group: Sequence[Run], aside: list[SetAside], keeps_apart: KeepsApart) -> list[Run]:
    """Keep the published crossing of net and augmentation where a cell of one system holds several."""

    def published(run: Run) -> bool:
        known = facts(run)
        return published_crossing(run.model.name, known["augment"])

    if len({facts(run)["net"] for run in group}) < 2 or not any(published(run) for run in group):
        return list(group)
    for run in group:
        if not published(run):
            known = facts(run)
            aside.append(
                SetAside(
                    str(run.path),
                    f"net {known['net']} with augment {known['augment']} is not the published crossing; "
                    f"{keeps_apart('net')}",
                )
            )
    return [run for run in group if published(run)]


def _crossing_notes(rows: Sequence[Row]) -> list[str]:
    odd = [
        row for row in rows if row.settings and not published_crossing(row.model, row.settings.get("augment"))
    ]
    if not odd:
        return []
    said = "; ".join(f"{row.model} with augment {(row.settings or {}).get('augment')}" for row in odd)
    return [f"Not the published crossing of net and augmentation: {said}."]


def split_key(row: Row, rows: int, by: Sequence[str]) -> tuple[Key, Key]:
    """Return the key of a row (whether trained, and its facts) and of a column."""
    values = [row.by[key] for key in by]
    return (row.trained, *values[:rows]), tuple(values[rows:])


def row_names(key: Key) -> tuple[str | None, ...]:
    """Return the names of a row; an untrained network says so."""
    names = [None if part is None else str(part) for part in key[1:]]
    if not key[0] and names:
        names[0] = (names[0] or "") + UNTRAINED
    return tuple(names)


def in_order(
    keys: Sequence[Key], sorted_runs: Sorted, rows: Sequence[str], planned: Sequence[Mapping[str, Any]]
) -> list[Key]:
    """Order rows as their names first appear among the runs, trained networks first, planned ones as in their sweep."""
    if planned:  # a sweep's own order, finished or not
        first = [(True, *(one.get(fact) for fact in rows)) for one in planned]
    else:
        first = []
        for run in sorted_runs.order:
            known = facts(run)
            first.append((run.trained, *(known.get(fact) for fact in rows)))
    ranked = ordered([*first, *keys], ("trained", *rows))
    return sorted((key for key in ranked if key in set(keys)), key=lambda key: not key[0])


def planned_key(
    one: Mapping[str, Any], rows: Sequence[str], columns: Sequence[str]
) -> tuple[Key | None, Key | None]:
    """Return the row and the column of a run that is only planned, as far as its facts are known."""
    row = (True, *(one[fact] for fact in rows)) if all(fact in one for fact in rows) else None
    column = tuple(one[fact] for fact in columns) if all(fact in one for fact in columns) else None
    return row, column


def _list_grid(
    wanted: Wanted,
    sorted_runs: Sorted,
    rows: tuple[str, ...],
    row_keys: Sequence[Key],
    keys: Sequence[tuple[Key, Key]],
    quantities: Sequence[Quantity],
    published: Published | None,
) -> Grid:
    """Return one row per group of runs, one column per quantity."""
    cells = {}
    taps: dict[Key, str | None] = {}
    for (row_key, _), row in zip(keys, sorted_runs.found.rows, strict=True):
        taps[row_key] = row.tap
        for place, one in enumerate(quantities):
            cells[row_keys.index(row_key), place] = sorted_runs.fill(row, one, published)
    deltas = [one for one in quantities if one.key.startswith("delta")]
    curves = next(iter(deltas or [one for one in quantities if one.curves]), None)
    return Grid(
        wanted.title or f"Comparison over {trained_words(sorted_runs.found.rows)}",
        rows,
        tuple(row_names(key) for key in row_keys),
        tuple(GridColumn(one.title, one) for one in quantities),
        cells,
        taps=tuple(taps.get(key) for key in row_keys) if deltas else None,
        notes=(*(_delta_notes(curves, sorted_runs, quantities, False) if curves else ()), *sorted_runs.notes),
        said=sorted_runs.said,
    )


def _title(wanted: Wanted, one: Quantity, found: Rows) -> str:
    if wanted.title is not None:
        return wanted.title
    return f"{one.title[0].upper()}{one.title[1:]} over {trained_words(found.rows)}"


def _factors(one: Quantity, found: Rows) -> tuple[float, ...]:
    return found.mean_factors if one.factor is None else (one.factor,)


def _delta_notes(
    one: Quantity, sorted_runs: Sorted, columns: Sequence[Quantity], say_taps: bool
) -> list[str]:
    found = sorted_runs.found
    if not one.curves or found.measure is None:
        return []
    if one.key.startswith("accuracy"):
        over = ", ".join(f"{f:.3g}" for f in sorted_runs.accuracy_factors)
        mean = "" if one.factor is not None else f": mean over s = {over}"
        return [f"Accuracy on {found.measure[3]} images of {found.measured_on} rescaled by s{mean}."]
    notes = [measure_note(found.measure, found.measured_on)]
    at = [factor for one in columns if one.at_tap for factor in _factors(one, found)]
    notes += compared_notes(found.rows, at)
    if one.factor is None:
        over = ", ".join(f"{f:.3g}" for f in found.mean_factors)
        notes.append(
            f"Δ: mean of Δ(s) over s = {over}, as far as all rows could measure them; within 2 % is one."
            if over
            else "Δ: a mean over factors other than 1, none of which all rows could measure."
        )
    if say_taps:
        taps: dict[str, list[str]] = {}
        for row in found.rows:
            if row.tap is not None:
                taps.setdefault(row.tap, []).append(row.label)
        said = "; ".join(f"{tap} ({', '.join(dict.fromkeys(names))})" for tap, names in taps.items())
        if len(taps) == 1:
            said = f"{next(iter(taps))} in every network"
        notes += [f"Tap: {said}."] if said else []
    return notes
