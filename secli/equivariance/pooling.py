"""Several runs of one network as one measurement: means over runs, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from secli.equivariance.statistics import bootstrap_interval
from secli.errors import InputError
from secli.records.schema import AccuracyRow, CurveRow, EquivarianceRecord


def pool(records: Sequence[EquivarianceRecord]) -> EquivarianceRecord:
    """Average the curves of several runs of one network; the interval is the bootstrap over the runs' means.

    A row is null where any run's is, with that run's reason.

    Raises
    ------
    InputError
        When the runs were not measured at the same taps and factors.
    """
    if len(records) == 1:
        return records[0]
    first = records[0]
    rows = _aligned(
        [record.rows for record in records], lambda row: (row.tap, row.factor, row.level, row.channel)
    )
    accuracy = _aligned([record.accuracy for record in records], lambda row: row.factor)
    names = tuple(record.run or f"seed {record.seed}" for record in records)
    return first.model_copy(
        update={
            "rows": [_pooled_row(same) for same in rows],
            "accuracy": [_pooled_accuracy(same) for same in accuracy],
            "lie": [],
            "local": [],
            "run": None,
            "pooled": names,
        }
    )


def _aligned(lists: Sequence[Sequence[Any]], key: Any) -> Iterable[list[Any]]:
    """Return the rows with the same key, in the order of the first list."""
    keys = [[key(row) for row in rows] for rows in lists]
    if any(other != keys[0] for other in keys[1:]):
        raise InputError(
            "the runs were not measured at the same taps and factors, so they cannot be averaged"
        )
    return (list(same) for same in zip(*lists, strict=True))


def _pooled_row(rows: Sequence[CurveRow]) -> CurveRow:
    missing = next((row for row in rows if row.mean is None), None)
    if missing is not None:
        return missing.model_copy(update={"runs": len(rows)})
    low, high = bootstrap_interval(np.array([row.mean for row in rows], dtype=np.float64))
    return rows[0].model_copy(
        update={
            "mean": _mean(row.mean for row in rows),
            "median": _mean(row.median for row in rows),
            "floor": _mean(row.floor for row in rows),
            "low": low,
            "high": high,
            "n": min(row.n for row in rows),
            "dropped": sum(row.dropped for row in rows),
            "runs": len(rows),
            "warnings": tuple({str(note): note for row in rows for note in row.warnings}.values()),
        }
    )


def _pooled_accuracy(rows: Sequence[AccuracyRow]) -> AccuracyRow:
    names = ("accuracy", "agreement", "consistency", "probability_drop", "cosine")
    means = {name: _mean(getattr(row, name) for row in rows) for name in names}
    return rows[0].model_copy(update={**means, "n": min(row.n for row in rows)})


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = list(values)
    known = [value for value in numbers if value is not None]
    return sum(known) / len(known) if numbers and len(known) == len(numbers) else None
