"""Rows × columns of quantities, as numbers: what a pivot, an ablation and curves at factors have in common."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secli.tables.beside import Beside, beside
from secli.tables.collect import Run
from secli.tables.groups import Row, Rows
from secli.tables.paired_tests import Draw
from secli.tables.published import Published
from secli.tables.quantities import Quantity, Reading
from secli.tables.readings import common_factors, same_factor
from secli.tables.statistic import NOTHING, Statistic, statistic


@dataclass(frozen=True)
class GridColumn:
    """A column: its heading, the quantity in it, and the facts that its runs share."""

    title: str
    quantity: Quantity
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GridCell:
    """What one cell holds: the value of each draw, published figures, the directories of its runs, the tap of Δ."""

    values: Mapping[Draw, float]
    beside: tuple[Beside, ...]
    runs: tuple[str, ...]
    tap: str | None = None

    @property
    def statistic(self) -> Statistic:
        """Mean ± standard deviation over the draws."""
        return statistic(self.values.values())


EMPTY = GridCell({}, (), ())


@dataclass(frozen=True)
class Grid:
    """A table before it is laid out.

    Attributes
    ----------
    title
        Caption.
    heads
        What the names of a row are: ``model``, ``model.base``.
    names
        The names of each row; None where a network has no such fact.
    columns
        The columns.
    cells
        (row, column) to what stands there; what is missing is not in it.
    taps
        The tap of each row at which Δ is read, where that has a column.
    blocks
        Rows of one block are compared with each other; none: all are.
    notes
        What a reader must know.
    said
        What a reader calls the datasets among the names.
    """

    title: str
    heads: tuple[str, ...]
    names: tuple[tuple[str | None, ...], ...]
    columns: tuple[GridColumn, ...]
    cells: Mapping[tuple[int, int], GridCell]
    taps: tuple[str | None, ...] | None = None
    blocks: tuple[Hashable, ...] | None = None
    notes: tuple[str, ...] = ()
    said: Mapping[str, str] = field(default_factory=dict)

    def name(self, row: int) -> str:
        """Return the names of a row in a sentence."""
        return ", ".join(self.said.get(part, part) for part in self.names[row] if part is not None)

    def cell(self, row: int, column: int) -> GridCell:
        """Return what stands in a cell; an empty one where nothing does."""
        return self.cells.get((row, column), EMPTY)

    def statistic(self, row: int, column: int) -> Statistic:
        """Return the mean ± standard deviation of a cell."""
        return self.cells[row, column].statistic if (row, column) in self.cells else NOTHING


def draw(run: Run) -> Draw:
    """Return what pairs two runs: the images, the realisation, the seed."""
    data = run.trained_on
    if data is None and run.curves is not None:
        data = run.curves.data
    return (data.digest if data is not None else None, run.realisation, run.seed)


def filled(
    row: Row,
    quantity: Quantity,
    found: Rows,
    accuracy_factors: Sequence[float],
    published: Published | None = None,
) -> GridCell:
    """Return the cell of a row of runs."""
    reading = Reading(row.tap, found.mean_factors, tuple(accuracy_factors))
    values = {}
    for run in row.members:
        value = statistic([quantity.read(run, reading)]).mean
        if value is not None:
            values[draw(run)] = value
    if (
        quantity.key == "delta" and row.delta.mean is None
    ):  # a mean that only some of the runs could give is none
        values = {}
    return GridCell(values, beside(row, quantity, published), row.runs, row.tap if quantity.at_tap else None)


def accuracy_factors(rows: Sequence[Row], wanted: Sequence[float] | None) -> tuple[float, ...]:
    """Return the factors at which every measured network was also classified, or those wanted among them."""
    records = [record for row in rows for record in row.curves if record.accuracy]
    grids = [{each.factor for each in record.accuracy} for record in records]
    shared = [
        f
        for f in common_factors(records)
        if all(any(same_factor(f, other) for other in grid) for grid in grids)
    ]
    if wanted is None:
        return tuple(shared)
    return tuple(f for f in shared if any(same_factor(f, one) for one in wanted))


def fact_text(key: str, value: Any) -> str:
    """Return a fact as a heading names it.

    Examples
    --------
    >>> fact_text("augment", "none"), fact_text("model.base", 1.5), fact_text("label", "CNN")
    ('augment none', 'base 1.5', 'CNN')
    """
    if key == "size":  # a network of any size does not say which one it was given
        return "size unknown" if value is None else f"{value}\u00a0px"
    if key in ("model", "label", "tag", "system", "dataset") and value is not None:
        return str(value)
    return f"{key.removeprefix('model.')} {'unset' if value is None else value}"


def ordered(keys: Sequence[tuple[Any, ...]], facts: Sequence[str]) -> list[tuple[Any, ...]]:
    """Order rows or columns: names as they first appear, all other facts by value, what is unset first."""
    unique = list(dict.fromkeys(keys))
    ranks: list[dict[Any, int]] = []
    for place, fact in enumerate(facts):
        values = list(dict.fromkeys(key[place] for key in unique))
        if fact not in ("model", "label", "tag", "system", "dataset"):
            values.sort(key=_value_order)
        ranks.append({value: rank for rank, value in enumerate(values)})
    return sorted(unique, key=lambda key: tuple(rank[part] for rank, part in zip(ranks, key, strict=False)))


def _value_order(value: Any) -> tuple[int, float, str]:
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, 0.0, str(value)
