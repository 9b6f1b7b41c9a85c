"""What is missing in curves and what is warned of, each told once: with the taps and ranges of factors it holds for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from secli.records.notes import Form, Note, by_form, worded
from secli.records.schema import CurveRow, LieRow, LocalRow
from secli.tables.curve_rows import full_name
from secli.tables.statistic import finite

OFF_LATTICE = "off-lattice"
NO_REASON = Note.of("no-reason")

Row = TypeVar("Row", CurveRow, LieRow, LocalRow)


def reason_of(row: CurveRow | LieRow | LocalRow) -> Note:
    """Return why a row has no value."""
    return row.reason or NO_REASON


def by_reason(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows without a value by their reason; reasons that differ only in their numbers are one."""
    forms: dict[Form, list[Row]] = {}
    for row in rows:
        if finite(row.mean) is None:
            forms.setdefault(reason_of(row).form, []).append(row)
    return [(worded(list(map(reason_of, same))), same) for same in forms.values()]


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
    """A warning: its form, its text with the range of its numbers, and where it holds."""

    form: Form
    text: str
    where: str


def warnings_of(rows: Sequence[CurveRow]) -> list[Warned]:
    """Return the warnings, but for the one that a sign says already; those that differ only in numbers are one."""
    measured = [row for row in rows if row.mean is not None]
    found = by_form(note for row in measured for note in row.warnings if note.code != OFF_LATTICE)
    return [
        Warned(form, worded(notes), where(measured, _with(measured, form))) for form, notes in found.items()
    ]


def telling_warnings(rows: Sequence[CurveRow]) -> list[Form]:
    """Return the forms of warning that deserve a mark of their own at a number, in order of appearance.

    Those that only repeat that a factor lies off the lattice do not (a sign says it already), nor those that hold
    for every number.
    """
    # at s = 1 nothing changes, and an invariant tap has no plane: neither is ever warned of
    measured = [
        row for row in rows if row.mean is not None and row.factor != 1 and row.field.lower() != "invariant"
    ]
    found = by_form(note for row in measured for note in row.warnings if note.code != OFF_LATTICE)
    return [form for form in found if len(_with(measured, form)) < len(measured)]


def _with(rows: Sequence[CurveRow], form: Form) -> list[CurveRow]:
    """Return the rows with a warning of a form."""
    return [row for row in rows if any(note.form == form for note in row.warnings)]
