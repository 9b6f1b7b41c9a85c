"""Rows × columns of quantities: which group of runs stands in which cell."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from secli.errors import InputError
from secli.tables import notes
from secli.tables.belonging import KeepsApart, check_facts, facts
from secli.tables.collect import Run, SetAside
from secli.tables.depth import TapChoice
from secli.tables.frame import samples, tidy
from secli.tables.groups import Group, Summary, averaged, sort_runs
from secli.tables.layout import lay_out
from secli.tables.model_names import published_crossing
from secli.tables.paired_tests import Draw, Test
from secli.tables.published import Kind, Published, Reported, reported
from secli.tables.quantities import Quantity, factors_of, quantity
from secli.tables.readings import check_measured
from secli.tables.statistic import Statistic, statistic
from secli.tables.table import Table

UNTRAINED = " (untrained)"
# facts whose values are names, in no order of their own, and which a heading needs no word for
NAMES = ("model", "label", "tag", "system", "dataset")

Key = tuple[Any, ...]
"""What a row stands for: whether its networks are trained, then its facts."""


@dataclass(frozen=True)
class TableSpec:
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
        Where Δ is read, as :func:`secli.tables.depth.read_taps` takes it; None: at one relative depth of all.
    factors
        Factors that Δ and accuracy are averaged over, or that have a column; None: below 1 for Δ, all for accuracy.
    ranks, test
        Whether to add the mean rank over the columns; the paired test that tells the best from its equals.
    """

    rows: tuple[str, ...] = ("model",)
    columns: tuple[str, ...] = ()
    values: tuple[str, ...] = ("test_error",)
    title: str | None = None
    tap: TapChoice = None
    factors: tuple[float, ...] | None = None
    ranks: bool = False
    test: Test = "t"


@dataclass(frozen=True)
class PivotColumn:
    """A column: its heading, the quantity in it, and the facts that its runs share."""

    title: str
    quantity: Quantity
    facts: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, group: Group) -> bool:
        """Whether a group of runs stands in this column, as far as it was grouped by the column's facts."""
        return all(group.by[key] == value for key, value in self.facts.items() if key in group.by)


@dataclass(frozen=True)
class PivotCell:
    """What one cell holds: the value of each draw, the group of its runs, the published figure of each kind."""

    values: Mapping[Draw, float] = field(default_factory=dict)
    group: Group | None = None
    reported: Mapping[Kind, Reported] = field(default_factory=dict)

    @property
    def statistic(self) -> Statistic:
        """Mean ± standard deviation over the draws."""
        return statistic(self.values.values())

    @property
    def depth(self) -> str | float | None:
        """The relative depth at which its runs are read, or the tap where that was chosen by its name."""
        if self.group is None:
            return None
        return self.group.tap if self.group.read_at.depth is None else self.group.read_at.depth


@dataclass(frozen=True)
class Pivot:
    """A table before it is laid out.

    Attributes
    ----------
    heads, names
        What the names of a row are (``model``, ``model.base``), and those of each (None: it has no such fact).
    cells
        (row, column) to what stands there; what is missing is not in it.
    taps
        The tap of each row at which Δ is read, where that has a column.
    blocks
        Rows among which one is the best, by equal values; none: all are one block.
    dataset_names
        What a reader calls the datasets among the names.
    """

    title: str
    heads: tuple[str, ...]
    names: tuple[tuple[str | None, ...], ...]
    columns: tuple[PivotColumn, ...]
    cells: Mapping[tuple[int, int], PivotCell]
    taps: tuple[str | None, ...] | None = None
    blocks: tuple[Hashable, ...] = ()
    notes: tuple[str, ...] = ()
    dataset_names: Mapping[str, str] = field(default_factory=dict)

    def cell(self, row: int, column: int) -> PivotCell:
        """Return what stands in a cell; an empty one where nothing does."""
        return self.cells.get((row, column), PivotCell())


@dataclass(frozen=True)
class Arrangement:
    """Groups of runs, and the rows that they stand in: what every table of this kind is made from."""

    spec: TableSpec
    heads: tuple[str, ...]
    keys: Sequence[Key]
    groups: Summary
    column_keys: Sequence[Key] = ()
    published: Published | None = None
    notes: tuple[str, ...] = ()

    def table(
        self, title: str, columns: Sequence[PivotColumn], more: Sequence[str] = (), taps: bool = False
    ) -> Table:
        """Return a table of some columns, with notes of its own before those of all, and taps where it needs them."""
        pivot = pivoted(title, self.groups.rows, self.heads, self.keys, columns, taps, self.published)
        pivot = replace(pivot, notes=(*more, *self.notes), dataset_names=self.groups.dataset_names)
        return lay_out(pivot, self.spec.ranks, self.spec.test)


