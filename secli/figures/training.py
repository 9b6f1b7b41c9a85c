"""The figure of a network while it trains: Δ at each tap, and the accuracy, over epochs, a line per scale factor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from secli.errors import InputError
from secli.figures.axes import error_axis, light_grid
from secli.figures.page import plain
from secli.figures.style import COLOURS, LINES, MARKERS, STYLE
from secli.records.epochs import EpochReading, MeasuredEpoch
from secli.tables.statistic import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TAPS = 7
MAX_COLUMNS = 4
PANEL_WIDTH, PANEL_HEIGHT = 1.9, 1.7  # inches

Read = Callable[[EpochReading, float], float | None]


def draw_training(epochs: Sequence[MeasuredEpoch]) -> Figure:
    """Return the figure; of many taps the last ones have a panel.

    Raises
    ------
    InputError
        When nothing has a value.
    """
    taps = taps_drawn(epochs)
    if not taps:
        raise InputError("no readings over epochs: every value is null")
    import matplotlib
    from matplotlib.figure import Figure

    panels: list[tuple[str, Read, bool]] = [(plain(tap), _error_at(tap), True) for tap in taps]
    if any(row.accuracy is not None for one in epochs for row in one.reading.accuracy):
        panels.append(("accuracy (%)", _accuracy, False))
    columns = min(len(panels), MAX_COLUMNS)
    lines = math.ceil(len(panels) / columns)
    factors = sorted({row.factor for one in epochs for row in one.reading.rows}, reverse=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(columns * PANEL_WIDTH, 3.5), lines * PANEL_HEIGHT + 0.5))
        figure.set_layout_engine("constrained")
        grid: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).ravel())
        for number, (axes, (title, read, errors)) in enumerate(zip(grid, panels, strict=False)):
            values = [_draw(axes, epochs, read, factor, index) for index, factor in enumerate(factors)]
            if errors:
                error_axis(axes, [value for line in values for value in line])
            else:
                light_grid(axes)
            axes.set_title(title)
            if number >= len(panels) - columns:
                axes.set_xlabel("epoch")
            if errors and number % columns == 0:
                axes.set_ylabel("$\\Delta_s$")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        entries: dict[str, Any] = {}  # a factor may be missing in some panels
        for axes in grid[: len(panels)]:
            handles, labels = axes.get_legend_handles_labels()
            entries |= dict(zip(labels, handles, strict=True))
        columns = min(6, len(entries))
        handles, names = list(entries.values()), list(entries)
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def taps_drawn(epochs: Sequence[MeasuredEpoch]) -> list[str]:
    """Return the taps that have a panel: the last of those with a value below or above s = 1."""
    rows = [row for one in epochs for row in one.reading.rows]
    names = dict.fromkeys(row.tap for row in rows if row.factor != 1 and finite(row.mean) is not None)
    return list(names)[-MOST_TAPS:]


def _draw(axes: Axes, epochs: Sequence[MeasuredEpoch], read: Read, factor: float, index: int) -> list[float]:
    """Draw the line of one factor, and return its values."""
    points = [(one.epoch, read(one.reading, factor)) for one in epochs]
    there = [(epoch, value) for epoch, value in points if value is not None]
    if there:
        axes.plot(
            *zip(*there, strict=True),
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            linestyle=LINES[index // len(COLOURS) % len(LINES)],
            label=f"$s={factor:.3g}$",
        )
    return [value for _, value in there]


def _error_at(tap: str) -> Read:
    def read(reading: EpochReading, factor: float) -> float | None:
        return next(
            (finite(row.mean) for row in reading.rows if row.tap == tap and row.factor == factor), None
        )

    return read


def _accuracy(reading: EpochReading, factor: float) -> float | None:
    found = next((row.accuracy for row in reading.accuracy if row.factor == factor), None)
    value = finite(found)
    return None if value is None else 100 * value
