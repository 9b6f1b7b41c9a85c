"""Equivariance curves as tables: tap × factor of Δ with interval and floor, and all that was measured with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from secli.metrics import METRICS
from secli.records.notes import Form
from secli.records.schema import AccuracyRow, CurveRow, EquivarianceRecord, ExplainRow, LocalRow
from secli.tables.curve_frame import curve_frame
from secli.tables.curve_notes import by_reason, missing, telling_warnings, warnings_of
from secli.tables.curve_rows import full_name, parts, tap_names, whole
from secli.tables.dataset_names import with_realisations
from secli.tables.labels import distinct_labels
from secli.tables.render import check_format, render
from secli.tables.render.json import dump_json
from secli.tables.statistic import finite
from secli.tables.table import MISSING, Cell, Column, Table

OFF_LATTICE = "°"
WARNING_MARKS = ("†", "‡", "*")
INDENT = "\u00a0\u00a0"
MOST_OF = 99.5  # per cent of the cells: above, all are compared
# as the fields of the record order them: whole blocks first, then kinds of layers along a block
KINDS = ("stage", "conv", "pool", "norm", "activation", "pointwise")

CHANGES: tuple[tuple[str, Callable[[AccuracyRow], float | None], str], ...] = (
    (
        "consistency",
        lambda row: row.consistency,
        "the prediction is that at the next measured factor towards s = 1",
    ),
    (
        "probability lost",
        lambda row: row.probability_drop,
        "the true class's probability at s = 1 less that at s",
    ),
    ("cosine", lambda row: row.cosine, "between the embedding ({}) and that at s = 1, times 100"),
)

Line = tuple[Cell, ...]
Marks = Mapping[Form, str]
AtFactor = CurveRow | LocalRow | AccuracyRow | ExplainRow


def render_curves(records: Sequence[EquivarianceRecord], format: str, width: int = 100) -> str:
    """Write equivariance curves in one of the five formats; ``width`` is that of the terminal (``table`` only).

    ``table``, ``markdown`` and ``latex``: per network the table tap × factor of the error with its interval and its
    floor, and where they were measured its single levels and channels, its controls, the Lie derivative, what each
    part adds alone, and the accuracy. ``csv``: one tidy table with one line per number and all that belongs to it.
    ``json``: the record as stored, ``{model, data, metric, rows: [...], accuracy: [...], ...}``; a list of these for
    several networks.

    Raises
    ------
    UnknownNameError
        On an unknown format.
    """
    if check_format(format) == "json":
        # through pydantic, which writes what is not a number as null
        content = [json.loads(record.model_dump_json()) for record in records]
        return dump_json(content[0] if len(content) == 1 else content)
    if format == "csv":
        return render(curve_frame(records), "csv")
    labelled = zip(records, distinct_labels(records), strict=True)
    return render([table for one, label in labelled for table in tables_of(one, label)], format, width)


def tables_of(record: EquivarianceRecord, label: str) -> list[Table]:
    """Return all tables of one record; what was not measured has none."""
    kinds = (
        (record.rows, curve_table),
        (parts(record.rows), parts_table),
        (record.controls, controls_table),
        (record.lie, lie_table),
        (record.local, local_table),
        (record.explained, explain_table),
        (record.accuracy, accuracy_table),
    )
    return [table(record, label) for rows, table in kinds if rows]


def curve_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table tap × factor: the mean error, below it its interval and the floor of the resampling.

    What could not be measured is '—', with the reason below; taps without any value share a line; warnings are
    footnotes.
    """
    rows = whole(record.rows)
    empty = [
        tap for tap in tap_names(rows) if all(finite(row.mean) is None for row in rows if row.tap == tap)
    ]
    folded = empty if len(empty) > 1 else []
    marks = dict(zip(telling_warnings(rows), WARNING_MARKS, strict=False))
    lines: list[Line] = []
    for tap in tap_names(rows):
        own = _at_factors(rows, [row for row in rows if row.tap == tap])
        if tap in folded:
            continue
        lines.append((Cell(tap), *(_cell(row, marks) for row in own)))
        measured = [row if row is not None and row.mean is not None else None for row in own]
        # an interval of no width (all images alike, as at s = 1) and a floor of 0 say nothing
        wide = [row if row is not None and row.low != row.high else None for row in measured]
        intervals = ["" if row is None else interval_text(row.low, row.high) for row in wide]
        floors = [finite(row.floor) or "" if row is not None else "" for row in measured]
        lines += [(Cell(f"{INDENT}95 %"), *map(Cell, intervals))] if any(wide) else []
        lines += [(Cell(f"{INDENT}floor"), *map(Cell, floors))] if any(floors) else []
    if folded:
        lines.append(_line(f"{len(folded)} taps without a value", rows, []))
    title = f"{METRICS[record.metric].title}: {label or record.model.name}"
    return Table(title, _columns("tap", rows), tuple(lines), tuple(_notes(record, rows, marks)))


