"""The figure of the equivariance curves: a panel per tap, one for Lie derivatives and one for the accuracy."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.errors import InputError
from secli.metrics import METRICS
from secli.records.schema import AccuracyRow, CurveRow, EquivarianceRecord, LieRow
from secli.tables.figures import (
    STYLE,
    TITLE_SIZE,
    check_one_metric,
    measured_on,
    metric_note,
    notes_height,
    plain,
    save_figure,
    wrapped,
    write_notes,
)
from secli.tables.figures import check_plot_path as check_plot_path
from secli.tables.labels import distinct_labels
from secli.tables.looks import (
    CONTROL_COLOUR,
    CONTROL_LINES,
    FLOOR_COLOUR,
    RING,
    Look,
    control_name,
    control_names,
    legend_entries,
    looks_of,
    part_names,
    shared_control,
    sorted_rows,
    tint,
)
from secli.tables.panels import Panel, control_taps, tap_panels
from secli.tables.places import null_places, part_name, parts, telling_warnings, warning_places, whole
from secli.tables.reasons import pattern
from secli.tables.scales import error_axis, factor_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NOTES = 8  # groups of null values named below the figure
MAX_COLUMNS = 4
PANEL_WIDTH, PANEL_HEIGHT = 1.8, 1.7  # inches: four panels span the two columns of a page
NARROWEST = 3.5  # inches: one column of a page
LEGEND_LINE = 0.145  # inches
ACCURACY_TITLE = "accuracy (%)"
LIE_TITLE = "Lie derivative, $s=1$"


def plot_curves(records: Sequence[EquivarianceRecord], path: Path, title: str | None = None) -> None:
    """Draw the equivariance error Δ_s over the scale factor s and write the figure, whole or not at all.

    One panel per tap (shared by the networks that have it, see ``tap_panels``), one for the Lie derivative at every
    tap and one for the accuracy where they were measured. Bands are the 95 % intervals of the mean, the grey area is
    the floor of the resampling, hollow points are off the model's lattice of scales, ringed ones carry a warning that
    the notes repeat; thin tinted lines are single scale levels or channels, thin grey ones are controls. Null values
    are not drawn and named below the figure.

    Parameters
    ----------
    records : sequence of EquivarianceRecord
        One curve each, in the order of the legend.
    path : Path
        ``.png``, ``.svg`` or ``.pdf``.
    title : str, optional
        Title of the figure; by default the data that was measured on.

    Raises
    ------
    InputError
        On an unknown suffix, no records, nothing measurable in them, or records of different metrics.
    OSError
        When the figure cannot be written.
    """
    check_plot_path(path)
    save_figure(draw_curves(records, title), path)


def draw_curves(records: Sequence[EquivarianceRecord], title: str | None = None) -> Figure:
    """Return the figure that ``plot_curves`` writes, free of any global state."""
    check_one_metric(records)
    if not any(_points(record.rows) or _points(record.accuracy) for record in records):
        raise InputError("no curves to draw: every value is null (the record's 'reason' says why)")
    import matplotlib
    from matplotlib.figure import Figure

    looks = looks_of([plain(label) for label in distinct_labels(records)])
    panels = tap_panels(records)
    with_lie = any(_lie_points(record.lie) for record in records)
    with_accuracy = any(_points(record.accuracy) for record in records)
    count = len(panels) + with_lie + with_accuracy
    columns = count if count <= MAX_COLUMNS else math.ceil(count / math.ceil(count / MAX_COLUMNS))
    lines = math.ceil(count / columns)
    width = max(columns * PANEL_WIDTH, NARROWEST)
    notes = wrapped(_notes(records, looks), width)
    entries, legend_columns = legend_entries(records, looks, width)
    below = notes_height(notes) + LEGEND_LINE * math.ceil(len(entries) / legend_columns) + 0.17
    height = lines * (PANEL_HEIGHT if columns > 1 else 1.4 * PANEL_HEIGHT) + 0.3 + below
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        # the legend and the notes stand in a strip of their own below the panels, where they cover no data
        figure.set_layout_engine("constrained", rect=(0, below / height, 1, 1 - below / height))
        grid: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).ravel())
        curve_axes, rest = grid[: len(panels)], grid[len(panels) :]
        _draw_taps(curve_axes, columns, panels, records, looks)
        if with_lie:
            _draw_lie(rest.pop(0), panels, records, looks)
        if with_accuracy:
            curve_axes.append(rest[0])
            _draw_accuracy(rest.pop(0), records, looks)
        for axes in rest:
            axes.set_axis_off()
        last = max(grid.index(axes) for axes in curve_axes) // columns
        for axes in curve_axes:
            factor_axis(axes, _all_factors(records))
            if grid.index(axes) // columns == last:
                axes.set_xlabel("scale factor $s$")
        figure.suptitle(
            "\n".join(textwrap.wrap(title if title is not None else measured_on(records), int(width * 14))),
            fontsize=TITLE_SIZE,
        )
        legend = figure.legend(
            list(entries.values()),
            list(entries),
            loc="lower center",
            bbox_to_anchor=(0.5, notes_height(notes) / height),
            ncols=legend_columns,
            frameon=False,
            labelspacing=0.3,
            columnspacing=1.4,
        )
        legend.set_in_layout(False)
        write_notes(figure, notes)
    return figure


def _value(row: CurveRow | AccuracyRow) -> float | None:
    value = row.mean if isinstance(row, CurveRow) else row.accuracy
    return value if value is not None and math.isfinite(value) else None


def _points(rows: Sequence[CurveRow] | Sequence[AccuracyRow]) -> list[tuple[float, float]]:
    """Return (factor, value) of the rows that have one, by increasing factor."""
    return sorted((row.factor, value) for row in rows if (value := _value(row)) is not None)


def _lie_points(rows: Sequence[LieRow]) -> list[LieRow]:
    return [row for row in rows if row.mean is not None and math.isfinite(row.mean)]


def _all_factors(records: Sequence[EquivarianceRecord]) -> list[float]:
    measured = [row.factor for record in records for row in record.rows]
    return measured + [row.factor for record in records for row in record.accuracy]


def _draw_taps(
    grid: Sequence[Axes],
    columns: int,
    panels: Sequence[Panel],
    records: Sequence[EquivarianceRecord],
    looks: Sequence[Look],
) -> None:
    """Draw all taps and give them the same vertical axis."""
    for axes, panel in zip(grid, panels, strict=True):
        _draw_panel(axes, panel, records, looks)
    everyone = [one for record in records for one in (record, *record.controls)]
    rows = [row for one in everyone for row in one.rows]
    values = [value for row in rows if (value := _value(row)) is not None]
    tops = [row.high for record in records for row in whole(record.rows) if row.high is not None]
    for index, axes in enumerate(grid):
        error_axis(axes, values, tops)
        if index % columns == 0:
            axes.set_ylabel(METRICS[records[0].metric].axis)
        else:
            axes.tick_params(axis="y", labelleft=False)


def _draw_panel(
    axes: Axes, panel: Panel, records: Sequence[EquivarianceRecord], looks: Sequence[Look]
) -> None:
    """Draw one tap: floors first, then bands, controls and parts, then the curves on top."""
    names = part_names(records)
    for record, look, tap in zip(records, looks, panel.taps, strict=True):
        if tap is None:
            continue
        rows = sorted_rows([row for row in whole(record.rows) if row.tap == tap])
        floors = [(row.factor, row.floor) for row in rows if row.floor is not None and row.mean is not None]
        if floors:
            # one opaque grey for all networks: together they shade up to the largest floor
            factors, heights = zip(*floors, strict=True)
            axes.fill_between(factors, heights, 0, color=FLOOR_COLOUR, linewidth=0, zorder=0)
        bands = [
            (row.factor, row.low, row.high)
            for row in rows
            if row.mean is not None and row.low is not None and row.high is not None
        ]
        if bands:
            factors, lows, highs = zip(*bands, strict=True)
            axes.fill_between(factors, lows, highs, color=look.colour, alpha=0.2, linewidth=0, zorder=1)
        for place, name in enumerate(names):
            own = [row for row in parts(record.rows) if row.tap == tap and part_name(row) == name]
            _draw_thin(axes, own, tint(look.colour, place / max(len(names) - 1, 1)), "-", 0.8)
        _draw_line(axes, rows, look, telling_warnings(whole(record.rows)))
    _draw_controls(axes, panel, records, looks)
    axes.set_title("\n".join(textwrap.wrap(plain(panel.title), 24)))
    if not axes.lines:
        axes.text(0.5, 0.5, "not measurable here", transform=axes.transAxes, ha="center", color="0.4", size=8)


def _draw_controls(
    axes: Axes, panel: Panel, records: Sequence[EquivarianceRecord], looks: Sequence[Look]
) -> None:
    """Draw the controls that stand beside this panel's taps; where networks share one, it is drawn once and grey."""
    for index, name in enumerate(control_names(records)):
        shared = shared_control(records, name)
        style = CONTROL_LINES[index % len(CONTROL_LINES)]
        for record, look, tap in zip(records, looks, panel.taps, strict=True):
            drawn = False
            for control in record.controls:
                beside = control_taps(record, control).get(tap or "")
                if control_name(control) == name and beside is not None:
                    rows = [row for row in whole(control.rows) if row.tap == beside]
                    colour = CONTROL_COLOUR if shared else tint(look.colour, 0.4)
                    _draw_thin(axes, rows, colour, style, 1.0)
                    drawn = True
            if drawn and shared:
                break