def pivot_tables(
    runs: Sequence[Run],
    aside: list[SetAside],
    spec: TableSpec,
    published: Published | None = None,
    planned: Sequence[Mapping[str, Any]] = (),
) -> list[Table]:
    """Return the pivot of each quantity, or one table with a column per quantity where no columns are named.

    ``aside`` takes the runs that enter no cell, with the reason. ``published`` figures stand below the measured ones.
    ``planned`` are the known facts of runs that a sweep still lacks: they have a row, and a column, without a value.

    Raises
    ------
    UnknownNameError
        On a fact or quantity that does not exist, with the near miss.
    InputError
        When a fact is both row and column, or nothing is left to compare.
    """
    quantities = [quantity(value) for value in spec.values]
    rows = check_facts(spec.rows, runs, "fact --rows")
    columns = check_facts(spec.columns, runs, "fact --columns")
    if both := set(rows) & set(columns):
        raise InputError(f"--columns {min(both)}: is in --rows already")
    arranged = arrange(runs, aside, spec, rows, columns, quantities, published, planned)
    words, own_depths = notes.trained_on(arranged.groups.rows), notes.own_depths(arranged.groups.rows)
    if not columns:
        deltas = [one for one in quantities if one.at_tap]
        curves = next(iter(deltas or [one for one in quantities if one.curves]), None)
        more = [] if curves is None else _delta_notes(curves, arranged.groups, quantities)
        listed = [PivotColumn(one.title, one) for one in quantities]
        title = (spec.title or f"Comparison over {words}") + (own_depths if deltas else "")
        return [arranged.table(title, listed, more, bool(deltas))]
    tables = []
    for one in quantities:
        title = spec.title or f"{one.title[0].upper()}{one.title[1:]} over {words}"
        if len(quantities) > 1 and spec.title is not None:
            title = f"{spec.title}: {one.title}"
        title += own_depths if one.at_tap else ""
        own = [_fact_column(one, columns, key, arranged.groups) for key in arranged.column_keys]
        more = _delta_notes(one, arranged.groups, [one])
        tables.append(arranged.table(title, own, more))
    return tables


def arrange(
    runs: Sequence[Run],
    aside: list[SetAside],
    spec: TableSpec,
    rows: tuple[str, ...],
    columns: tuple[str, ...] = (),
    quantities: Sequence[Quantity] = (),
    published: Published | None = None,
    planned: Sequence[Mapping[str, Any]] = (),
) -> Arrangement:
    """Put runs into groups by the facts of rows and columns, and bring both into order.

    Raises
    ------
    InputError
        When nothing is left, or what was asked for was not measured.
    """
    by = (*rows, *columns)
    option, names = ("--columns", columns) if columns else ("--rows", rows)

    def keeps_apart(key: str) -> str:
        return f"'{option} {','.join((*names, key))}' keeps them apart"

    crossed = "system" in by and not {"model", "net", "label"} & set(by)
    narrowed = _one_crossing(aside, keeps_apart) if crossed else list
    kept, members = sort_runs(runs, by, aside, keeps_apart, narrowed)
    shown = spec.factors if spec.factors is not None else factors_of(quantities) or None
    groups = averaged(members, by, aside, shown, spec.tap, spec.factors)
    if shown and all(one.curves for one in quantities):
        check_measured(shown, [record for group in groups.rows for record in group.curves])
    more = (
        *notes.versions(runs),
        *notes.trainings(groups.rows),
        *(_crossing_notes(groups.rows) if crossed else ()),
    )
    # of runs that are only planned, as far as their facts are known
    row_keys = [row_key(group, rows) for group in groups.rows]
    row_keys += [_key(one, rows, True) for one in planned if set(rows) <= set(one)]
    column_keys = [tuple(group.by[fact] for fact in columns) for group in groups.rows]
    column_keys += [_key(one, columns)[1:] for one in planned if set(columns) <= set(one)]
    # names as they first appear in the sweep, finished or not, else among the runs; trained networks first
    first = [_key(one, rows, True) for one in planned] or [
        _key(facts(run), rows, run.trained) for run in kept
    ]
    in_order = [key for key in ordered([*first, *row_keys], ("trained", *rows)) if key in set(row_keys)]
    return Arrangement(
        spec,
        rows,
        sorted(in_order, key=lambda key: not key[0]),
        groups,
        ordered(column_keys, columns),
        published,
        more,
    )


def pivoted(
    title: str,
    groups: Sequence[Group],
    heads: tuple[str, ...],
    keys: Sequence[Key],
    columns: Sequence[PivotColumn],
    taps: bool = False,
    published: Published | None = None,
) -> Pivot:
    """Put groups into the rows of their keys and the columns that hold them."""
    values = samples(tidy(groups, list({one.quantity.key: one.quantity for one in columns}.values())))
    own_tap = {row_key(group, heads): group.tap for group in groups}
    cells = {}
    for index, group in enumerate(groups):
        row = keys.index(row_key(group, heads))
        entries = reported(group, published) if published is not None else []
        for at, column in enumerate(columns):
            if column.holds(group):
                figures: dict[Kind, Reported] = {}
                for one in entries:
                    if one.value(column.quantity) is not None:
                        figures.setdefault(one.source.kind, one)
                cells[row, at] = PivotCell(values.get((index, column.quantity.key), {}), group, figures)
    names = tuple(row_names(key) for key in keys)
    tap_of = tuple(own_tap.get(key) for key in keys) if taps else None
    return Pivot(title, heads, names, tuple(columns), cells, tap_of)


