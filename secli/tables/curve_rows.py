"""The rows of a record of curves: whole taps, and single levels or channels of them."""

from __future__ import annotations

from collections.abc import Sequence

from secli.records.schema import CurveRow


def whole(rows: Sequence[CurveRow]) -> list[CurveRow]:
    """Return the rows that measure a tap with all its levels and channels."""
    return [row for row in rows if row.level is None and row.channel is None]


def parts(rows: Sequence[CurveRow]) -> list[CurveRow]:
    """Return the rows that measure one scale level or one channel of a tap alone."""
    return [row for row in rows if row.level is not None or row.channel is not None]


def part_name(row: CurveRow) -> str:
    """Return which part of its tap a row measures: ``level 0``, ``channel 3``, ``level 0, channel 3``, or nothing."""
    named = (("level", row.level), ("channel", row.channel))
    return ", ".join(f"{name} {number}" for name, number in named if number is not None)


def full_name(row: CurveRow) -> str:
    """Return the tap, with its part where the row measures one."""
    return f"{row.tap} {part_name(row)}".rstrip()


def tap_names(rows: Sequence[CurveRow]) -> list[str]:
    """Return the taps in the order of the network."""
    return list(dict.fromkeys(row.tap for row in rows))
