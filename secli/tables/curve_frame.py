"""Everything that was measured as one tidy frame: a row per number, with what belongs to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from secli.records.notes import row_in_words
from secli.records.schema import CurveRow, EquivarianceRecord, LieRow, LocalRow
from secli.tables.labels import distinct_labels
from secli.tables.table import Cell, Column, Table

_FIRST = ("network", "control", "metric", "quantity", "tap", "kind", "field", "factor", "level", "channel")
CHANGES = ("consistency", "probability_drop", "cosine")
_NUMBERS = ("mean", "low", "high", "median", "floor", "n", "dropped")


def curve_frame(records: Sequence[EquivarianceRecord]) -> Table:
    """Return one row per network (or control), quantity, tap or part, and factor.

    The column ``quantity`` says what ``mean`` is: ``error``, ``lie``, ``local``, ``accuracy``, ``agreement``, and where
    they were measured ``consistency``, ``probability_drop`` and ``cosine``; for ``local``, ``tap`` is the part that was
    run alone and ``kind`` its kind.
    """
    others = [name for name in CurveRow.model_fields if name not in (*_FIRST, *_NUMBERS)]
    names = (*_FIRST, *_NUMBERS, *others, "resized")
    lines = []
    for record, label in zip(records, distinct_labels(records), strict=True):
        shared = {
            "network": label.replace(", ", " "),  # cut and awk part a line at every comma
            "metric": record.metric,
            "resized": None if record.data.resized is None else "×".join(map(str, record.data.resized)),
        }
        for one in (record, *record.controls):
            for row in _rows(one):
                values = {**row, **shared, "control": one.control}
                lines.append(tuple(Cell(_plain(values.get(name))) for name in names))
    return Table("Equivariance", tuple(Column(name, name) for name in names), tuple(lines))


def _rows(record: EquivarianceRecord) -> Iterator[dict[str, Any]]:
    kinds: dict[str, Sequence[CurveRow | LieRow | LocalRow]] = {
        "error": record.rows,
        "lie": record.lie,
        "local": record.local,
    }
    for quantity, rows in kinds.items():
        for row in rows:
            values = row_in_words(row)
            yield {**values, "quantity": quantity, "tap": values.get("tap", values.get("part"))}
    for classified in record.accuracy:
        read = row_in_words(classified)
        values = {name: read[name] for name in ("factor", "n", "reason")}
        yield {**values, "quantity": "accuracy", "mean": classified.accuracy}
        yield {**values, "quantity": "agreement", "mean": classified.agreement}
        for quantity in CHANGES:
            if read[quantity] is not None:
                yield {**values, "quantity": quantity, "mean": read[quantity]}


def _plain(value: Any) -> Any:
    """Return a value for one cell: what is no number is missing, several warnings are parted by a semicolon."""
    if isinstance(value, tuple):
        return "; ".join(value) or None
    return None if isinstance(value, float) and not math.isfinite(value) else value
