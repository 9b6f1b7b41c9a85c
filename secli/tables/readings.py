"""Reading numbers off equivariance curves: at a factor, and over the factors that curves have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from secli.errors import InputError
from secli.records.schema import AccuracyRow, CurveRow, EquivarianceRecord
from secli.tables.curve_rows import whole
from secli.tables.statistic import finite, mean_of_all

# Published factors are rounded (0.58 for 1/√3); what lies closer than this is the same factor.
SAME_FACTOR = 0.02
# Factors whose Δ gets a column unless the user names some, where they were measured.
SHOWN_FACTORS = (0.5, 0.8)
SHOWN_NEAR = 0.1

Measure = tuple[str, str, str, int]
"""Metric, background, data set, number of images."""

Curves = Sequence[EquivarianceRecord]
AtFactor = TypeVar("AtFactor", CurveRow, AccuracyRow)


@dataclass(frozen=True)
class ReadAt:
    """Where a group of runs is read.

    Attributes
    ----------
    tap
        The tap of Δ (None: none could be read).
    depth
        The relative depth that all taps of the table share; None where each was chosen for itself, or by its name.
    mean_factors, accuracy_factors
        What Δ and accuracy are averaged over.
    factors
        Factors whose Δ and accuracy have a column.
    """

    tap: str | None = None
    depth: float | None = None
    mean_factors: tuple[float, ...] = ()
    accuracy_factors: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()


def same_factor(one: float, other: float, tolerance: float = SAME_FACTOR) -> bool:
    """Whether two scale factors agree to a relative tolerance."""
    return abs(math.log(one / other)) <= tolerance


def among(factor: float, others: Sequence[float]) -> bool:
    """Whether a scale factor is one of others."""
    return any(same_factor(factor, other) for other in others)


def common_factors(records: Curves) -> list[float]:
    """Return the factors at which all records were measured, increasing.

    Networks add the lattices of their own levels to the grid, so 0.5 in one record meets 0.503 in another; of such
    neighbours the one that is written shortest stands for both.
    """
    grids = [sorted({row.factor for row in record.rows}) for record in records]
    common: list[float] = []
    for factor in sorted(set().union(*grids), key=lambda f: (len(f"{f:.3g}"), f)):
        if not among(factor, common) and all(among(factor, grid) for grid in grids):
            common.append(factor)
    return sorted(common)


def check_measured(factors: Sequence[float], records: Curves) -> None:
    """Raise ``InputError``, naming the factors that were measured, when no record was measured at any of these."""
    errors = {row.factor for record in records for row in record.rows}
    measured = sorted(errors | {row.factor for record in records for row in record.accuracy})
    if measured and not any(among(factor, measured) for factor in factors):
        asked, known = (", ".join(dict.fromkeys(f"{f:.3g}" for f in some)) for some in (factors, measured))
        raise InputError(f"no run was measured at s = {asked}; measured at s = {known}")


def value_at(record: EquivarianceRecord, tap: str, factor: float) -> float | None:
    """Return the mean error at a tap and the factor measured nearest to the one asked for; None if there is none."""
    row = _nearest([row for row in whole(record.rows) if row.tap == tap], factor)
    return None if row is None else finite(row.mean)


def accuracy_at(record: EquivarianceRecord, factor: float) -> float | None:
    """Return the accuracy at the factor measured nearest to the one asked for; None if there is none."""
    row = _nearest(record.accuracy, factor)
    return None if row is None else finite(row.accuracy)


def _nearest(rows: Sequence[AtFactor], factor: float) -> AtFactor | None:
    near = [row for row in rows if same_factor(row.factor, factor)]
    return min(near, key=lambda row: abs(math.log(row.factor / factor)), default=None)


def mean_over(record: EquivarianceRecord, tap: str, factors: Sequence[float]) -> float | None:
    """Return the arithmetic mean of the error over factors; None unless it was measured at every one."""
    return mean_of_all([value_at(record, tap, factor) for factor in factors])


def factors_of_accuracy(groups: Sequence[Curves], chosen: Sequence[float] | None) -> tuple[float, ...]:
    """Return the factors at which every measured network was also classified, or those chosen among them."""
    records = [record for group in groups for record in group if record.accuracy]
    grids = [[row.factor for row in record.accuracy] for record in records]
    shared = [f for f in common_factors(records) if all(among(f, grid) for grid in grids)]
    return tuple(f for f in shared if chosen is None or among(f, chosen))


def factors_shown(groups: Sequence[Curves]) -> tuple[float, ...]:
    """Return the common factors below 1 nearest to those that are shown by default."""
    below = [f for f in common_factors([record for group in groups for record in group]) if f < 1]
    nearest = []
    for usual in SHOWN_FACTORS:
        near = [f for f in below if same_factor(f, usual, SHOWN_NEAR)]
        nearest += [min(near, key=lambda f: abs(f - usual))] if near else []
    return tuple(dict.fromkeys(nearest))