def parts_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table (tap, one level or channel) × factor of the mean error."""
    rows = parts(record.rows)
    names = dict.fromkeys(map(full_name, rows))
    lines = [_line(name, rows, [row for row in rows if full_name(row) == name]) for name in names]
    title = f"The same, one scale level or channel at a time: {label or record.model.name}"
    notes = (*_lattice_notes(rows), *(f"{MISSING} {reason}: {at}." for reason, at in missing(rows)))
    return Table(title, _columns("tap", rows), tuple(lines), notes)


def controls_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table control × factor of the mean error, tap by tap where a control has several."""
    rows = [row for control in record.controls for row in whole(control.rows)]
    lines: list[Line] = []
    notes = _lattice_notes(rows)
    for control in record.controls:
        own, name = whole(control.rows), control.control or control.model.name
        taps = tap_names(own)
        lines += [_line(name, rows, [])] if len(taps) > 1 else []
        for tap in taps:
            first = f"{INDENT}{tap}" if len(taps) > 1 else name
            lines.append(_line(first, rows, [row for row in own if row.tap == tap]))
        notes += [f"{MISSING} {name}: {reason}: {where}." for reason, where in missing(own)]
    title = f"Controls, measured the same way: {label or record.model.name}"
    return Table(title, _columns("control", rows), tuple(lines), tuple(notes))


def lie_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table tap × Lie derivative with its interval."""
    columns = (
        Column("tap", "tap", text=True),
        Column("mean", "‖d/dt‖²/‖Φ(f)‖²"),
        Column("interval", "95 %"),
        Column("n", "images"),
    )
    lines = []
    for row in record.lie:
        interval = interval_text(row.low, row.high) if row.mean is not None else MISSING
        lines.append((Cell(row.tap), Cell(finite(row.mean)), Cell(interval), Cell(row.n)))
    title = f"Lie derivative at s = 1 (the error per (log s)²): {label or record.model.name}"
    dropped = sum(row.dropped for row in record.lie)
    notes = [f"{dropped} values of single images left out: vanishing or not finite."] if dropped else []
    for reason, same in by_reason(record.lie):
        notes.append(f"{MISSING} {reason}: {', '.join(row.tap for row in same)}.")
    return Table(title, columns, tuple(lines), tuple(notes))


def local_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table part × factor of what each part adds alone, the kinds of layers one after the other."""
    rows = record.local
    factors = sorted({row.factor for row in rows})
    found = dict.fromkeys(row.kind for row in rows)
    at = {(row.kind, row.part, row.factor): Cell(finite(row.mean)) for row in rows}
    lines: list[Line] = []
    for kind in (*(kind for kind in KINDS if kind in found), *(kind for kind in found if kind not in KINDS)):
        lines.append((Cell(kind), *(Cell("") for _ in factors)))
        for part in dict.fromkeys(row.part for row in rows if row.kind == kind):
            cells = (at.get((kind, part, factor), Cell(None)) for factor in factors)
            lines.append((Cell(f"{INDENT}{part}"), *cells))
    notes = ["Each part is fed with exactly rescaled features, so nothing before it counts."]
    for reason, same in by_reason(rows):
        notes.append(f"{MISSING} {reason}: {', '.join(dict.fromkeys(row.part for row in same))}.")
    title = f"What each part adds alone (same error): {label or record.model.name}"
    return Table(title, _columns("part", rows), tuple(lines), tuple(notes))


