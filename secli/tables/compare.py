"""The comparison: a pivot without columns, one row per model, published figures in columns of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from secli.errors import UnknownNameError
from secli.tables import notes
from secli.tables.collect import SetAside
from secli.tables.groups import Group, Summary
from secli.tables.layout import Marks, column_of
from secli.tables.published import KINDS, Published, Reported, elsewhere, reported, source_notes
from secli.tables.quantities import QUANTITIES, Quantity, accuracy_at_factor, delta_at
from secli.tables.statistic import Statistic
from secli.tables.table import Cell, Column, Table

METRIC_NAMES = {
    "test_error": "error (%)",
    "accuracy": "accuracy (%)",
    "equivariance_error": "equivariance error",
    "parameters": "parameters",
}
SORT_ALIASES = {"error": "test_error", "time": "train_seconds"}

Found = Sequence[Sequence[Reported]]
"""The published figures of each row."""


@dataclass(frozen=True)
class Comparison:
    """What ``secli compare`` shows; its tables are made when they are asked for, since JSON needs none.

    ``reported`` are the figures of each row, out of all that are ``published`` (None: nobody asked for them);
    ``accuracy`` tells whether the accuracy at the chosen factors has columns.
    """

    summary: Summary
    reported: Found
    published: Published | None
    accuracy: bool

    @cached_property
    def main(self) -> Table:
        """One row per model."""
        columns = [*_measured_columns(self.summary, self.accuracy), *_published_columns(self.reported)[0]]
        rows = zip(*(cells for _, cells in columns), strict=True)
        title = "Comparison over " + notes.trained_on(self.summary.rows) + notes.own_depths(self.summary.rows)
        return Table(title, tuple(column for column, _ in columns), tuple(rows), self.notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the main table."""
        return (*_measured_notes(self.summary, self.accuracy), *_published_columns(self.reported)[1])

    @property
    def others(self) -> tuple[Table, ...]:
        """Published accuracy over scale next to the measured one, and published figures of other protocols."""
        rows = self.summary.rows
        return (*_over_scale(rows, self.reported), *_apart(rows, self.published))

    @property
    def set_aside(self) -> Table | None:
        """The runs that entered no average, with the reason; None when there are none."""
        return aside_table(self.summary.set_aside)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the rows as JSON objects.

        Each row is ``{model, trained, by, n, test_error, delta, delta_logits, delta_at, accuracy_at, parameters,
        train_seconds, data, training, options, runs, reported}``: ``test_error`` and ``train_seconds`` are ``{mean,
        std, n}`` (fractions, seconds; std null for n = 1, mean null when there is none), ``delta`` is ``{tap, depth,
        metric, background, data, images, factors, mean, std, n}`` or null, ``delta_logits`` is the same mean at the
        logits, ``delta_at`` and ``accuracy_at`` are lists of ``{factor, mean, std, n}``, ``reported`` (with
        ``--published``) is a list of ``{system, metric, mean, std, n, by_factor, uncertainty, source, kind, place,
        protocol, departures}``.
        """
        pairs = zip(self.summary.rows, self.reported, strict=True)
        return [_row_json(row, self.summary, found) for row, found in pairs]


def compare(
    summary: Summary, published: Published | None = None, sort: str | None = None, accuracy: bool = False
) -> Comparison:
    """Lay a summary out, with published figures, accuracies, and sorted by a column where asked.

    ``sort`` is the key of a column (``-`` before it: from the largest); rows without a value come last.

    Raises
    ------
    UnknownNameError
        When no column has the key that ``sort`` names; the message suggests the near miss.
    """
    summary = _sorted(summary, sort)
    found = tuple(tuple(reported(row, published)) if published else () for row in summary.rows)
    return Comparison(summary, found, published, accuracy)


def _quantities(summary: Summary, accuracy: bool) -> list[Quantity]:
    """Return what has a column as far as it was measured."""
    deltas = [*([QUANTITIES["delta"]] if summary.mean_factors else []), *map(delta_at, summary.factors)]
    accuracies = map(accuracy_at_factor, summary.factors if accuracy else ())
    if summary.logits_too:
        deltas.append(QUANTITIES["delta_logits"])
    curves = [*deltas, *accuracies] if summary.measure is not None else []
    return [QUANTITIES["test_error"], *curves, QUANTITIES["parameters"], QUANTITIES["train_seconds"]]


def _measured_columns(summary: Summary, accuracy: bool) -> list[tuple[Column, list[Cell]]]:
    """Return the columns with their cells; one that would be empty is left out."""
    rows = summary.rows
    columns = [(Column("model", "model", text=True), [Cell(row.label) for row in rows])]
    for key in summary.by:
        if key != "model":
            values = [None if row.by[key] is None else str(row.by[key]) for row in rows]
            words = [(row.data_called or "") if key == "dataset" else "" for row in rows]
            cells = [Cell(value, words=some) for value, some in zip(values, words, strict=True)]
            columns.append((Column(key, key, text=True), cells))
    columns.append((Column("n", "n"), [Cell(row.n) for row in rows]))
    for one in _quantities(summary, accuracy):
        found = [row.statistic(one) for row in rows]
        if one.key == "parameters":
            columns.append((Column(one.key, one.title), [Cell(row.model.parameters) for row in rows]))
        elif one.curves or any(value.n for value in found):
            # a statistic that rests on fewer runs than its row tells on how many
            marks = [f" (n={v.n})" if 0 < v.n < row.n else "" for v, row in zip(found, rows, strict=True)]
            columns.append((column_of(one), list(map(Cell, found, marks))))
    if summary.measure is not None:
        behind = ("accuracy", "parameters")
        index = next(at for at, (column, _) in enumerate(columns) if column.key.startswith(behind))
        columns.insert(index, (Column("tap", "tap", text=True), [Cell(row.tap) for row in rows]))
    return columns


def _measured_notes(summary: Summary, accuracy: bool) -> list[str]:
    rows = summary.rows
    found = ["Mean ± standard deviation (n − 1) over n runs: realisations of the data and seeds."]
    single = [row.named for row in rows if row.n == 1]
    if single:
        who = "every row" if len(single) == len(rows) else ", ".join(dict.fromkeys(single))
        found.append(f"A single run (n = 1), so no ±: {who}.")
    if summary.measure is not None:
        found.append(notes.measured(summary.measure, summary.measured_on))
        if summary.mean_factors:
            factors = ", ".join(f"{f:.3g}" for f in summary.mean_factors)
            found.append(
                f"Δ: mean of Δ(s) over s = {factors}, the factors below 1 that all rows could measure; factors within "
                "2 % are one."
            )
        found += notes.taps(rows)
        if summary.logits_too:
            found.append(notes.AT_LOGITS)
        found += notes.little_compared(rows, (*summary.mean_factors, *summary.factors))
        unmeasured = list(dict.fromkeys(row.named for row in rows if not row.curves))
        if unmeasured:
            found.append(f"Δ not measured ('secli equivariance' does): {'; '.join(unmeasured)}.")
        if accuracy:
            found.append(f"Accuracy at s: on images of {summary.measured_on} rescaled by s.")
    return [*found, *summary.notes]


def _published_columns(found: Found) -> tuple[list[tuple[Column, list[Cell]]], list[str]]:
    """Return a column of published errors per kind of source, marked where rows depart from the setting; and notes."""
    error = QUANTITIES["test_error"]
    marks: Marks = {}
    columns = []
    for kind, title in KINDS.items():
        figures = [
            next((one for one in row if one.source.kind == kind and one.figure.value is not None), None)
            for row in found
        ]
        if any(figures):
            cells = [Cell(None) if one is None else _published_cell(one, marks) for one in figures]
            columns.append((column_of(error, f"reported_{kind}", f"{title} (%)"), cells))
    if marks:
        words = [
            Cell("; ".join(some[0].departures) if some and some[0].departures else None) for some in found
        ]
        columns.append((Column("reported_departures", "departures", text=True, machine=True), words))
    shown = [one for row in found for one in row if one.figure.value is not None]
    sources = source_notes((one.source.kind, one.source.text, one.protocol.description) for one in shown)
    return columns, [*notes.departures(marks), *sources]


def _published_cell(one: Reported, marks: Marks) -> Cell:
    value = Statistic(one.figure.value, one.figure.std, one.protocol.realisations or 0)
    return Cell(value, notes.mark_of(one.departures, marks))


def _over_scale(rows: Sequence[Group], found: Found) -> list[Table]:
    """Return the published accuracies over scale, the measured ones below them at the same factors."""
    pairs = [
        (row, one) for row, some in zip(rows, found, strict=True) for one in some if one.figure.by_factor
    ]
    if not pairs:
        return []
    factors = sorted({f for _, one in pairs for f in one.figure.by_factor}, reverse=True)
    lines: list[tuple[Cell, ...]] = []
    more: dict[str, None] = {}
    for row, one in pairs:
        measured = [row.statistic(accuracy_at_factor(f)).mean for f in factors]
        published = [one.figure.by_factor.get(f) for f in factors]
        lines.append((Cell(row.named), Cell("measured"), *map(Cell, measured)))
        lines.append((Cell(row.named), Cell("published"), *map(Cell, published)))
        more[f"Published: {one.source.text}{one.read_off}; {one.protocol.description}."] = None
        if one.departures:
            more[f"{row.named}: not the published setting: {'; '.join(one.departures)}."] = None
    more["Measured on the images of the equivariance curves, at the nearest factor within 2 %."] = None
    columns = (
        Column("model", "model", text=True),
        Column("from", "from", text=True),
        *(Column(f"accuracy_{f:.3g}", f"s\u00a0=\u00a0{f:.3g}", percent=True, digits=1) for f in factors),
    )
    title = "Accuracy (%) over scale factors s, measured and published"
    return [Table(title, columns, tuple(lines), tuple(more))]


def _apart(rows: Sequence[Group], published: Published | None) -> list[Table]:
    """Return the figures of other protocols, which must not stand in a column next to ours."""
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
    keys: dict[str, str] = {}
    for entry in found:
        figure = entry.figure
        source = f"{entry.source.text}: {entry.protocol.description}"
        key = keys.setdefault(source, f"[{len(keys) + 1}]")
        # values of several measures share the column: the measure's name says per cent
        scale = 100 if figure.metric in ("test_error", "accuracy") else 1
        mean, std = (None if value is None else scale * value for value in (figure.value, figure.std))
        value = int(mean or 0) if figure.metric == "parameters" else Statistic(mean, std, 0)
        lines.append((Cell(figure.system), Cell(METRIC_NAMES[figure.metric]), Cell(value), Cell(key)))
    title = "Other published figures: other protocols or other networks, not comparable with the rows above"
    return [Table(title, columns, tuple(lines), tuple(f"{key} {source}." for source, key in keys.items()))]


def aside_table(aside: Sequence[SetAside]) -> Table | None:
    """Return what entered no average, with the reason; None where there is nothing."""
    if not aside:
        return None
    columns = (Column("path", "run", text=True), Column("reason", "reason", text=True))
    lines = tuple((Cell(one.path), Cell(one.reason)) for one in aside)
    return Table("Set aside, with the reason", columns, lines)


def grouped_aside(aside: Sequence[SetAside]) -> list[SetAside]:
    """Give each reason once, with the first of the runs that it holds for."""
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
    named = [
        QUANTITIES[name] for name in ("test_error", "delta", "delta_logits", "parameters", "train_seconds")
    ]
    quantities = {one.key: one for one in (*named, *summary.at_factors())}
    known = ["n", *(one.key for one in named), *summary.by, *(one.key for one in summary.at_factors())]
    if key not in known:
        raise UnknownNameError("column --sort", key, [*known, *SORT_ALIASES])
    keyed: list[tuple[Any, Group]] = []
    for row in summary.rows:
        value = row.n if key == "n" else row.by[key] if key in summary.by else None
        keyed.append((row.statistic(quantities[key]).mean if key in quantities else value, row))
    there = [pair for pair in keyed if pair[0] is not None]
    numeric = all(isinstance(value, int | float) for value, _ in there)
    there.sort(key=lambda pair: pair[0] if numeric else str(pair[0]), reverse=descending)
    missing = [row for value, row in keyed if value is None]
    return replace(summary, rows=(*(row for _, row in there), *missing))


def _row_json(row: Group, summary: Summary, found: Sequence[Reported]) -> dict[str, Any]:
    delta: dict[str, Any] | None = None
    if summary.measure is not None and row.curves:
        metric, background, data, images = summary.measure
        delta = {
            "tap": row.tap,
            "depth": row.read_at.depth,
            "metric": metric,
            "background": background,
            "data": data,
            "images": images,
            "factors": list(summary.mean_factors),
            **asdict(row["delta"]),
        }
    at_factors = {
        f"{name}_at": [{"factor": f, **asdict(row.statistic(at(f)))} for f in summary.factors]
        for name, at in (("delta", delta_at), ("accuracy", accuracy_at_factor))
    }
    return {
        "model": row.model.name,
        "trained": row.trained,
        "by": dict(row.by),
        "n": row.n,
        "test_error": asdict(row["test_error"]),
        "delta": delta,
        "delta_logits": asdict(row["delta_logits"]),
        **at_factors,
        "parameters": row.model.parameters,
        "train_seconds": asdict(row["train_seconds"]),
        "data": row.data,
        "training": row.settings,
        "options": dict(row.model.options),
        "runs": [str(run.path) for run in row.members],
        "reported": [entry.as_json() for entry in found],
    }
