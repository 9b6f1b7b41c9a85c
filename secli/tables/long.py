"""Everything that was measured as one tidy table: a line per number, with what belongs to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from secli.records.schema import AccuracyRow, CurveRow, EquivarianceRecord, LieRow, LocalRow
from secli.tables.formats import Cell, Column, Table
from secli.tables.labels import distinct_labels

_OWN = ("network", "control", "metric", "quantity", "tap", "kind", "field", "factor", "level", "channel")
_NUMBERS = ("mean", "low", "high", "median", "floor", "n", "dropped")


def long_table(records: Sequence[EquivarianceRecord]) -> Table:
    """Return one row per network (or control), quantity, tap or part, and factor.

    The column ``quantity`` says what ``mean`` is: ``error``, ``lie``, ``local``, ``accuracy`` or ``agreement``; for
    ``local``, ``tap`` is the part that was run alone and ``kind`` its kind.
    """
    others = [name for name in CurveRow.model_fields if name not in (*_OWN, *_NUMBERS)]
    names = (*_OWN, *_NUMBERS, *others, "resized")
    lines = []
    for record, label in zip(records, distinct_labels(records), strict=True):
        network = label.replace(", ", " ")  # cut and awk part a line at every comma
        size = None if record.data.resized is None else "×".join(map(str, record.data.resized))
        for one in (record, *record.controls):
            for values in _values(one):
                values |= {
                    "network": network,
                    "control": one.control,
                    "metric": record.metric,
                    "resized": size,
                }
                lines.append(tuple(Cell(_plain(values.get(name))) for name in names))
    return Table("Equivariance", tuple(Column(name, name) for name in names), tuple(lines))


def _values(record: EquivarianceRecord) -> Iterator[dict[str, Any]]:
    kinds: list[tuple[str, Sequence[CurveRow | LieRow | LocalRow]]] = [
        ("error", record.rows), ("lie", record.lie), ("local", record.local),
    ]  # fmt: skip
    for quantity, rows in kinds:
        for row in rows:
            values = row.model_dump()
            yield {**values, "quantity": quantity, "tap": values.get("tap", values.get("part"))}
    for classified in record.accuracy:
        yield from _classified(classified)


def _classified(row: AccuracyRow) -> Iterator[dict[str, Any]]:
    common = {"factor": row.factor, "n": row.n, "reason": row.reason}
    yield {**common, "quantity": "accuracy", "mean": row.accuracy}
    yield {**common, "quantity": "agreement", "mean": row.agreement}


def _plain(value: Any) -> Any:
    """Return a value for one cell: what is no number is missing, several warnings are parted by a semicolon."""
    if isinstance(value, tuple):
        return "; ".join(value) or None
    return None if isinstance(value, float) and not math.isfinite(value) else value