def explain_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table tap × factor of Δ, and below it what canvas, levels and grid cost: differences of readings."""
    rows = record.explained
    factors = sorted({row.factor for row in rows})
    kinds: tuple[tuple[str, Callable[[ExplainRow], float | None]], ...] = (
        ("canvas", lambda row: row.canvas),
        ("between levels", lambda row: row.levels),
        ("grid", lambda row: row.grid),
    )
    lines: list[Line] = []
    for tap in dict.fromkeys(row.tap for row in rows):
        at = {row.factor: row for row in rows if row.tap == tap}
        lines.append((Cell(tap), *(Cell(finite(at[s].error) if s in at else None) for s in factors)))
        for name, cost in kinds:
            values = [finite(cost(at[s])) if s in at else None for s in factors]
            if any(value is not None for value in values):
                lines.append((Cell(f"{INDENT}{name}"), *(Cell(value) for value in values)))
    title = f"Where the error comes from (Δ_s, and differences of readings): {label or record.model.name}"
    images = max((row.n for row in rows), default=0)
    notes = [
        f"Δ on {images} images. Below it differences of two readings, which need not add up: canvas, less Δ with an "
        "empty margin as wide as the taps see; with that margin, between levels, less Δ of the factors on the lattice "
        "on either side, and grid, less Δ of the pictures enlarged twice."
    ]
    reasons: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.reason is not None:
            reasons.setdefault(str(row.reason), {})[row.tap] = None
    notes += [f"{MISSING} {reason}: {', '.join(taps)}." for reason, taps in reasons.items()]
    return Table(title, _columns("tap", rows), tuple(lines), tuple(notes))


def accuracy_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the accuracy and how predictions, probabilities and embeddings change, per factor; the controls' below."""
    factors = sorted({row.factor for row in record.accuracy})

    def line(name: str, rows: Sequence[AccuracyRow], value: Callable[[AccuracyRow], float | None]) -> Line:
        at = {row.factor: finite(value(row)) for row in rows}
        return (Cell(name), *(Cell(at.get(factor)) for factor in factors))

    lines = [
        line("accuracy", record.accuracy, lambda row: row.accuracy),
        line("agreement", record.accuracy, lambda row: row.agreement),
    ]
    notes = ["agreement: the prediction is that at s = 1."]
    for name, value, words in CHANGES:
        if any(value(row) is not None for row in record.accuracy):
            lines.append(line(name, record.accuracy, value))
            notes.append(f"{name}: {words.format(record.embedding)}.")
    for control in record.controls:
        if any(row.accuracy is not None for row in control.accuracy):
            name = f"{control.control or control.model.name}: accuracy"
            lines.append(line(name, control.accuracy, lambda row: row.accuracy))
    reasons: dict[str, list[str]] = {}
    for row in record.accuracy:
        if row.reason:
            reasons.setdefault(str(row.reason), []).append(f"{row.factor:.3g}")
    for reason, at in reasons.items():
        notes.append(f"{MISSING} {reason}{'' if len(at) == len(factors) else ': s = ' + ', '.join(at)}.")
    title = f"Accuracy (%) on images rescaled by s: {label or record.model.name}"
    columns = _columns("measure", record.accuracy, "%", percent=True, digits=1)
    return Table(title, columns, tuple(lines), tuple(notes))


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


def _columns(
    key: str,
    rows: Iterable[AtFactor],
    title: str = "",
    percent: bool = False,
    digits: int | None = None,
) -> tuple[Column, ...]:
    """Return the column of names, then one per factor."""
    factors = [
        Column(f"s_{f:.3g}", f"s\u00a0=\u00a0{f:.3g}", percent=percent, digits=digits)
        for f in sorted({row.factor for row in rows})
    ]
    return (Column(key, title or key, text=True), *factors)


def _at_factors(rows: Sequence[CurveRow], own: Sequence[CurveRow]) -> list[CurveRow | None]:
    """Return one's own row at each factor of all rows."""
    at = {row.factor: row for row in own}
    return [at.get(factor) for factor in sorted({row.factor for row in rows})]


