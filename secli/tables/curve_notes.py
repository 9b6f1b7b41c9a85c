"""What is missing in curves and what is warned of, each told once: with the taps and ranges of factors it holds for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from secli.records.schema import CurveRow, LieRow, LocalRow
from secli.tables.curve_rows import full_name
from secli.tables.statistic import finite

NO_REASON = "no reason given"
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")

Row = TypeVar("Row", CurveRow, LieRow, LocalRow)


def pattern(reason: str | None) -> str:
    """Return a reason with its numbers blanked: two reasons with one pattern say the same of different values."""
    return _NUMBER.sub("#", reason or NO_REASON)


def merged(reasons: Sequence[str | None]) -> str:
    """Return reasons of one pattern as one, each number that varies as a range.

    Examples
    --------
    >>> merged(["covers 2.3 cells, fewer than 4", "covers 3.5 cells, fewer than 4"])
    'covers 2.3–3.5 cells, fewer than 4'
    """
    columns = zip(*(_NUMBER.findall(reason or NO_REASON) for reason in reasons), strict=True)
    ranges = (_range(min(column, key=float), max(column, key=float)) for column in columns)
    return _NUMBER.sub(lambda _: next(ranges), reasons[0] or NO_REASON)


def _range(low: str, high: str) -> str:
    return low if float(low) == float(high) else f"{low}–{high}"


def by_reason(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows without a value by their reason; reasons that differ only in their numbers are one."""
    forms: dict[str, list[Row]] = {}
    for row in rows:
        if finite(row.mean) is None:
            forms.setdefault(pattern(row.reason), []).append(row)
    return [(merged([row.reason for row in same]), same) for same in forms.values()]


def missing(rows: Sequence[CurveRow]) -> list[tuple[str, str]]:
    """Return (reason, where) of the rows without a value."""
    return [(reason, where(rows, same)) for reason, same in by_reason(rows)]


def where(rows: Sequence[CurveRow], chosen: Sequence[CurveRow]) -> str:
    """Tell where the chosen rows stand among all rows: ``conv1, conv2 at s = 0.333–0.5; logits at every s``."""
    ids = {id(row) for row in chosen}
    names: dict[str, list[str]] = {}
    for name in dict.fromkeys(map(full_name, chosen)):
        own = sorted((row for row in rows if full_name(row) == name), key=lambda row: row.factor)
        picked = [id(row) in ids for row in own]
        at = f"s = {_ranges([row.factor for row in own], picked)}"
        if len(own) > 1 and all(picked):
            at = "every s"
        elif len(own) > 2 and all(one or row.factor == 1 for one, row in zip(picked, own, strict=True)):
            at = "every s but 1"
        names.setdefault(at, []).append(name)
    return "; ".join(f"{', '.join(some)} at {at}" for at, some in names.items())


def _ranges(factors: Sequence[float], chosen: Sequence[bool]) -> str:
    """Write the chosen factors as ranges of neighbours on the measured grid: ``0.333–0.5, 0.8``."""
    groups: list[list[float]] = []
    for index, factor in enumerate(factors):
        if chosen[index] and index and chosen[index - 1]:
            groups[-1].append(factor)
        elif chosen[index]:
            groups.append([factor])
    return ", ".join(f"{g[0]:.3g}" if len(g) == 1 else f"{g[0]:.3g}–{g[-1]:.3g}" for g in groups)


class Warned(NamedTuple):
    """A warning: its pattern, its text with the range of its numbers, and where it holds."""

    form: str
    text: str
    where: str


def warnings_of(rows: Sequence[CurveRow]) -> list[Warned]:
    """Return the warnings, but for the one that a sign says already; those that differ only in numbers are one."""
    measured = [row for row in rows if row.mean is not None]
    found = []
    for form, own in _forms(measured).items():
        texts = [text for row in own for text in row.warnings if pattern(text) == form]
        found.append(Warned(form, merged(texts), where(measured, own)))
    return found


def telling_warnings(rows: Sequence[CurveRow]) -> list[str]:
    """Return the patterns of warning that deserve a mark of their own at a number, in order of appearance.

    Those that only repeat that a factor lies off the lattice do not (a sign says it already), nor those that hold
    for every number.
    """
    # at s = 1 nothing changes, and an invariant tap has no plane: neither is ever warned of
    measured = [
        row for row in rows if row.mean is not None and row.factor != 1 and row.field.lower() != "invariant"
    ]
    return [form for form, own in _forms(measured).items() if len(own) < len(measured)]


def _forms(rows: Sequence[CurveRow]) -> dict[str, list[CurveRow]]:
    """Return which rows carry each pattern of warning, but for that which stands exactly where s is off the lattice."""
    forms: dict[str, list[CurveRow]] = {}
    for row in rows:
        for form in dict.fromkeys(map(pattern, row.warnings)):
            forms.setdefault(form, []).append(row)
    off = [id(row) for row in rows if row.on_lattice is False]
    return {form: own for form, own in forms.items() if [id(row) for row in own] != off}