def _draw_thin(axes: Axes, rows: Sequence[CurveRow], colour: Any, style: Any, linewidth: float) -> None:
    """Draw a line without points, broken where a value is null."""
    rows = sorted_rows(rows)
    values = [math.nan if (value := _value(row)) is None else value for row in rows]
    if not all(math.isnan(value) for value in values):
        # a value between two nulls would not be seen without a point
        lone = [
            not math.isnan(value)
            and (i == 0 or math.isnan(values[i - 1]))
            and (i == len(values) - 1 or math.isnan(values[i + 1]))
            for i, value in enumerate(values)
        ]
        axes.plot(
            [row.factor for row in rows], values, linestyle=style, color=colour, linewidth=linewidth,
            marker=".", markersize=3, markevery=[i for i, one in enumerate(lone) if one], zorder=1.5,
        )  # fmt: skip


def _draw_line(axes: Axes, rows: Sequence[CurveRow], look: Look, warned: Sequence[str]) -> None:
    """Draw one curve; it is broken where a value is null, so that no line passes over a gap."""
    factors = [row.factor for row in rows]
    values = [math.nan if (value := _value(row)) is None else value for row in rows]
    if all(math.isnan(value) for value in values):
        return
    axes.plot(factors, values, look.line, color=look.colour, zorder=2)
    for hollow in (False, True):
        chosen = [i for i, row in enumerate(rows) if (row.on_lattice is False) is hollow]
        face = "white" if hollow else look.colour
        axes.plot(
            [factors[i] for i in chosen], [values[i] for i in chosen], look.marker,
            color=look.colour, markerfacecolor=face, zorder=3,
        )  # fmt: skip
    ringed = [i for i, row in enumerate(rows) if any(pattern(text) in warned for text in row.warnings)]
    if ringed:
        axes.plot([factors[i] for i in ringed], [values[i] for i in ringed], zorder=2.5, **RING)


