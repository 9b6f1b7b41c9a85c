"""The figure of the equivariance curves: one panel per tap, one for the accuracy, on a log axis of scale factors."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.errors import InputError
from secli.records import AccuracyRow, CurveRow, EquivarianceRecord, atomic_path
from secli.tables.labels import distinct_labels
from secli.tables.panels import Panel, tap_panels
from secli.tables.reasons import merged, pattern

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

# Okabe & Ito (2008), colour-blind safe; their yellow is left out: it vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
FLOOR_COLOUR = "#DDDDDD"

METRIC_LABELS = {
    "squared": "equivariance error $\\Delta_s$\n(squared, relative to $\\|L_s\\Phi(f)\\|^2$)",
    "relative": "equivariance error\n(relative to $\\|L_s\\Phi(f)\\|$)",
    "absolute": "equivariance error\n$\\|L_s\\Phi(f)-\\Phi(L_sf)\\|$",
}
FACTOR_TICKS = {
    0.1: "0.1", 0.15: "0.15", 0.2: "0.2", 1 / 3: "1/3", 0.5: "0.5", 0.7: "0.7",
    1.0: "1", 1.5: "1.5", 2.0: "2", 3.0: "3", 5.0: "5", 10.0: "10",
}  # fmt: skip
LOG_FROM = 50  # largest over smallest positive value from which a linear axis hides the small ones
MAX_NOTES = 8  # groups of null values named below the figure
PANEL_WIDTH, PANEL_HEIGHT = 2.9, 2.5  # inches
NOTE_SIZE, NOTE_LINE, LEGEND_LINE = 7.5, 0.13, 0.2  # points; inches per line

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "svg.hashsalt": "secli",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class _Look:
    """How one network is drawn in every panel."""

    label: str
    colour: str
    marker: str
    line: Any  # matplotlib's stubs want a literal


def check_plot_path(path: Path) -> None:
    """Refuse a figure path whose suffix is not one of PNG, SVG and PDF.

    Raises
    ------
    InputError
        Naming the path and the suffixes that can be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: a figure is written as {', '.join(SUFFIXES)}; choose one of these suffixes"
        )
    if path.is_dir():
        raise InputError(f"{path}: is a directory; name a file for the figure")


