"""Networks beside each other by how they stand a change of scale: one row each, from their records."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from secli.errors import UnknownNameError
from secli.records.notes import Note, by_form, worded
from secli.records.schema import EquivarianceRecord
from secli.tables.depth import TapsRead, read_taps
from secli.tables.readings import accuracy_at, among, mean_over
from secli.tables.statistic import finite, mean_of_all
from secli.tables.table import MISSING, Cell, Column, Table

COLUMNS = (
    Column("network", "network", text=True),
    Column("weights", "weights", text=True, machine=True),
    Column("accuracy", "accuracy at s\u00a0=\u00a01 (%)", percent=True, digits=1),
    Column("accuracy_area", "area under accuracy", digits=3),
    Column("agreement_area", "area under agreement", digits=3),
    Column("consistency", "consistency", digits=3),
    Column("probability_drop", "probability lost", machine=True),
    Column("cosine", "cosine", machine=True),
    Column("delta", "Δ"),
    Column("tap", "tap", text=True),
    Column("parameters", "parameters"),
    Column("flops", "GFLOPs"),
    Column("images_per_second", "images/s"),
    Column("reason", "reason", text=True, machine=True),
)
SORTED_BY = tuple(column.key for column in COLUMNS if column.key not in ("weights", "tap", "reason"))


class PassCost(NamedTuple):
    """What a forward pass costs: multiply–adds × 2 of one picture, and pictures a second."""

    flops: int
    images_per_second: float


@dataclass(frozen=True)
class Contender:
    """One network: its record and cost, or why it could not be measured.

    Attributes
    ----------
    name
        As on the command line.
    record
        Its curves; None where it could not be measured, for the ``reason``.
    cost
        None where nothing was timed.
    weights
        Where its weights come from, in words; None where only its own code knows.
    """

    name: str
    record: EquivarianceRecord | None
    cost: PassCost | None = None
    reason: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class RobustnessRow:
    """The numbers of one network, as the columns name them; None where there is none."""

    network: str
    weights: str | None = None
    accuracy: float | None = None
    accuracy_area: float | None = None
    agreement_area: float | None = None
    consistency: float | None = None
    probability_drop: float | None = None
    cosine: float | None = None
    delta: float | None = None
    tap: str | None = None
    parameters: int | None = None
    flops: int | None = None
    images_per_second: float | None = None
    reason: str | None = None


def area(values: Mapping[float, float | None]) -> float | None:
    """Return the area under values over log s, as a share of the range: by trapezoids, their mean over log s.

    ``1/(log s_n − log s_1) · Σ_k (log s_{k+1} − log s_k) (a_k + a_{k+1})/2``

    Parameters
    ----------
    values : mapping
        Values by scale factor; those of accuracies are fractions.

    Returns
    -------
    float or None
        Between the smallest and the largest value; None where one is missing, or there is one factor.

    Examples
    --------
    >>> area({1.0: 1.0, 0.5: 0.0}), area({1.0: 1.0, 0.5: 0.5, 0.25: 0.0}), area({1.0: 1.0})
    (0.5, 0.5, None)
    """
    points = sorted(values.items())
    known = [(math.log(factor), value) for factor, value in points if value is not None]
    if len(known) < max(2, len(points)):
        return None
    total = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(known))
    return total / (known[-1][0] - known[0][0])


def check_sort(sort: str | None) -> None:
    """Raise ``UnknownNameError`` on a column that rows cannot be sorted by."""
    if sort is not None and sort.removeprefix("-") not in SORTED_BY:
        raise UnknownNameError("column --sort", sort.removeprefix("-"), SORTED_BY)


def robustness_rows(
    contenders: Sequence[Contender], depth: float | None = None, sort: str | None = None
) -> tuple[list[RobustnessRow], TapsRead]:
    """Return a row per network, and where Δ was read.

    Parameters
    ----------
    contenders : sequence of Contender
        In the order given.
    depth : float, optional
        Relative depth at which Δ is read; default: as :func:`secli.tables.depth.read_taps` chooses.
    sort : str, optional
        A column; ``-`` before it: from the largest. Rows without a value come last.

    Raises
    ------
    UnknownNameError
        On a column that there is none of.
    """
    check_sort(sort)
    read = _read([one.record for one in contenders], depth)
    rows = [_row(one, tap, read.factors) for one, tap in zip(contenders, read.taps, strict=True)]
    if sort is not None:
        key = sort.removeprefix("-")
        there = [row for row in rows if getattr(row, key) is not None]
        there.sort(key=lambda row: getattr(row, key), reverse=sort.startswith("-"))
        rows = [*there, *(row for row in rows if getattr(row, key) is None)]
    return rows, read


def _read(records: Sequence[EquivarianceRecord | None], depth: float | None) -> TapsRead:
    """Return where Δ is read, a tap for each record; one that has no value there does not keep the others from one."""
    asked = {index: record for index, record in enumerate(records) if record is not None}
    at: dict[int, str | None] = {}
    while True:
        read = read_taps([[record] for record in asked.values()], depth)
        at |= zip(asked, read.taps, strict=True)
        able = {index for index in asked if (tap := at[index]) and _has_value(asked[index], tap)}
        if read.factors or not able or len(able) == len(asked):
            return read._replace(taps=tuple(at.get(index) for index in range(len(records))))
        asked = {index: record for index, record in asked.items() if index in able}


def _has_value(record: EquivarianceRecord, tap: str) -> bool:
    return any(row.tap == tap and row.factor < 1 and finite(row.mean) is not None for row in record.rows)


def _row(one: Contender, tap: str | None, factors: Sequence[float]) -> RobustnessRow:
    record = one.record
    if record is None:
        return RobustnessRow(one.name, one.weights, reason=one.reason)
    classified = record.accuracy
    moved = [row for row in classified if row.factor != 1]
    reasons = dict.fromkeys(str(row.reason) for row in classified if row.reason is not None)
    return RobustnessRow(
        network=one.name,
        weights=one.weights,
        accuracy=accuracy_at(record, 1.0),
        accuracy_area=area({row.factor: finite(row.accuracy) for row in classified}),
        agreement_area=area({row.factor: finite(row.agreement) for row in classified}),
        consistency=mean_of_all([row.consistency for row in moved]),
        probability_drop=mean_of_all([row.probability_drop for row in moved]),
        cosine=mean_of_all([row.cosine for row in moved]),
        delta=None if tap is None else mean_over(record, tap, factors),
        tap=tap,
        parameters=record.model.parameters,
        flops=None if one.cost is None else one.cost.flops,
        images_per_second=None if one.cost is None else one.cost.images_per_second,
        reason="; ".join(reasons) or None,
    )


def robustness_table(
    contenders: Sequence[Contender],
    rows: Sequence[RobustnessRow],
    read: TapsRead,
    timed: str,
) -> Table:
    """Return the table; ``timed`` says in words how images/s were timed."""
    lines = [tuple(_cell(row, column) for column in COLUMNS) for row in rows]
    measured = [one.record for one in contenders if one.record is not None]
    title = "Robustness to a change of scale"
    if measured:
        images = max(row.n for record in measured for row in record.rows)
        factors = sorted({row.factor for record in measured for row in record.accuracy})
        span = ", ".join(f"{factor:.3g}" for factor in factors)
        title += f": {images} images of {measured[0].data.name}, s = {span}"
    return Table(title, COLUMNS, tuple(lines), tuple(_notes(contenders, rows, read, timed)))


def _cell(row: RobustnessRow, column: Column) -> Cell:
    value = getattr(row, column.key)
    if column.key == "flops" and value is not None:
        return Cell(value, words=f"{value / 1e9:.3g}")
    return Cell(value)


def _notes(
    contenders: Sequence[Contender], rows: Sequence[RobustnessRow], read: TapsRead, timed: str
) -> list[str]:
    notes = [
        "Area: over log s, as a share of its range; agreement: the prediction is that at s = 1; consistency: it is "
        "that at the next factor towards s = 1, mean over factors."
    ]
    if read.factors:
        where = "taps of each network" if read.depth is None else f"relative depth {read.depth:.2g}"
        over = ", ".join(f"{factor:.3g}" for factor in read.factors)
        notes.append(f"Δ: mean over s = {over}, the factors below 1 that all could measure, at {where}.")
        notes += _warnings(contenders, rows, read)
        notes += _missing_errors(contenders, rows, read)
    elif any(one.record is not None for one in contenders):
        notes.append(
            f"{MISSING} Δ: no relative depth at which all networks have a value at a factor below 1."
        )
    notes.append(f"GFLOPs: multiply–adds × 2 of one image; images/s: {timed}.")
    named: dict[str, list[str]] = {}
    for one in contenders:
        if one.record is not None and one.weights is not None:
            named.setdefault(one.weights, []).append(one.name)
    notes += [f"Weights: {weights}: {_all_or(nets, rows)}." for weights, nets in named.items()]
    return [*notes, *missing_accuracies(rows), *unmeasured(contenders)]


def missing_accuracies(rows: Sequence[RobustnessRow]) -> list[str]:
    """Say which networks have no accuracy, by reason."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.parameters is not None and row.accuracy is None:
            found.setdefault(row.reason or "", []).append(row.network)
    return [f"{MISSING} accuracy: {reason}: {_all_or(nets, rows)}." for reason, nets in found.items()]


