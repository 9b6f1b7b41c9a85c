"""The comparison as tables and as JSON: measured rows, published figures beside them or in a table of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from secli.errors import UnknownNameError
from secli.metrics import METRICS
from secli.tables.collect import SetAside
from secli.tables.compared import compared_notes
from secli.tables.formats import Cell, Column, Table, statistic_json
from secli.tables.groups import Row, Summary, trained_words
from secli.tables.published import Published, Reported, elsewhere, reported
from secli.tables.readings import Measure, accuracy_at
from secli.tables.statistic import Statistic, statistic

KIND_TITLES = {
    "paper": "paper (%)",
    "reproduction": "reproduction (%)",
    "citation": "as cited (%)",
    "code": "code (%)",
}
METRIC_NAMES = {
    "test_error": "error (%)",
    "accuracy": "accuracy (%)",
    "equivariance_error": "equivariance error",
    "parameters": "parameters",
}
SORT_ALIASES = {"error": "test_error", "time": "train_seconds"}


@dataclass(frozen=True)
class Comparison:
    """What ``secli compare`` shows.

    Attributes
    ----------
    main
        One row per model.
    others
        Published accuracy over scale beside the measured one, and published figures of other protocols.
    set_aside
        The runs that entered no average, with the reason; None when there are none.
    """

    summary: Summary
    main: Table
    others: tuple[Table, ...]
    set_aside: Table | None
    reported: tuple[tuple[Reported, ...], ...]

    def as_json(self) -> list[dict[str, Any]]:
        """Return the rows as JSON objects.

        Each row is ``{model, trained, by, n, test_error, delta, delta_at, accuracy_at, parameters, train_seconds,
        data, training, options, runs, reported}``: ``test_error`` and ``train_seconds`` are ``{mean, std, n}``
        (fractions, seconds; std null for n = 1, mean null when there is none), ``delta`` is ``{tap, metric,
        background, data, images, factors, mean, std, n}`` or null, ``delta_at`` and ``accuracy_at`` are lists of
        ``{factor, mean, std, n}``, ``reported`` (with ``--published``) is a list of ``{system, metric, mean, std, n,
        by_factor, uncertainty, source, kind, place, protocol, departures}``.
        """
        return [
            _row_json(row, self.summary, found)
            for row, found in zip(self.summary.rows, self.reported, strict=True)
        ]


def compare(
    summary: Summary, published: Published | None = None, sort: str | None = None, accuracy: bool = False
) -> Comparison:
    """Lay a summary out as tables.

    Parameters
    ----------
    summary : Summary
        The rows.
    published : Published, optional
        Figures to put beside the measured ones.
    sort : str, optional
        Key of a column (``-`` before it: from the largest); rows without a value come last.
    accuracy : bool
        Whether the accuracy at the chosen factors has columns.

    Raises
    ------
    UnknownNameError
        When no column has the key that ``sort`` names; the message suggests the near miss.
    """
    summary = _sorted(summary, sort)
    found = tuple(tuple(reported(row, published)) if published else () for row in summary.rows)
    columns, cells, notes = _measured(summary, accuracy)
    marks: dict[tuple[str, ...], str] = {}
    for kind, title in KIND_TITLES.items():
        beside = [[r for r in row if r.source.kind == kind and r.figure.value is not None] for row in found]
        if any(beside):
            columns.append(Column(f"reported_{kind}", title, percent=True, digits=2, statistic=True))
            for row_cells, entries in zip(cells, beside, strict=True):
                row_cells.append(_reported_cell(entries, marks))
    if marks:
        columns.append(Column("reported_departures", "departures", text=True, machine=True))
        for row_cells, some in zip(cells, found, strict=True):
            row_cells.append(Cell("; ".join(some[0].departures) if some and some[0].departures else None))
    notes += _published_notes(found, marks)
    title = "Comparison over " + trained_words(summary.rows)
    main = Table(title, tuple(columns), tuple(tuple(row) for row in cells), tuple(notes))
    others = (*_over_scale(summary.rows, found), *_apart(summary.rows, published))
    return Comparison(summary, main, others, aside_table(summary.set_aside), found)


def _measured(summary: Summary, accuracy: bool) -> tuple[list[Column], list[list[Cell]], list[str]]:
    """Return columns, cells and notes of what was measured; a column that would be empty is left out."""
    rows = summary.rows
    specs: list[tuple[Column, Callable[[Row], Any], bool]] = [
        (Column("model", "model", text=True), lambda row: row.label, True),
        *((Column(key, key, text=True), _grouping(key), True) for key in summary.by if key != "model"),
        (Column("n", "n"), lambda row: row.n, True),
        (
            Column("test_error", "test error (%)", percent=True, digits=2, statistic=True),
            lambda row: row.test_error,
            any(row.test_error.n for row in rows),
        ),
    ]
    measured = summary.measure is not None
    specs.append(
        (Column("delta", "Δ", statistic=True), lambda row: row.delta, measured and bool(summary.mean_factors))
    )
    for f in summary.factors:
        column = Column(f"delta_{f:.3g}", f"Δ({f:.3g})", statistic=True)
        specs.append((column, _at("delta_at", f), measured))
    specs.append((Column("tap", "tap", text=True), lambda row: row.tap, measured))
    for f in summary.factors if accuracy else ():
        column = Column(
            f"accuracy_{f:.3g}",
            f"accuracy at s\u00a0=\u00a0{f:.3g}\u00a0(%)",
            percent=True,
            digits=2,
            statistic=True,
        )
        specs.append((column, _at("accuracy_at", f), measured))
    specs += [
        (Column("parameters", "parameters"), lambda row: row.parameters, True),
        (
            Column("train_seconds", "training (s)", statistic=True),
            lambda row: row.train_seconds,
            any(row.train_seconds.n for row in rows),
        ),
    ]
    shown = [(column, read) for column, read, wanted in specs if wanted]
    cells = [[_cell(read(row), row, column.key) for column, read in shown] for row in rows]
    return [column for column, _ in shown], cells, _measured_notes(summary, accuracy)


def _grouping(key: str) -> Callable[[Row], Any]:
    return lambda row: None if row.by[key] is None else str(row.by[key])


def _at(attribute: str, factor: float) -> Callable[[Row], Any]:
    return lambda row: getattr(row, attribute)[factor]


def _cell(value: Any, row: Row, key: str) -> Cell:
    """Mark a statistic that rests on fewer runs than its row; say a dataset as its reader knows it."""
    fewer = isinstance(value, Statistic) and 0 < value.n < row.n
    return Cell(
        value, f" (n={value.n})" if fewer else "", (row.data_called or "") if key == "dataset" else ""
    )


def _measured_notes(summary: Summary, accuracy: bool) -> list[str]:
    rows = summary.rows
    notes = ["Mean ± standard deviation (n − 1) over n runs: realisations of the data and seeds."]
    single = [row.named for row in rows if row.n == 1]
    if single:
        who = "every row" if len(single) == len(rows) else ", ".join(dict.fromkeys(single))
        notes.append(f"A single run (n = 1), so no ±: {who}.")
    if summary.measure is not None:
        notes.append(measure_note(summary.measure, summary.measured_on))
        if summary.mean_factors:
            factors = ", ".join(f"{f:.3g}" for f in summary.mean_factors)
            notes.append(
                f"Δ: mean of Δ(s) over s = {factors}, the factors below 1 that all rows could measure, "
                "at the deepest spatial tap measured at all of them unless --tap names one; factors within 2 % are one."
            )
        notes += compared_notes(rows, (*summary.mean_factors, *summary.factors))
        unmeasured = list(dict.fromkeys(row.named for row in rows if not row.curves))
        if unmeasured:
            notes.append(f"Δ not measured ('secli equivariance' does): {'; '.join(unmeasured)}.")
        if accuracy:
            notes.append(f"Accuracy at s: on images of {summary.measured_on} rescaled by s.")
    return [*notes, *summary.notes]


def measure_note(measure: Measure, on: str) -> str:
    """Say how Δ was measured, and on which images."""
    metric, background, _, images = measure
    kept = "background Φ(0) subtracted" if background == "empty" else "background kept"
    return f"Δ(s): equivariance error ({METRICS[metric].words}; {kept}) at the tap named, on {images} images of {on}."


def _reported_cell(entries: Sequence[Reported], marks: dict[tuple[str, ...], str]) -> Cell:
    """Return a published figure, marked where the row departs from its setting."""
    if not entries:
        return Cell(None)
    first = entries[0]
    mark = ""
    if first.departures:
        mark = marks.setdefault(first.departures, dagger(len(marks)))
    return Cell(Statistic(first.figure.value, first.figure.std, first.protocol.realisations or 0), mark)


def dagger(index: int) -> str:
    """Return †, ‡, then doubled and so on."""
    return ("†", "‡")[index % 2] * (index // 2 + 1)


def _published_notes(found: Sequence[Sequence[Reported]], marks: Mapping[tuple[str, ...], str]) -> list[str]:
    notes = [
        f"{mark} Not the published setting: {'; '.join(departures)}." for departures, mark in marks.items()
    ]
    said: dict[tuple[str, str], list[str]] = {}
    for entry in (r for row in found for r in row if r.figure.value is not None):
        protocols = said.setdefault((entry.source.kind, entry.source.text), [])
        if entry.protocol.description not in protocols:
            protocols.append(entry.protocol.description)
    for (kind, text), protocols in said.items():
        notes.append(f"{KIND_TITLES[kind].removesuffix(' (%)')}: {text} ({'; '.join(protocols)}).")
    return notes


def _over_scale(rows: Sequence[Row], found: Sequence[Sequence[Reported]]) -> list[Table]:
    """Return the published accuracies over scale, the measured ones below them at the same factors."""
    lines: list[tuple[Cell, ...]] = []
    entries = [
        (row, entry)
        for row, some in zip(rows, found, strict=True)
        for entry in some
        if entry.figure.by_factor
    ]
    if not entries:
        return []
    factors = sorted({f for _, entry in entries for f in entry.figure.by_factor}, reverse=True)
    notes: list[str] = []
    for row, entry in entries:
        measured = [_accuracy(row, f) for f in factors]
        lines.append((Cell(row.named), Cell("measured"), *(Cell(value) for value in measured)))
        published = (Cell(entry.figure.by_factor.get(f)) for f in factors)
        lines.append((Cell(row.named), Cell("published"), *published))
        read_off = (
            f", read off {entry.figure.place}, ±{entry.figure.uncertainty:g}"
            if entry.figure.uncertainty
            else ""
        )
        for note in (
            f"Published: {entry.source.text}{read_off}; {entry.protocol.description}.",
            f"{row.named}: not the published setting: {'; '.join(entry.departures)}."
            if entry.departures
            else "",
        ):
            if note and note not in notes:
                notes.append(note)
    notes.append("Measured on the images of the equivariance curves, at the nearest factor within 2 %.")
    columns = (
        Column("model", "model", text=True),
        Column("from", "from", text=True),
        *(Column(f"accuracy_{f:.3g}", f"s\u00a0=\u00a0{f:.3g}", percent=True, digits=1) for f in factors),
    )
    return [
        Table(
            "Accuracy (%) over scale factors s, measured and published", columns, tuple(lines), tuple(notes)
        )
    ]


def _accuracy(row: Row, factor: float) -> float | None:
    return statistic(accuracy_at(record, factor) for record in row.curves).mean


def _apart(rows: Sequence[Row], published: Published | None) -> list[Table]:
    """Return the figures of other protocols, which must not stand in a column beside ours."""
    found = elsewhere(rows, published) if published else []
    if not found:
        return []
    columns = (
        Column("system", "system", text=True),
        Column("metric", "measure", text=True),
        Column("value", "value", digits=2, statistic=True),
        Column("source", "source", text=True),
    )
    lines = []
    sources: dict[str, str] = {}
    for entry in found:
        figure = entry.figure
        said = f"{entry.source.text}: {entry.protocol.description}"
        key = sources.setdefault(said, f"[{len(sources) + 1}]")
        # values of several measures share the column: the measure's name says per cent
        scale = 100 if figure.metric in ("test_error", "accuracy") else 1
        value = Statistic(_times(scale, figure.value), _times(scale, figure.std), 0)
        shown = int(figure.value or 0) if figure.metric == "parameters" else value
        lines.append((Cell(figure.system), Cell(METRIC_NAMES[figure.metric]), Cell(shown), Cell(key)))
    title = "Other published figures: other protocols or other networks, not comparable with the rows above"
    return [Table(title, columns, tuple(lines), tuple(f"{key} {said}." for said, key in sources.items()))]


def _times(scale: float, value: float | None) -> float | None:
    return None if value is None else scale * value


def aside_table(aside: Sequence[SetAside]) -> Table | None:
    """Return what entered no average, with the reason; None where there is nothing."""
    if not aside:
        return None
    columns = (Column("path", "run", text=True), Column("reason", "reason", text=True))
    lines = tuple((Cell(one.path), Cell(one.reason)) for one in aside)
    return Table("Set aside, with the reason", columns, lines)


def grouped_aside(aside: Sequence[SetAside]) -> list[SetAside]:
    """Say each reason once, with the first of the runs that it holds for."""
    paths: dict[str, list[str]] = {}
    for one in aside:
        paths.setdefault(one.reason, []).append(one.path)
    return [
        SetAside(some[0] + (f" and {len(some) - 1} more" if len(some) > 1 else ""), reason)
        for reason, some in paths.items()
    ]


def _sorted(summary: Summary, sort: str | None) -> Summary:
    if sort is None:
        return summary
    descending, key = sort.startswith("-"), sort.removeprefix("-")
    key = SORT_ALIASES.get(key, key)
    readers: dict[str, Callable[[Row], Any]] = {
        "n": lambda row: row.n,
        "test_error": lambda row: row.test_error.mean,
        "delta": lambda row: row.delta.mean,
        "parameters": lambda row: row.parameters,
        "train_seconds": lambda row: row.train_seconds.mean,
        **{name: _by_value(name) for name in summary.by},
        **{f"delta_{f:.3g}": _mean_at("delta_at", f) for f in summary.factors},
        **{f"accuracy_{f:.3g}": _mean_at("accuracy_at", f) for f in summary.factors},
    }
    if key not in readers:
        raise UnknownNameError("column --sort", key, [*readers, *SORT_ALIASES])
    read = readers[key]
    there = [row for row in summary.rows if read(row) is not None]
    missing = [row for row in summary.rows if read(row) is None]
    numeric = all(isinstance(read(row), int | float) for row in there)
    there.sort(key=lambda row: read(row) if numeric else str(read(row)), reverse=descending)
    return replace(summary, rows=(*there, *missing))


def _by_value(name: str) -> Callable[[Row], Any]:
    return lambda row: row.by[name]


def _mean_at(attribute: str, factor: float) -> Callable[[Row], Any]:
    return lambda row: getattr(row, attribute)[factor].mean


def _row_json(row: Row, summary: Summary, found: Sequence[Reported]) -> dict[str, Any]:
    delta: dict[str, Any] | None = None
    if summary.measure is not None and row.curves:
        metric, background, data, images = summary.measure
        delta = {
            "tap": row.tap,
            "metric": metric,
            "background": background,
            "data": data,
            "images": images,
            "factors": list(summary.mean_factors),
            **statistic_json(row.delta),
        }
    return {
        "model": row.model,
        "trained": row.trained,
        "by": dict(row.by),
        "n": row.n,
        "test_error": statistic_json(row.test_error),
        "delta": delta,
        "delta_at": [{"factor": f, **statistic_json(value)} for f, value in row.delta_at.items()],
        "accuracy_at": [{"factor": f, **statistic_json(value)} for f, value in row.accuracy_at.items()],
        "parameters": row.parameters,
        "train_seconds": statistic_json(row.train_seconds),
        "data": row.data,
        "training": dict(row.settings) if row.settings is not None else None,
        "options": dict(row.options),
        "runs": list(row.runs),
        "reported": [entry.as_json() for entry in found],
    }