def plot_curves(records: Sequence[EquivarianceRecord], path: Path, title: str | None = None) -> None:
    """Draw the equivariance error Δ_s over the scale factor s and write the figure, whole or not at all.

    One panel per tap (shared by the networks that have it, see ``tap_panels``) and one for the accuracy where it
    was measured. Bands are the 95 % intervals of the mean, the grey area is the floor of the resampling, hollow
    points are off the model's lattice of scales; null values are not drawn and counted below the figure.

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
    figure = draw_curves(records, title)
    import matplotlib

    suffix = path.suffix.lower()
    # the date would make two figures of the same records differ
    metadata: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
    try:
        with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
            figure.savefig(temporary, format=suffix[1:], dpi=200, metadata=metadata)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def draw_curves(records: Sequence[EquivarianceRecord], title: str | None = None) -> Figure:
    """Return the figure that ``plot_curves`` writes, free of any global state."""
    _check(records)
    import matplotlib
    from matplotlib.figure import Figure

    looks = [_look(index, label) for index, label in enumerate(distinct_labels(records))]
    panels = tap_panels(records)
    with_accuracy = any(_points(record.accuracy) for record in records)
    count = len(panels) + with_accuracy
    columns = count if count <= 4 else math.ceil(count / math.ceil(count / 4))
    lines = math.ceil(count / columns)
    width = max(columns * PANEL_WIDTH, 1.6 * PANEL_WIDTH)
    notes = _notes(records, looks, int(width * 17))
    notes_height = 0.08 + NOTE_LINE * len(notes)
    entries, legend_columns = _legend_entries(records, looks, width)
    below = notes_height + LEGEND_LINE * math.ceil(len(entries) / legend_columns) + 0.1
    height = lines * PANEL_HEIGHT + 0.3 + below
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        # the legend and the notes stand in a strip of their own below the panels, where they cover no data
        figure.set_layout_engine("constrained", rect=(0, below / height, 1, 1 - below / height))
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _draw_panel(axes, panel, records, looks)
        _share_error_axes(list(grid[: len(panels)]), records)
        for index, axes in enumerate(grid[: len(panels)]):
            if index % columns == 0:
                axes.set_ylabel(METRIC_LABELS[records[0].metric])
            else:
                axes.tick_params(axis="y", labelleft=False)
        if with_accuracy:
            _draw_accuracy(grid[len(panels)], records, looks)
        for axes in grid[count:]:
            axes.set_axis_off()
        for index, axes in enumerate(grid[:count]):
            _factor_axis(axes, _all_factors(records))
            if index + columns >= count:  # nothing stands below
                axes.set_xlabel("scale factor $s$")
        figure.suptitle(title if title is not None else _default_title(records), fontsize=10.5)
        anchor = (0.5, notes_height / height)
        legend = figure.legend(
            list(entries.values()),
            list(entries),
            loc="lower center",
            bbox_to_anchor=anchor,
            ncols=legend_columns,
            frameon=False,
        )
        legend.set_in_layout(False)
        if notes:
            text = figure.text(0.1 / width, 0.06 / height, "\n".join(notes), fontsize=NOTE_SIZE, color="0.25")
            text.set_in_layout(False)
    return figure


def _check(records: Sequence[EquivarianceRecord]) -> None:
    if not records:
        raise InputError("no curves to draw: give at least one result of 'secli equivariance'")
    metrics = sorted({record.metric for record in records})
    if len(metrics) > 1:
        raise InputError(
            f"curves of different metrics ({', '.join(metrics)}) cannot share an axis; draw them apart"
        )
    if not any(_points(record.rows) or _points(record.accuracy) for record in records):
        raise InputError("no curves to draw: every value is null (the record's 'reason' says why)")


def _look(index: int, label: str) -> _Look:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    return _Look(label, colour, marker, LINES[index // len(COLOURS) % len(LINES)])


def _value(row: CurveRow | AccuracyRow) -> float | None:
    value = row.mean if isinstance(row, CurveRow) else row.accuracy
    return value if value is not None and math.isfinite(value) else None


def _points(rows: Sequence[CurveRow] | Sequence[AccuracyRow]) -> list[tuple[float, float]]:
    """Return (factor, value) of the rows that have one, by increasing factor."""
    return sorted((row.factor, value) for row in rows if (value := _value(row)) is not None)


def _all_factors(records: Sequence[EquivarianceRecord]) -> list[float]:
    measured = [row.factor for record in records for row in record.rows]
    return measured + [row.factor for record in records for row in record.accuracy]


def _draw_panel(
    axes: Axes, panel: Panel, records: Sequence[EquivarianceRecord], looks: Sequence[_Look]
) -> None:
    """Draw one tap: floors first, then bands, then the curves on top."""
    for record, look, tap in zip(records, looks, panel.taps, strict=True):
        rows = sorted((row for row in record.rows if row.tap == tap), key=lambda row: row.factor)
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
        _draw_line(axes, rows, look)
    axes.set_title("\n".join(textwrap.wrap(panel.title, 34)))
    if not axes.lines:
        axes.text(0.5, 0.5, "not measurable here", transform=axes.transAxes, ha="center", color="0.4")


def _draw_line(axes: Axes, rows: Sequence[CurveRow], look: _Look) -> None:
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


def _share_error_axes(panels: Sequence[Axes], records: Sequence[EquivarianceRecord]) -> None:
    """Give all taps the same vertical axis; logarithmic, with a linear foot for zeros, when the range calls for it."""
    rows = [row for record in records for row in record.rows]
    values = [value for row in rows if (value := _value(row)) is not None]
    positive = [value for value in values if value > 0]
    if not positive:
        return
    tops = [row.high for row in rows if row.high is not None and math.isfinite(row.high)]
    top = max([*positive, *tops])
    low = min(positive)
    for axes in panels:
        axes.grid(axis="y", color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        if max(positive) / low < LOG_FROM:
            axes.set_ylim(-0.03 * top, 1.06 * top)  # a point at zero is seen whole
        else:
            _log_axis(axes, low, top)


def _log_axis(axes: Axes, low: float, top: float) -> None:
    """Set a log axis from ``low`` to ``top`` whose foot below ``low`` is linear and holds the zeros."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    foot = 10.0 ** math.floor(math.log10(low))
    exponents = range(round(math.log10(foot)), math.floor(math.log10(top)) + 1)
    step = max(1, math.ceil(len(exponents) / 6))
    ticks = [0.0, *(10.0**exponent for exponent in exponents[::step])]
    labels = ["0", *(f"{t:g}" if 1e-3 <= t <= 1e3 else f"$10^{{{round(math.log10(t))}}}$" for t in ticks[1:])]
    axes.set_yscale("symlog", linthresh=foot, linscale=0.35)
    axes.set_ylim(-0.35 * foot, 1.4 * top)  # a point at zero is seen whole
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter(labels))
    axes.yaxis.set_minor_locator(NullLocator())


