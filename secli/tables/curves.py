"""Equivariance curves as tables: tap × factor of Δ with interval and floor, and all that was measured beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from secli.metrics import METRICS
from secli.records.schema import AccuracyRow, CurveRow, EquivarianceRecord
from secli.tables.formats import MISSING, Cell, Column, Table, check_format, dump_json, render
from secli.tables.labels import distinct_labels
from secli.tables.long import long_table
from secli.tables.naming import with_realisations
from secli.tables.places import (
    full_name,
    null_places,
    parts,
    tap_names,
    telling_warnings,
    warning_places,
    whole,
)
from secli.tables.reasons import merged, pattern

OFF_LATTICE = "°"
WARNING_MARKS = ("†", "‡", "*")
INDENT = "\u00a0\u00a0"
# as the fields of the record order them: whole blocks first, then kinds of layers along a block
KINDS = ("stage", "conv", "pool", "norm", "activation", "pointwise")

Line = tuple[Cell, ...]


def render_curves(records: Sequence[EquivarianceRecord], format: str, width: int = 100) -> str:
    """Write equivariance curves in one of the five formats.

    Parameters
    ----------
    records : sequence of EquivarianceRecord
        One per network.
    format : str
        ``table``, ``markdown`` and ``latex``: per network the table tap × factor of the error with its interval and
        its floor, and where they were measured its single levels and channels, its controls, the Lie derivative,
        what each part adds alone, and the accuracy. ``csv``: one tidy table with one line per number and
        everything that belongs to it, its kind in the column ``quantity``. ``json``: the record as stored,
        ``{model, data, metric, rows: [...], accuracy: [...], ...}``; a list of these for several networks.
    width : int
        Columns of the terminal (``table`` only).

    Raises
    ------
    UnknownNameError
        On an unknown format.
    """
    check_format(format)
    if format == "json":
        # through pydantic, which writes what is not a number as null
        content = [json.loads(record.model_dump_json()) for record in records]
        return dump_json(content[0] if len(content) == 1 else content)
    if format == "csv":
        return render(long_table(records), "csv")
    tables: list[Table] = []
    for record, label in zip(records, distinct_labels(records), strict=True):
        tables.extend(tables_of(record, label))
    return render(tables, format, width)


def tables_of(record: EquivarianceRecord, label: str) -> list[Table]:
    """Return all tables of one record; what was not measured has none."""
    wanted = (
        (record.rows, curve_table),
        (parts(record.rows), parts_table),
        (record.controls, controls_table),
        (record.lie, lie_table),
        (record.local, local_table),
        (record.accuracy, accuracy_table),
    )
    return [table(record, label) for rows, table in wanted if rows]


def curve_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table tap × factor: the mean error, below it its interval and the floor of the resampling.

    What could not be measured is '—', with the reason below; warnings are footnotes.
    """
    rows = whole(record.rows)
    factors = _factors(rows)
    at = {(row.tap, row.factor): row for row in rows}
    marks = _warning_marks(rows)
    lines: list[Line] = []
    for tap in tap_names(rows):
        own = [at.get((tap, factor)) for factor in factors]
        lines.append((Cell(tap), *(_cell(row, marks) for row in own)))
        # an interval of no width (all images alike, as at s = 1) and a floor of 0 say nothing
        if any(_has_interval(row) for row in own):
            lines.append((Cell(f"{INDENT}95 %"), *(Cell(_interval(row)) for row in own)))
        if any(row is not None and row.mean is not None and row.floor for row in own):
            lines.append((Cell(f"{INDENT}floor"), *(Cell(_floor(row)) for row in own)))
    title = f"{METRICS[record.metric].title}: {label or record.model.name}"
    return Table(title, _columns("tap", factors), tuple(lines), tuple(_notes(record, rows, marks)))