def unmeasured(contenders: Sequence[Contender]) -> list[str]:
    """Say which networks could not be measured, with the reason."""
    return [f"{MISSING} {one.name}: {one.reason}." for one in contenders if one.record is None]


def _all_or(names: Sequence[str], rows: Sequence[RobustnessRow]) -> str:
    alike = len(rows) > 1 and len(names) == sum(row.parameters is not None for row in rows)
    return "all networks" if alike else ", ".join(names)


def _warnings(contenders: Sequence[Contender], rows: Sequence[RobustnessRow], read: TapsRead) -> list[str]:
    """Say what the values that Δ averages carry a warning of, and of which networks."""
    taps = {row.network: row.tap for row in rows}
    found = [
        (note, one.name)
        for one in contenders
        for row in (() if one.record is None else one.record.rows)
        if row.tap == taps[one.name] and among(row.factor, read.factors)
        for note in row.warnings
    ]
    told = []
    for form, notes in by_form(note for note, _ in found).items():
        nets = list(dict.fromkeys(name for note, name in found if note.form == form))
        every = len(nets) > 1 and len(nets) == sum(row.delta is not None for row in rows)
        told.append(f"Δ, {worded(notes)}: {'all that have it' if every else ', '.join(nets)}.")
    return told


def _missing_errors(
    contenders: Sequence[Contender], rows: Sequence[RobustnessRow], read: TapsRead
) -> list[str]:
    """Say why networks have no Δ where the others have theirs."""
    records = {one.name: one.record for one in contenders}
    told = []
    for row in rows:
        record = records[row.network]
        if record is not None and row.delta is None:
            why = (
                each.reason
                for each in record.rows
                if each.tap == row.tap and among(each.factor, read.factors) and each.reason is not None
            )
            told.append(f"{MISSING} Δ: {row.network}: {next(why, None) or Note.of('no-tap')}.")
    return told
