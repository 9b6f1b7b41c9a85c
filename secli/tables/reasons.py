"""Reasons that differ only in their numbers, said once with the range of the numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

UNSAID = "no reason given"
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def pattern(reason: str | None) -> str:
    """Return a reason with its numbers blanked: two reasons with one pattern say the same of different values."""
    return _NUMBER.sub("#", reason or UNSAID)


def merged(reasons: Sequence[str | None]) -> str:
    """Say reasons of one pattern as one, each number that varies as a range.

    Examples
    --------
    >>> merged(["covers 2.3 cells, fewer than 4", "covers 3.5 cells, fewer than 4"])
    'covers 2.3–3.5 cells, fewer than 4'
    """
    first = reasons[0] or UNSAID
    columns = list(zip(*(_NUMBER.findall(reason or UNSAID) for reason in reasons), strict=True))
    said = iter([_range(column) for column in columns])
    return _NUMBER.sub(lambda _: next(said), first)


def _range(numbers: Sequence[str]) -> str:
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if float(low) == float(high) else f"{low}–{high}"
