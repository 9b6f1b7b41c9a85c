"""The tidy frame: one row per run × quantity, and what is made of it by grouping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from secli.tables.groups import Group
from secli.tables.paired_tests import Draw
from secli.tables.quantities import Quantity

if TYPE_CHECKING:
    import pandas


def tidy(groups: Sequence[Group], quantities: Sequence[Quantity]) -> pandas.DataFrame:
    """Return the columns ``group`` (its index), ``quantity`` (its key), ``draw`` and ``value``, where there is one."""
    from pandas import DataFrame

    rows = [
        (index, quantity.key, draw, value)
        for index, group in enumerate(groups)
        for quantity in quantities
        for draw, value in group.values(quantity).items()
    ]
    frame: pandas.DataFrame = DataFrame(rows, columns=["group", "quantity", "draw", "value"])
    return frame


def samples(frame: pandas.DataFrame) -> dict[Any, dict[Draw, float]]:
    """Return the value of each draw by (group, quantity)."""
    parts = frame.groupby(["group", "quantity"], sort=False)
    return {at: dict(zip(part["draw"], part["value"], strict=True)) for at, part in parts}


def wide(groups: Sequence[Group], quantities: Sequence[Quantity]) -> pandas.DataFrame:
    """Return one row per group: ``<quantity>_mean``, ``_std`` (NaN where there is none) and ``_n`` of each quantity."""
    cells = tidy(groups, quantities).groupby(["group", "quantity"])["value"]
    numbers: pandas.DataFrame = cells.agg(mean="mean", std="std", n="count").unstack("quantity")
    numbers.columns = numbers.columns.map(lambda pair: f"{pair[1]}_{pair[0]}")
    names = [f"{quantity.key}_{part}" for quantity in quantities for part in ("mean", "std", "n")]
    whole: pandas.DataFrame = numbers.reindex(index=range(len(groups)), columns=names)
    counts = [name for name in names if name.endswith("_n")]
    whole[counts] = whole[counts].fillna(0).astype(int)
    return whole
