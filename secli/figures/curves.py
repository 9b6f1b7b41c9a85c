"""The figure of the equivariance curves: a panel per tap, one for Lie derivatives and one for the accuracy."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secli.errors import InputError, printable
from secli.figures import page
from secli.figures.axes import error_axis, factor_axis, light_grid, mark_identity
from secli.figures.panels import Panel, control_taps, tap_panels
from secli.figures.style import (
    FLOOR_COLOUR,
    RING,
    STYLE,
    Records,
    Style,
    controls_of,
    legend_entries,
    part_tints,
    styles_of,
)
from secli.metrics import METRICS
from secli.records.notes import Form
from secli.records.schema import AccuracyRow, CurveRow
from secli.tables.curve_notes import by_reason, missing, telling_warnings, warnings_of
from secli.tables.curve_rows import part_name, parts, whole
from secli.tables.labels import legend_labels
from secli.tables.statistic import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NOTES = 8  # groups of null values named in a caption
MAX_COLUMNS = 4
PANEL_WIDTH, PANEL_HEIGHT = 1.8, 1.7  # inches: four panels span the two columns of a page
NARROWEST = 3.5  # inches: one column of a page
LEGEND_LINE = 0.145  # inches
LOG_FOOT = 1e-12  # far below every log axis, which 0 is not on
ACCURACY_TITLE = "accuracy (%)"
LIE_TITLE = "Lie derivative, $s=1$"

Styles = Sequence[Style]


def plot_curves(
    records: Records,
    path: Path,
    title: str | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    log: bool = False,
) -> None:
    """Draw the equivariance error Δ_s over the scale factor s and write the figure, whole or not at all.

    One panel per tap (shared by the networks that have it, see ``tap_panels``), one for the Lie derivative at every
    tap and one for the accuracy where they were measured. Bands are the 95 % intervals of the mean, the grey area is
    the floor of the resampling (of one network; several would hide each other's), hollow points are off the model's
    lattice of scales, ringed ones carry a warning that the caption repeats; thin tinted lines are single scale levels
    or channels, thin grey ones are controls. Null values are not drawn and named in the caption, which
    :func:`curves_caption` returns. ``labels`` are labels by model or run, ``log`` asks for a log axis of Δ.

    Raises
    ------
    InputError
        On an unknown suffix, no records, nothing measurable in them, or records of different metrics.
    OSError
        When the figure cannot be written.
    """
    page.check_plot_path(path)
    page.save_figure(draw_curves(records, title, labels=labels, log=log), path)


def draw_curves(
    records: Records, title: str | None = None, *, labels: Mapping[str, str] | None = None, log: bool = False
) -> Figure:
    """Return the figure that ``plot_curves`` writes, free of any global state."""
    page.check_one_metric(records)
    if not any(_points(record.rows) or _points(record.accuracy) for record in records):
        raise InputError("no curves to draw: every value is null (the record's 'reason' says why)")
    import matplotlib
    from matplotlib.figure import Figure

    styles = styles_of([page.plain(label) for label in legend_labels(records, labels)])
    panels = [panel for panel in tap_panels(records) if _measured(panel, records)]
    with_lie = any(finite(row.mean) is not None for record in records for row in record.lie)
    with_accuracy = any(_points(record.accuracy) for record in records)
    count = len(panels) + with_lie + with_accuracy
    columns = count if count <= MAX_COLUMNS else math.ceil(count / math.ceil(count / MAX_COLUMNS))
    lines = math.ceil(count / columns)
    width = max(columns * PANEL_WIDTH, NARROWEST)
    entries, legend_columns = legend_entries(records, styles, width)
    below = LEGEND_LINE * math.ceil(len(entries) / legend_columns) + 0.17
    height = lines * (PANEL_HEIGHT if columns > 1 else 1.4 * PANEL_HEIGHT) + 0.3 + below
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        # the legend stands in a strip of its own below the panels, where it covers no data
        figure.set_layout_engine("constrained", rect=(0, below / height, 1, 1 - below / height))
        grid: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).ravel())
        curve_axes, rest = grid[: len(panels)], grid[len(panels) :]
        _draw_taps(curve_axes, columns, panels, records, styles, log)
        if with_lie:
            _draw_lie(rest.pop(0), panels, records, styles)
        if with_accuracy:
            curve_axes.append(rest[0])
            _draw_accuracy(rest.pop(0), records, styles)
        for axes in rest:
            axes.set_axis_off()
        factors = [row.factor for record in records for row in record.rows]
        factors += [row.factor for record in records for row in record.accuracy]
        last = max(grid.index(axes) for axes in curve_axes) // columns
        for axes in curve_axes:
            factor_axis(axes, factors)
            mark_identity(axes)
            if grid.index(axes) // columns == last:
                axes.set_xlabel("scale factor $s$")
        if head := page.title_lines(title, width):
            figure.suptitle("\n".join(head), fontsize=page.TITLE_SIZE)
        legend = figure.legend(
            list(entries.values()),
            list(entries),
            loc="lower center",
            bbox_to_anchor=(0.5, 0),
            ncols=legend_columns,
            frameon=False,
            labelspacing=0.3,
            columnspacing=1.4,
        )
        legend.set_in_layout(False)
    return figure


def _measured(panel: Panel, records: Records) -> bool:
    """Say whether some network has a value at its tap of a panel."""
    pairs = list(zip(records, panel.taps, strict=True))
    return any(_points([row for row in record.rows if row.tap == tap]) for record, tap in pairs)


def _points(rows: Sequence[CurveRow] | Sequence[AccuracyRow]) -> list[tuple[float, float]]:
    """Return (factor, value) of the rows that have one, by increasing factor."""
    values = [(row.factor, finite(row.mean if isinstance(row, CurveRow) else row.accuracy)) for row in rows]
    return sorted((factor, value) for factor, value in values if value is not None)


def _draw_taps(
    grid: Sequence[Axes],
    columns: int,
    panels: Sequence[Panel],
    records: Records,
    styles: Styles,
    log: bool,
) -> None:
    """Draw all taps, each on an axis of its own: errors of the first layer and the last differ a hundredfold."""
    for index, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        _draw_panel(axes, panel, records, styles, log)
        pairs = list(zip(records, panel.taps, strict=True))
        rows = [row for record, tap in pairs for row in record.rows if row.tap == tap]
        drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
        values = [value for line in drawn for value in line.tolist() if math.isfinite(value)]
        error_axis(axes, values, [row.high for row in whole(rows) if row.high is not None], log)
        if index % columns == 0:
            axes.set_ylabel(METRICS[records[0].metric].axis)


def _draw_panel(axes: Axes, panel: Panel, records: Records, styles: Styles, log: bool) -> None:
    """Draw one tap: floors first, then bands, controls and parts, then the curves on top."""
    for record, style, tap in zip(records, styles, panel.taps, strict=True):
        rows = sorted((row for row in whole(record.rows) if row.tap == tap), key=lambda row: row.factor)
        measured = [row for row in rows if row.mean is not None]
        floors = [(row.factor, row.floor) for row in measured if row.floor is not None]
        if floors and len(records) == 1:
            factors, heights = zip(*floors, strict=True)
            axes.fill_between(
                factors, heights, LOG_FOOT if log else 0, color=FLOOR_COLOUR, linewidth=0, zorder=0
            )
        bands = [
            (row.factor, row.low, row.high)
            for row in measured
            if row.low is not None and row.high is not None and (row.low > 0 or not log)
        ]
        if bands:
            factors, lows, highs = zip(*bands, strict=True)
            axes.fill_between(factors, lows, highs, color=style.colour, alpha=0.2, linewidth=0, zorder=1)
        for name, colour in part_tints(records, style.colour).items():
            own = [row for row in parts(record.rows) if row.tap == tap and part_name(row) == name]
            _draw_thin(axes, own, colour, "-", 0.8)
        _draw_line(axes, rows, style, telling_warnings(whole(record.rows)))
    _draw_controls(axes, panel, records, styles)
    axes.set_title("\n".join(textwrap.wrap(page.plain(panel.title), 24)))


def _draw_controls(axes: Axes, panel: Panel, records: Records, styles: Styles) -> None:
    """Draw the controls at this panel's taps; where networks share one, it is drawn once and grey."""
    for controls in controls_of(records, styles).values():
        drawn: set[int] = set()
        for one in controls:
            tap = control_taps(records[one.owner], one.record).get(panel.taps[one.owner] or "")
            if tap is not None and not (one.shared and drawn - {one.owner}):
                rows = [row for row in whole(one.record.rows) if row.tap == tap]
                _draw_thin(axes, rows, one.colour, one.line, 1.0)
                drawn.add(one.owner)


def _draw_thin(axes: Axes, rows: Sequence[CurveRow], colour: Any, line: Any, linewidth: float) -> None:
    """Draw a line without points, broken where a value is null."""
    rows = sorted(rows, key=lambda row: row.factor)
    values = _with_gaps(rows)
    if not all(map(math.isnan, values)):
        # a value between two nulls would not be seen without a point
        gaps = [True, *map(math.isnan, values), True]
        lone = [i for i in range(len(values)) if gaps[i] and not gaps[i + 1] and gaps[i + 2]]
        factors = [row.factor for row in rows]
        point: dict[str, Any] = {"marker": ".", "markersize": 3, "markevery": lone}
        axes.plot(factors, values, linestyle=line, color=colour, linewidth=linewidth, zorder=1.5, **point)


def _draw_line(axes: Axes, rows: Sequence[CurveRow], style: Style, warned: Sequence[Form]) -> None:
    """Draw one curve; it is broken where a value is null, so that no line passes over a gap."""
    factors, values = [row.factor for row in rows], _with_gaps(rows)
    if all(map(math.isnan, values)):
        return
    axes.plot(factors, values, style.line, color=style.colour, zorder=2)

    def mark(chosen: Sequence[bool], *marker: str, **options: Any) -> None:
        indices = [index for index, one in enumerate(chosen) if one]
        axes.plot([factors[i] for i in indices], [values[i] for i in indices], *marker, **options)

    for hollow in (False, True):
        face = "white" if hollow else style.colour
        chosen = [(row.on_lattice is False) is hollow for row in rows]
        mark(chosen, style.marker, color=style.colour, markerfacecolor=face, zorder=3)
    ringed = [any(note.form in warned for note in row.warnings) for row in rows]
    if any(ringed):
        mark(ringed, zorder=2.5, **RING)


def _with_gaps(rows: Sequence[CurveRow]) -> list[float]:
    return [math.nan if (value := finite(row.mean)) is None else value for row in rows]


def _draw_lie(axes: Axes, panels: Sequence[Panel], records: Records, styles: Styles) -> None:
    """Draw the Lie derivative of every tap with its interval, the networks side by side."""
    means, tops = [], []
    for index, (record, style) in enumerate(zip(records, styles, strict=True)):
        by_tap = {row.tap: row for row in record.lie}
        shift = 0.5 * ((index + 0.5) / len(records) - 0.5)
        for at, panel in enumerate(panels):
            row = by_tap.get(panel.taps[index] or "")
            mean = None if row is None else finite(row.mean)
            if row is None or mean is None:
                continue
            means.append(mean)
            tops += [row.high] if row.high is not None else []
            axes.plot(at + shift, mean, style.marker, color=style.colour, zorder=3)
            if row.low is not None and row.high is not None:
                ends = [row.low, row.high]
                axes.plot([at + shift] * 2, ends, color=style.colour, linewidth=1.2, zorder=2)
    error_axis(axes, means, tops)
    shared = all(panel.title in panel.taps for panel in panels)
    names = [page.plain(panel.title) if shared else f"depth {at}" for at, panel in enumerate(panels, start=1)]
    axes.set_xticks(range(len(panels)), names, rotation=50, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlim(-0.6, len(panels) - 0.4)
    axes.set_title(LIE_TITLE)


def _draw_accuracy(axes: Axes, records: Records, styles: Styles) -> None:
    drawn: list[float] = []

    def draw(rows: Sequence[AccuracyRow], **options: Any) -> None:
        if points := _points(rows):
            percent = [100 * value for _, value in points]
            axes.plot([factor for factor, _ in points], percent, **options)
            drawn.extend(percent)

    for controls in controls_of(records, styles).values():
        for one in controls:
            draw(one.record.accuracy, linestyle=one.line, color=one.colour, linewidth=1.0)
    for record, style in zip(records, styles, strict=True):
        draw(record.accuracy, linestyle=style.line, marker=style.marker, color=style.colour)
    axes.set_title(ACCURACY_TITLE)
    axes.set_ylim(max(-2, 10 * math.floor(min(drawn) / 10) - 10), 102)
    light_grid(axes)


def curves_caption(records: Records, labels: Mapping[str, str] | None = None) -> list[str]:
    """Return the sentences of a caption: what the error is, which values carry a warning, which are null and why."""
    names = legend_labels(records, labels)
    rows = [whole(record.rows) for record in records]
    warned = _by_owner(names, [[(one.text, one.where) for one in warnings_of(own)] for own in rows])
    null = _by_owner(names, [missing(own) for own in rows])
    first = page.caption_head(records)
    if any(record.lie for record in records):
        first += " Lie derivative: the limit of Δ_s/(log s)²."
    notes = [f"{owner}{warning}: {where}." for owner, where, warning in warned]
    unmeasured = [f"{owner}{where} ({reason})" for owner, where, reason in null]
    lie = [
        [
            (reason, f"Lie derivative of {', '.join(row.tap for row in same)}")
            for reason, same in by_reason(record.lie)
        ]
        for record in records
    ]
    unmeasured += [f"{owner}{where} ({reason})" for owner, where, reason in _by_owner(names, lie)]
    if unmeasured:
        rest = len(unmeasured) - MAX_NOTES
        more = f"; and {rest} more." if rest > 0 else "."
        notes.append("Not measurable, not drawn: " + "; ".join(unmeasured[:MAX_NOTES]) + more)
    return list(map(printable, [first, *notes]))


def _by_owner(
    labels: Sequence[str], found: Sequence[Sequence[tuple[str, str]]]
) -> list[tuple[str, str, str]]:
    """Return (networks, where, text): what holds for all networks alike is told once, of no one in particular."""
    owners: dict[tuple[str, str], list[str]] = {}
    for label, pairs in zip(labels, found, strict=True):
        for text, where in pairs:
            owners.setdefault((where, text), []).append(label)
    return [
        ("" if len(some) == len(labels) else f"{', '.join(some)}: ", where, text)
        for (where, text), some in owners.items()
    ]
