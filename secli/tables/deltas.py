"""Reading numbers off equivariance curves: at a factor, over common factors, at the deepest tap that has them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from secli.errors import InputError
from secli.records.schema import CurveRow, EquivarianceRecord
from secli.tables.places import whole

# Published factors are rounded (0.58 for 1/√3); what lies closer than this is the same factor.
SAME_FACTOR = 0.02

Measure = tuple[str, str, str, int]
# what else of the measure's settings changes a reading, and what it is where nothing was said
DECISIVE: dict[str, Any] = {"border": None, "smallest_plane": 4.0}


def same_factor(one: float, other: float, tolerance: float = SAME_FACTOR) -> bool:
    """Whether two scale factors agree to a relative tolerance."""
    return abs(math.log(one / other)) <= tolerance


def measure_of(record: EquivarianceRecord) -> Measure:
    """Return what must agree before Δ may be averaged: metric, background, data set, number of images."""
    images = max([row.n for row in record.rows] + [row.n for row in record.accuracy], default=0)
    return record.metric, record.background, record.data.name, images


def settings_of(record: EquivarianceRecord) -> tuple[tuple[str, Any], ...]:
    """Return the further settings that must agree before Δ may be averaged or compared, as (name, value)."""
    return tuple((name, record.measure.get(name, usual)) for name, usual in DECISIVE.items())


def common_factors(records: Sequence[EquivarianceRecord]) -> list[float]:
    """Return the factors at which all records were measured, increasing.

    Networks add the lattices of their own levels to the grid, so 0.5 in one record meets 0.503 in another; of such
    neighbours the one that is written shortest stands for both.
    """
    if not records:
        return []
    grids = [sorted({row.factor for row in record.rows}) for record in records]
    common: list[float] = []
    for factor in sorted(set().union(*grids), key=lambda f: (len(f"{f:.3g}"), f)):
        taken = any(same_factor(factor, other) for other in common)
        if not taken and all(any(same_factor(factor, other) for other in grid) for grid in grids):
            common.append(factor)
    return sorted(common)


def check_measured(wanted: Sequence[float], records: Sequence[EquivarianceRecord]) -> None:
    """Raise ``InputError``, naming the factors that were measured, when no record was measured at any of the wanted."""
    factors = {row.factor for record in records for row in record.rows}
    measured = sorted(factors | {row.factor for record in records for row in record.accuracy})
    if measured and not any(same_factor(one, other) for one in wanted for other in measured):
        asked, known = (", ".join(dict.fromkeys(f"{f:.3g}" for f in some)) for some in (wanted, measured))
        raise InputError(f"no run was measured at s = {asked}; measured at s = {known}")


def value_at(record: EquivarianceRecord, tap: str, factor: float) -> float | None:
    """Return the mean error at a tap and the factor measured nearest to the one asked for; None if there is none."""
    rows = [row for row in whole(record.rows) if row.tap == tap and same_factor(row.factor, factor)]
    if not rows:
        return None
    return _finite(min(rows, key=lambda row: abs(math.log(row.factor / factor))).mean)


def accuracy_at(record: EquivarianceRecord, factor: float) -> float | None:
    """Return the accuracy at the factor measured nearest to the one asked for; None if there is none."""
    rows = [row for row in record.accuracy if same_factor(row.factor, factor)]
    if not rows:
        return None
    return _finite(min(rows, key=lambda row: abs(math.log(row.factor / factor))).accuracy)


def mean_over(record: EquivarianceRecord, tap: str, factors: Sequence[float]) -> float | None:
    """Return the arithmetic mean of the error over factors; None unless it was measured at every one."""
    values = [value_at(record, tap, factor) for factor in factors]
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there and len(there) == len(values) else None


def deepest_tap(records: Sequence[EquivarianceRecord], factors: Sequence[float]) -> str | None:
    """Return the last tap with a spatial field that all records could measure at all factors; None if there is none."""
    if not records or not factors:
        return None
    for tap in reversed(list(dict.fromkeys(row.tap for row in records[0].rows))):
        if all(_spatial(record, tap) and mean_over(record, tap, factors) is not None for record in records):
            return tap
    return None


def _spatial(record: EquivarianceRecord, tap: str) -> bool:
    rows: list[CurveRow] = [row for row in record.rows if row.tap == tap]
    return bool(rows) and not any(row.field.lower().startswith("invariant") for row in rows)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