def parts_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table (tap, one level or channel) × factor of the mean error."""
    rows = parts(record.rows)
    factors = _factors(rows)
    at = {(full_name(row), row.factor): row for row in rows}
    lines = tuple(
        (Cell(name), *(_cell(at.get((name, factor)), {}) for factor in factors))
        for name in dict.fromkeys(full_name(row) for row in rows)
    )
    notes = [f"{MISSING} {reason}: {where}." for reason, where in null_places(rows, _is_null)]
    return Table(
        f"The same, one scale level or channel at a time: {label or record.model.name}",
        _columns("tap", factors), lines, (*_lattice_note(rows), *notes),
    )  # fmt: skip


def controls_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table control × factor of the mean error, tap by tap where a control has several."""
    rows = [row for control in record.controls for row in whole(control.rows)]
    factors = _factors(rows)
    lines: list[Line] = []
    notes: list[str] = []
    for control in record.controls:
        own = whole(control.rows)
        name = control.control or control.model.name
        at = {(row.tap, row.factor): row for row in own}
        taps = tap_names(own)
        if len(taps) > 1:
            lines.append((Cell(name), *(Cell("") for _ in factors)))
        for tap in taps:
            first = f"{INDENT}{tap}" if len(taps) > 1 else name
            lines.append((Cell(first), *(_cell(at.get((tap, factor)), {}) for factor in factors)))
        notes += [f"{MISSING} {name}: {reason}: {where}." for reason, where in null_places(own, _is_null)]
    title = f"Controls, measured the same way: {label or record.model.name}"
    return Table(title, _columns("control", factors), tuple(lines), (*_lattice_note(rows), *notes))


def lie_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table tap × Lie derivative with its interval."""
    columns = (
        Column("tap", "tap", text=True),
        Column("mean", "‖d/dt‖²/‖Φ(f)‖²"),
        Column("interval", "95 %"),
        Column("n", "images"),
    )
    lines = tuple(
        (
            Cell(row.tap),
            Cell(_finite(row.mean)),
            Cell(interval_text(row.low, row.high) if row.mean is not None else MISSING),
            Cell(row.n),
        )
        for row in record.lie
    )
    title = f"Lie derivative at s = 1 (the error per (log s)²): {label or record.model.name}"
    dropped = sum(row.dropped for row in record.lie)
    notes = [f"{dropped} values of single images left out: vanishing or not finite."] if dropped else []
    for form in dict.fromkeys(pattern(row.reason) for row in record.lie if row.mean is None):
        same = [row for row in record.lie if row.mean is None and pattern(row.reason) == form]
        notes.append(f"{MISSING} {merged([r.reason for r in same])}: {', '.join(row.tap for row in same)}.")
    return Table(title, columns, lines, tuple(notes))


def local_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table part × factor of what each part adds alone, the kinds of layers one after the other."""
    rows = record.local
    factors = sorted({row.factor for row in rows})
    found = dict.fromkeys(row.kind for row in rows)
    kinds = [*(kind for kind in KINDS if kind in found), *(kind for kind in found if kind not in KINDS)]
    at = {(row.kind, row.part, row.factor): row for row in rows}
    lines: list[Line] = []
    for kind in kinds:
        lines.append((Cell(kind), *(Cell("") for _ in factors)))
        for part in dict.fromkeys(row.part for row in rows if row.kind == kind):
            own = [at.get((kind, part, factor)) for factor in factors]
            cells = (Cell(None if row is None else _finite(row.mean)) for row in own)
            lines.append((Cell(f"{INDENT}{part}"), *cells))
    notes = ["Each part is fed with exactly rescaled features, so nothing before it counts."]
    for form in dict.fromkeys(pattern(row.reason) for row in rows if row.mean is None):
        same = [row for row in rows if row.mean is None and pattern(row.reason) == form]
        names = ", ".join(dict.fromkeys(row.part for row in same))
        notes.append(f"{MISSING} {merged([row.reason for row in same])}: {names}.")
    title = f"What each part adds alone (same error): {label or record.model.name}"
    return Table(title, _columns("part", factors), tuple(lines), tuple(notes))


def accuracy_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the accuracy, and the agreement with the prediction at s = 1, per factor; below it the controls'."""
    factors = sorted({row.factor for row in record.accuracy})
    columns = (
        Column("measure", "%", text=True),
        *(Column(f"s_{f:.3g}", f"s\u00a0=\u00a0{f:.3g}", percent=True, digits=1) for f in factors),
    )

    def line(name: str, rows: Sequence[AccuracyRow], value: Callable[[AccuracyRow], float | None]) -> Line:
        at = {row.factor: _finite(value(row)) for row in rows}
        return (Cell(name), *(Cell(at.get(factor)) for factor in factors))

    lines = [
        line("accuracy", record.accuracy, lambda row: row.accuracy),
        line("agreement", record.accuracy, lambda row: row.agreement),
    ]
    for control in record.controls:
        if any(row.accuracy is not None for row in control.accuracy):
            name = f"{control.control or control.model.name}: accuracy"
            lines.append(line(name, control.accuracy, lambda row: row.accuracy))
    reasons: dict[str, list[str]] = {}
    for row in record.accuracy:
        if row.reason:
            reasons.setdefault(row.reason, []).append(f"{row.factor:.3g}")
    said = [
        f"{MISSING} {reason}" + ("." if len(at) == len(factors) else f": s = {', '.join(at)}.")
        for reason, at in reasons.items()
    ]
    title = f"Accuracy (%) on images rescaled by s: {label or record.model.name}"
    return Table(title, columns, tuple(lines), ("agreement: the prediction is that at s = 1.", *said))


