"""Which rows of a record are of one kind, and where they stand: taps, parts of taps, ranges of factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from secli.records.schema import CurveRow
from secli.tables.reasons import merged, pattern


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
    part = part_name(row)
    return f"{row.tap} {part}" if part else row.tap


def tap_names(rows: Sequence[CurveRow]) -> list[str]:
    """Return the taps in the order of the network."""
    return list(dict.fromkeys(row.tap for row in rows))


def places(rows: Sequence[CurveRow], chosen: Callable[[CurveRow], bool]) -> str:
    """Say where the chosen rows stand among all rows: ``conv1, conv2 at s = 0.333–0.5; logits at every s``."""
    where: dict[str, list[str]] = {}
    for name in dict.fromkeys(full_name(row) for row in rows):
        own = sorted((row for row in rows if full_name(row) == name), key=lambda row: row.factor)
        picked = [chosen(row) for row in own]
        if any(picked):
            at = f"s = {ranges([row.factor for row in own], picked)}"
            if len(own) > 1 and all(picked):
                at = "every s"
            elif len(own) > 2 and all(one or row.factor == 1 for one, row in zip(picked, own, strict=True)):
                at = "every s but 1"
            where.setdefault(at, []).append(name)
    return "; ".join(f"{', '.join(names)} at {at}" for at, names in where.items())


def ranges(factors: Sequence[float], chosen: Sequence[bool]) -> str:
    """Write the chosen factors as ranges of neighbours on the measured grid: ``0.333–0.5, 0.8``."""
    groups: list[list[float]] = []
    for index, factor in enumerate(factors):
        if not chosen[index]:
            continue
        if index and chosen[index - 1]:
            groups[-1].append(factor)
        else:
            groups.append([factor])
    return ", ".join(f"{g[0]:.3g}" if len(g) == 1 else f"{g[0]:.3g}–{g[-1]:.3g}" for g in groups)


def telling_warnings(rows: Sequence[CurveRow]) -> list[str]:
    """Return the forms of warning that deserve a mark of their own at a number, in order of appearance.

    Those that only repeat that a factor lies off the lattice do not (a sign says it already), nor those that hold
    for every number.
    """
    # at s = 1 nothing changes, and an invariant tap has no plane: neither is ever warned of
    measured = [
        row for row in rows if row.mean is not None and row.factor != 1 and row.field.lower() != "invariant"
    ]
    forms = _forms(measured)
    return [form for form, own in forms.items() if len(own) < len(measured)]


def _forms(rows: Sequence[CurveRow]) -> dict[str, set[int]]:
    """Return which rows carry each form of warning, but for the form that stands exactly where s is off the lattice."""
    forms: dict[str, set[int]] = {}
    for index, row in enumerate(rows):
        for text in row.warnings:
            forms.setdefault(pattern(text), set()).add(index)
    off = {index for index, row in enumerate(rows) if row.on_lattice is False}
    return {form: own for form, own in forms.items() if own != off}


def null_places(rows: Sequence[CurveRow], is_null: Callable[[CurveRow], bool]) -> list[tuple[str, str]]:
    """Return (reason, places) of the null rows; reasons that differ only in their numbers are one."""
    null = [row for row in rows if is_null(row)]
    said = []
    for form in dict.fromkeys(pattern(row.reason) for row in null):
        same = {id(row) for row in null if pattern(row.reason) == form}
        reason = merged([row.reason for row in null if id(row) in same])
        said.append((reason, places(rows, lambda row, same=same: id(row) in same)))  # type: ignore[misc]
    return said


class Warned(NamedTuple):
    """A warning: its form (numbers blanked), its text with the range of its numbers, and where it stands."""

    form: str
    text: str
    places: str


def warning_places(rows: Sequence[CurveRow]) -> list[Warned]:
    """Return the warnings, but for the one that a sign says already; those that differ only in numbers are one."""
    measured = [row for row in rows if row.mean is not None]
    said = []
    for form, own in _forms(measured).items():
        carriers = {id(measured[index]) for index in own}
        texts = [text for index in sorted(own) for text in measured[index].warnings if pattern(text) == form]
        where = places(measured, lambda row, own=carriers: id(row) in own)  # type: ignore[misc]
        said.append(Warned(form, merged(texts), where))
    return said