def _draw_accuracy(axes: Axes, records: Sequence[EquivarianceRecord], looks: Sequence[_Look]) -> None:
    for record, look in zip(records, looks, strict=True):
        points = _points(record.accuracy)
        if points:
            factors, values = zip(*points, strict=True)
            percent = [100 * value for value in values]
            axes.plot(factors, percent, look.line, marker=look.marker, color=look.colour)
    axes.set_title("accuracy on rescaled images")
    axes.set_ylabel("accuracy (%)")
    lowest = min(100 * value for record in records for _, value in _points(record.accuracy))
    axes.set_ylim(max(0, 10 * math.floor(lowest / 10) - 10), 101.5)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def _factor_axis(axes: Axes, factors: Sequence[float]) -> None:
    """Set the log axis of scale factors with plain tick labels (1/3, 0.5, 0.7, 1, 1.5)."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    low, high = min(factors), max(factors)
    ticks = {tick: text for tick, text in FACTOR_TICKS.items() if low / 1.01 <= tick <= high * 1.01}
    if len(ticks) < 2:
        ticks = {factor: f"{factor:.3g}" for factor in sorted({low, high})}
    margin = 1.04 if low < high else 1.2
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_major_formatter(FixedFormatter(list(ticks.values())))
    axes.xaxis.set_minor_locator(NullLocator())


def _legend_entries(
    records: Sequence[EquivarianceRecord], looks: Sequence[_Look], width: float
) -> tuple[dict[str, Any], int]:
    """Return the legend's entries (the networks, then the signs that occur) and how many fit side by side."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = [row for record in records for row in record.rows]
    entries: dict[str, Any] = {
        look.label: Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker, markersize=4.5)
        for look in looks
    }
    if any(row.low is not None for row in rows):
        band = (Patch(color="0.2", alpha=0.25, linewidth=0), Line2D([], [], color="0.2"))
        entries["95 % interval of the mean"] = band
    if any(row.floor is not None for row in rows):
        entries["floor of the resampling"] = Patch(color=FLOOR_COLOUR, linewidth=0)
    if any(row.on_lattice is False and row.mean is not None for row in rows):
        hollow: dict[str, Any] = {
            "marker": "o",
            "markersize": 4.5,
            "markerfacecolor": "white",
            "linestyle": "",
        }
        entries["hollow: off the lattice of scales"] = Line2D([], [], color="0.3", **hollow)
    longest = max(len(label) for label in entries)
    columns = max(1, min(len(entries), int((width - 0.2) / (0.6 + 0.066 * longest))))
    # equal rows look calmer than a full row and a stray one
    return entries, math.ceil(len(entries) / math.ceil(len(entries) / columns))


def _default_title(records: Sequence[EquivarianceRecord]) -> str:
    names = sorted({f"{record.data.name} r{record.data.realisation}" for record in records})
    return f"Equivariance over scale, measured on {', '.join(names)}"


def _notes(records: Sequence[EquivarianceRecord], looks: Sequence[_Look], columns: int) -> list[str]:
    """Say below the figure which values are null and why, wrapped to ``columns`` characters."""
    missing: dict[tuple[str, str, str], list[str]] = {}  # (tap, factors, reason) -> networks
    for record, look in zip(records, looks, strict=True):
        for tap in dict.fromkeys(row.tap for row in record.rows):
            rows = sorted((row for row in record.rows if row.tap == tap), key=lambda row: row.factor)
            null = [row for row in rows if _value(row) is None]
            for form in dict.fromkeys(pattern(row.reason) for row in null):
                same = [row for row in null if pattern(row.reason) == form]
                where = _ranges([row.factor for row in rows], [row in same for row in rows])
                missing.setdefault((tap, where, merged([row.reason for row in same])), []).append(look.label)
    if not missing:
        return []
    taps: dict[tuple[str, str, str], list[str]] = {}  # (networks, factors, reason) -> taps
    for (tap, where, reason), labels in missing.items():
        owner = "" if len(labels) == len(looks) else f"{', '.join(labels)}: "
        taps.setdefault((owner, where, reason), []).append(tap)
    parts = [
        f"{owner}{', '.join(names)} at s = {where} ({reason})"
        for (owner, where, reason), names in taps.items()
    ]
    rest = len(parts) - MAX_NOTES
    text = (
        "Not measurable, not drawn: "
        + "; ".join(parts[:MAX_NOTES])
        + (f"; and {rest} more." if rest > 0 else ".")
    )
    return textwrap.wrap(text, columns)


def _ranges(factors: Sequence[float], chosen: Sequence[bool]) -> str:
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