def _line(name: str, rows: Sequence[CurveRow], own: Sequence[CurveRow]) -> Line:
    return (Cell(name), *(_cell(row) for row in _at_factors(rows, own)))


def _cell(row: CurveRow | None, marks: Marks | None = None) -> Cell:
    if row is None:
        return Cell("")  # never asked for, so there is no reason to give
    if row.mean is None:
        return Cell(None)
    signs = dict.fromkeys((marks or {}).get(note.form, "") for note in row.warnings)
    return Cell(finite(row.mean), (OFF_LATTICE if row.on_lattice is False else "") + "".join(signs))


def _lattice_notes(rows: Sequence[CurveRow]) -> list[str]:
    if any(row.on_lattice is False and row.mean is not None for row in rows):
        return [f"{OFF_LATTICE} s lies off the lattice of scales: levels are interpolated."]
    return []


def _around(record: EquivarianceRecord) -> list[str]:
    """Say what was around the pictures, where it was not black alone."""
    found = record.surroundings
    if found is None:
        return []
    size = f"{found.window[0]}×{found.window[1]}"
    span = _span(found.enlarged, "d")
    if found.kind == "margin":
        return [f"An empty margin of {span} px around the pictures, at {names_of(found.taps)}."]
    words = f"Surround: photo (windows of {size} in photographs)"
    if any(found.enlarged):
        less = " as far as the photographs reach," if min(found.enlarged) < found.wanted else ""
        words += f"; enlarged by {span} px on every side,{less} at {names_of(found.taps)}"
    if found.left_out:
        words += f"; {found.left_out} photographs too small, left out"
    return [f"{words}."]


def names_of(taps: Sequence[str]) -> str:
    """Return the names of some taps, a few of them where there are many."""
    return ", ".join(taps) if len(taps) <= 6 else f"{', '.join(taps[:5])} and {len(taps) - 5} more taps"


def _compared(rows: Sequence[CurveRow]) -> list[str]:
    """Say how much of the taps is compared, and which border is left out, where it is not everything."""
    measured = [row for row in rows if finite(row.mean) is not None and row.factor != 1]
    shares = [100 * row.compared for row in measured if row.compared is not None]
    borders = [row.border for row in measured if row.border]
    words = []
    if shares and min(shares) < MOST_OF:
        words.append(f"{_span(shares, '.0f')} % of a tap's cells are compared")
    if borders:
        words.append(f"a border of {_span(borders, '.3g')} px is left out")
    return [f"{'; '.join(words)}.".capitalize()] if words else []


def _span(values: Sequence[float], digits: str) -> str:
    low, high = (format(end, digits) for end in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def _notes(record: EquivarianceRecord, rows: Sequence[CurveRow], marks: Marks) -> list[str]:
    images = max((row.n for row in rows), default=0)
    kept = "background Φ(0) subtracted" if record.background == "empty" else "background kept"
    runs = len(record.pooled)
    over = f"{runs} runs, each on {images} images" if runs else f"{images} images"
    resized = record.data.resized
    windows = record.surroundings is not None and record.surroundings.kind == "photo"
    size = "" if resized is None or windows else f", brought to {resized[0]}×{resized[1]} pixels"
    data = with_realisations([record.data])
    notes = [
        f"Mean over {over} of {data}{size}; {kept}."
        if images
        else f"No value on images of {data}{size}; {kept}."
    ]
    if record.trained and (weights := record.weights or record.run) is not None:
        notes.append(f"Weights: {weights.removeprefix('weights ')}.")
    if any(row.mean is not None and row.low != row.high for row in rows):
        what = "interval of the mean over runs" if runs else "interval of the mean"
        notes.append(f"95 %: {what} (bootstrap); floor: what resampling twice instead of once costs.")
    notes += _around(record)
    notes += _compared(rows)
    notes += _lattice_notes(rows)
    for warning in warnings_of(rows):
        notes.append(f"{marks.get(warning.form, '')} {warning.text}: {warning.where}.".lstrip())
    notes += [f"{MISSING} {reason}: {at}." for reason, at in missing(rows)]
    dropped = max((row.dropped for row in rows), default=0)
    if dropped:
        notes.append(f"Up to {dropped} images left out at a tap: their features vanish or are not finite.")
    return notes