def interval_text(low: float | None, high: float | None) -> str:
    """Write an interval compactly, with two significant digits or as many as its ends need to differ.

    Examples
    --------
    >>> interval_text(0.3912, 0.4287)
    '.39–.43'
    >>> interval_text(0.41204, 0.41311)
    '.4120–.4131'
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    largest = max(abs(low), abs(high))
    if largest == 0:
        return "0–0"
    digits = max(0, 1 - math.floor(math.log10(largest)))
    if high > low:
        # the ends keep two digits of their distance where they lie close together
        digits = max(digits, -math.floor(math.log10(high - low)))
    if digits > 4 and largest < 0.01:
        return f"{low:.1e}–{high:.1e}".replace("e-0", "e-")
    digits = min(digits, 4)
    return f"{low:.{digits}f}–{high:.{digits}f}".replace("0.", ".")


def _columns(first: str, factors: Sequence[float]) -> tuple[Column, ...]:
    return (
        Column(first, first, text=True),
        *(Column(f"s_{f:.3g}", f"s\u00a0=\u00a0{f:.3g}") for f in factors),
    )


def _factors(rows: Sequence[CurveRow]) -> list[float]:
    return sorted({row.factor for row in rows})


def _is_null(row: CurveRow) -> bool:
    return row.mean is None


def _cell(row: CurveRow | None, marks: dict[str, str]) -> Cell:
    if row is None:
        return Cell("")  # never asked for, so there is no reason to give
    if row.mean is None:
        return Cell(None)
    lattice = OFF_LATTICE if row.on_lattice is False else ""
    signs = dict.fromkeys(marks[form] for form in map(pattern, row.warnings) if form in marks)
    return Cell(_finite(row.mean), lattice + "".join(signs))


def _has_interval(row: CurveRow | None) -> bool:
    return bool(row is not None and row.mean is not None and row.low != row.high)


def _interval(row: CurveRow | None) -> str:
    return interval_text(row.low, row.high) if row is not None and _has_interval(row) else ""


def _floor(row: CurveRow | None) -> float | str:
    if row is None or row.mean is None or not row.floor or not math.isfinite(row.floor):
        return ""
    return row.floor


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _warning_marks(rows: Sequence[CurveRow]) -> dict[str, str]:
    """Return a mark for each form of warning that deserves one, as far as the marks go."""
    return dict(zip(telling_warnings(rows), WARNING_MARKS, strict=False))


def _lattice_note(rows: Sequence[CurveRow]) -> list[str]:
    if any(row.on_lattice is False and row.mean is not None for row in rows):
        return [f"{OFF_LATTICE} s lies off the lattice of scales: levels are interpolated."]
    return []


def _size(record: EquivarianceRecord) -> str:
    """Say what size the images were brought to; nothing where they were measured as they are."""
    if record.data.resized is None:
        return ""
    height, width = record.data.resized
    return f", brought to {height}×{width} pixels"


def _notes(record: EquivarianceRecord, rows: Sequence[CurveRow], marks: dict[str, str]) -> list[str]:
    images = max((row.n for row in rows), default=0)
    kept = "background Φ(0) subtracted" if record.background == "empty" else "background kept"
    runs = len(record.pooled)
    over = f"{runs} runs, each on {images} images" if runs else f"{images} images"
    notes = [f"Mean over {over} of {with_realisations([record.data])}{_size(record)}; {kept}."]
    if record.trained and (weights := record.weights or record.run) is not None:
        notes.append(f"Weights: {weights.removeprefix('weights ')}.")
    if any(_has_interval(row) for row in rows):
        what = "interval of the mean over runs" if runs else "interval of the mean"
        notes.append(f"95 %: {what} (bootstrap); floor: what resampling twice instead of once costs.")
    notes += _lattice_note(rows)
    for warning in warning_places(rows):
        mark = marks.get(warning.form)
        notes.append(f"{mark + ' ' if mark else ''}{warning.text}: {warning.places}.")
    notes += [f"{MISSING} {reason}: {where}." for reason, where in null_places(rows, _is_null)]
    dropped = max((row.dropped for row in rows), default=0)
    if dropped:
        notes.append(f"Up to {dropped} images left out at a tap: their features vanish or are not finite.")
    return notes
