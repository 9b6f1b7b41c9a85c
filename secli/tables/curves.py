"""Equivariance curves as tables: tap × factor of Δ, and accuracy over factors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from secli.records import CurveRow, EquivarianceRecord
from secli.tables.formats import MISSING, Cell, Column, Table, check_format, dump_json, render
from secli.tables.labels import distinct_labels
from secli.tables.reasons import merged, pattern

OFF_LATTICE = "°"
METRIC_TITLES = {
    "squared": "Equivariance error Δ_s (squared, relative to ‖L_sΦ(f)‖²)",
    "relative": "Equivariance error (relative to ‖L_sΦ(f)‖)",
    "absolute": "Equivariance error ‖L_sΦ(f) − Φ(L_s f)‖",
}


def render_curves(records: Sequence[EquivarianceRecord], format: str, width: int = 100) -> str:
    """Write equivariance curves in one of the five formats.

    Parameters
    ----------
    records : sequence of EquivarianceRecord
        One per network.
    format : str
        ``table``, ``markdown`` and ``latex``: one table tap × factor per network, and its accuracy. ``csv``: one
        line per network, tap and factor, with every number of the record. ``json``: the record as stored,
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
        tables.append(curve_table(record, label))
        if record.accuracy:
            tables.append(accuracy_table(record, label))
    return render(tables, format, width)


def curve_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the table tap × factor of the error; what could not be measured is '—', with the reason below."""
    factors = sorted({row.factor for row in record.rows})
    taps = list(dict.fromkeys(row.tap for row in record.rows))
    at = {(row.tap, row.factor): row for row in record.rows}
    lines = tuple((Cell(tap), *(_cell(at.get((tap, f))) for f in factors)) for tap in taps)
    columns = (
        Column("tap", "tap", text=True),
        *(Column(f"s_{f:.3g}", f"s\u00a0=\u00a0{f:.3g}") for f in factors),
    )
    title = f"{METRIC_TITLES[record.metric]}: {label or record.model.name}"
    return Table(title, columns, lines, tuple(_notes(record)))


def accuracy_table(record: EquivarianceRecord, label: str | None = None) -> Table:
    """Return the accuracy, and the agreement with the prediction at s = 1, per factor."""
    rows = sorted(record.accuracy, key=lambda row: row.factor)
    columns = (
        Column("measure", "%", text=True),
        *(
            Column(f"s_{row.factor:.3g}", f"s\u00a0=\u00a0{row.factor:.3g}", percent=True, digits=1)
            for row in rows
        ),
    )
    lines = (
        (Cell("accuracy"), *(Cell(row.accuracy) for row in rows)),
        (Cell("agreement"), *(Cell(row.agreement) for row in rows)),
    )
    reasons = dict.fromkeys(f"s = {row.factor:.3g}: {row.reason}." for row in rows if row.reason)
    title = f"Accuracy (%) on images rescaled by s: {label or record.model.name}"
    notes = ("agreement: the prediction is that at s = 1.", *reasons)
    return Table(title, columns, lines, notes)


def long_table(records: Sequence[EquivarianceRecord]) -> Table:
    """Return one row per network, tap and factor, with every number of the record."""
    names = [name for name in CurveRow.model_fields if name not in ("tap", "field", "factor")]
    columns = tuple(Column(name, name) for name in ("network", "metric", "tap", "field", "factor", *names))
    lines = []
    for record, label in zip(records, distinct_labels(records), strict=True):
        for row in record.rows:
            values = (getattr(row, name) for name in ("tap", "field", "factor", *names))
            cells = (Cell(_finite(value)) for value in values)
            lines.append((Cell(label), Cell(record.metric), *cells))
    return Table("Equivariance curves", columns, tuple(lines))


def _cell(row: CurveRow | None) -> Cell:
    if row is None:
        return Cell(None)
    return Cell(_finite(row.mean), OFF_LATTICE if row.on_lattice is False and row.mean is not None else "")


def _finite(value: str | float | None) -> str | float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _notes(record: EquivarianceRecord) -> list[str]:
    images = max((row.n for row in record.rows), default=0)
    kept = "background Φ(0) subtracted" if record.background == "empty" else "background kept"
    notes = [f"Mean over {images} images of {record.data.name} r{record.data.realisation}; {kept}."]
    if any(row.on_lattice is False and row.mean is not None for row in record.rows):
        notes.append(f"{OFF_LATTICE} s lies off the lattice of scales: levels are interpolated.")
    for form in dict.fromkeys(pattern(row.reason) for row in record.rows if row.mean is None):
        same = [row for row in record.rows if row.mean is None and pattern(row.reason) == form]
        taps: dict[str, list[str]] = {}
        for row in same:
            taps.setdefault(row.tap, []).append(f"{row.factor:.3g}")
        places = "; ".join(f"{tap} at s = {', '.join(factors)}" for tap, factors in taps.items())
        notes.append(f"{MISSING} {merged([row.reason for row in same])}: {places}.")
    return notes