def _draw_lie(
    axes: Axes, panels: Sequence[Panel], records: Sequence[EquivarianceRecord], looks: Sequence[Look]
) -> None:
    """Draw the Lie derivative of every tap with its interval, the networks side by side."""
    drawn = []
    for index, (record, look) in enumerate(zip(records, looks, strict=True)):
        at = {row.tap: row for row in _lie_points(record.lie)}
        shift = 0.5 * ((index + 0.5) / len(records) - 0.5)
        for place, panel in enumerate(panels):
            row = at.get(panel.taps[index] or "")
            if row is None or row.mean is None:
                continue
            drawn.append(row)
            axes.plot(place + shift, row.mean, look.marker, color=look.colour, zorder=3)
            if row.low is not None and row.high is not None:
                axes.plot(
                    [place + shift] * 2, [row.low, row.high], color=look.colour, linewidth=1.2, zorder=2
                )
    means = [row.mean for row in drawn if row.mean is not None]
    error_axis(axes, means, [row.high for row in drawn if row.high is not None])
    shared = all(panel.title in panel.taps for panel in panels)
    names = [
        plain(panel.title) if shared else f"depth {place}" for place, panel in enumerate(panels, start=1)
    ]
    axes.set_xticks(range(len(panels)), names, rotation=50, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlim(-0.6, len(panels) - 0.4)
    axes.set_title(LIE_TITLE)


def _draw_accuracy(axes: Axes, records: Sequence[EquivarianceRecord], looks: Sequence[Look]) -> None:
    drawn = []
    for index, name in enumerate(control_names(records)):
        style: Any = CONTROL_LINES[index % len(CONTROL_LINES)]
        shared = shared_control(records, name)
        for record, look in zip(records, looks, strict=True):
            for control in record.controls:
                points = _points(control.accuracy) if control_name(control) == name else []
                if points:
                    colour = CONTROL_COLOUR if shared else tint(look.colour, 0.4)
                    factors, percent = _percent(points)
                    axes.plot(factors, percent, linestyle=style, color=colour, linewidth=1.0)
                    drawn += percent
    for record, look in zip(records, looks, strict=True):
        points = _points(record.accuracy)
        if points:
            factors, percent = _percent(points)
            axes.plot(factors, percent, look.line, marker=look.marker, color=look.colour)
            drawn += percent
    axes.set_title(ACCURACY_TITLE)
    axes.set_ylim(max(-2, 10 * math.floor(min(drawn) / 10) - 10), 102)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def _percent(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [factor for factor, _ in points], [100 * value for _, value in points]


def _notes(records: Sequence[EquivarianceRecord], looks: Sequence[Look]) -> list[str]:
    """Say below the figure what the error is, which values carry a warning, and which are null and why."""
    warned = _by_owner(looks, [[w[1:] for w in warning_places(whole(record.rows))] for record in records])
    missing = _by_owner(
        looks, [null_places(whole(record.rows), lambda row: _value(row) is None) for record in records]
    )
    lie = [
        f"Lie derivative of {', '.join(row.tap for row in record.lie if row.mean is None)}"
        for record in records
        if any(row.mean is None for row in record.lie)
    ]
    said_of_lie = (
        ["Lie derivative: the limit of $\\Delta_s/(\\log\\,s)^2$."] if any(r.lie for r in records) else []
    )
    first = " ".join([metric_note(records), *said_of_lie])
    notes = [f"{owner}{warning}: {where}." for owner, where, warning in warned]
    said = [f"{owner}{where} ({reason})" for owner, where, reason in missing] + lie
    rest = len(said) - MAX_NOTES
    if said:
        more = f"; and {rest} more." if rest > 0 else "."
        notes.append("Not measurable, not drawn: " + "; ".join(said[:MAX_NOTES]) + more)
    return [first, *map(plain, notes)]


def _by_owner(
    looks: Sequence[Look], found: Sequence[Sequence[tuple[str, str]]]
) -> list[tuple[str, str, str]]:
    """Return (networks, places, text): what holds for all networks alike is said once, for no one in particular."""
    owners: dict[tuple[str, str], list[str]] = {}
    for look, pairs in zip(looks, found, strict=True):
        for text, where in pairs:
            owners.setdefault((where, text), []).append(look.label)
    return [
        ("" if len(labels) == len(looks) else f"{', '.join(labels)}: ", where, text)
        for (where, text), labels in owners.items()
    ]