def row_key(group: Group, heads: Sequence[str]) -> Key:
    """Return the key of the row that a group stands in."""
    return _key(group.by, heads, group.trained)


def _key(known: Mapping[str, Any], heads: Sequence[str], trained: bool = True) -> Key:
    return (trained, *(known.get(fact) for fact in heads))


def row_names(key: Key) -> tuple[str | None, ...]:
    """Return the names of a row; an untrained network says so."""
    names = [None if part is None else str(part) for part in key[1:]]
    if not key[0] and names:
        names[0] = (names[0] or "") + UNTRAINED
    return tuple(names)


def ordered(keys: Sequence[Key], heads: Sequence[str]) -> list[Key]:
    """Order rows or columns: names as they first appear, all other facts by value, what is unset first."""
    unique = list(dict.fromkeys(keys))
    ranks: list[dict[Any, int]] = []
    for index, fact in enumerate(heads):
        values = list(dict.fromkeys(key[index] for key in unique))
        if fact not in NAMES:
            values.sort(key=_value_order)
        ranks.append({value: rank for rank, value in enumerate(values)})
    return sorted(unique, key=lambda key: tuple(rank[part] for rank, part in zip(ranks, key, strict=False)))


def _value_order(value: Any) -> tuple[int, float, str]:
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, 0.0, str(value)


def _fact_column(one: Quantity, columns: Sequence[str], key: Key, groups: Summary) -> PivotColumn:
    known = dict(zip(columns, key, strict=True))
    words = [_fact_text(fact, groups.dataset_names.get(value, value)) for fact, value in known.items()]
    return PivotColumn(", ".join(words), one, known)


def _fact_text(fact: str, value: Any) -> str:
    """Return a fact as a heading names it.

    Examples
    --------
    >>> _fact_text("augment", "none"), _fact_text("model.base", 1.5), _fact_text("label", "CNN")
    ('augment none', 'base 1.5', 'CNN')
    """
    if fact == "size":  # a network of any size does not tell which one it was given
        return "size unknown" if value is None else f"{value}\u00a0px"
    if fact in NAMES and value is not None:
        return str(value)
    return f"{fact.removeprefix('model.')} {'unset' if value is None else value}"


def _one_crossing(aside: list[SetAside], keeps_apart: KeepsApart) -> Callable[[list[Run]], list[Run]]:
    """Return what keeps the published crossing of net and augmentation, where a cell of one system holds several."""

    def narrowed(group: list[Run]) -> list[Run]:
        known = [facts(run) for run in group]
        published = [
            published_crossing(run.model.name, one["augment"]) for run, one in zip(group, known, strict=True)
        ]
        if len({one["net"] for one in known}) < 2 or not any(published):
            return group
        for run, one, kept in zip(group, known, published, strict=True):
            if not kept:
                what = f"net {one['net']} with augment {one['augment']}"
                reason = f"{what} is not the published crossing; {keeps_apart('net')}"
                aside.append(SetAside(str(run.path), reason))
        return [run for run, kept in zip(group, published, strict=True) if kept]

    return narrowed


def _crossing_notes(groups: Sequence[Group]) -> list[str]:
    trained = [
        (group.model.name, (group.settings or {}).get("augment")) for group in groups if group.settings
    ]
    odd = [
        f"{model} with augment {augment}"
        for model, augment in trained
        if not published_crossing(model, augment)
    ]
    return [f"Not the published crossing of net and augmentation: {'; '.join(odd)}."] if odd else []


def _delta_notes(one: Quantity, groups: Summary, shown: Sequence[Quantity]) -> list[str]:
    """Say how a quantity of the curves was measured, and over which factors it is a mean."""
    if not one.curves or groups.measure is None:
        return []
    if one.key.startswith("accuracy"):
        over = ", ".join(f"{f:.3g}" for f in groups.accuracy_factors)
        mean = "" if one.factor is not None else f": mean over s = {over}"
        return [f"Accuracy on {groups.measure[3]} images of {groups.measured_on} rescaled by s{mean}."]
    factors: list[float] = []
    for each in shown:
        if each.key.startswith("delta"):
            factors += groups.mean_factors if each.factor is None else (each.factor,)
    found = [notes.measured(groups.measure, groups.measured_on)]
    if any(each.at_tap for each in shown):
        found += [*notes.taps(groups.rows), *notes.little_compared(groups.rows, factors)]
    if any(each.key == "delta_logits" for each in shown):
        found.append(notes.AT_LOGITS)
    if one.factor is None:
        over = ", ".join(f"{f:.3g}" for f in groups.mean_factors)
        found.append(
            f"Δ: mean of Δ(s) over s = {over}, as far as all rows could measure them; within 2 % is one."
            if over
            else "Δ: a mean over factors other than 1, none of which all rows could measure."
        )
    return found
