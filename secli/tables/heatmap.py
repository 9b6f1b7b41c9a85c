"""The heat map of the equivariance error: tap × factor, one map per network, all on one colour scale."""

from __future__ import annotations

import math
import string
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.errors import InputError
from secli.metrics import METRICS
from secli.records.schema import CurveRow, EquivarianceRecord
from secli.tables.figures import (
    STYLE,
    TITLE_SIZE,
    check_one_metric,
    check_plot_path,
    measured_on,
    metric_note,
    notes_height,
    plain,
    save_figure,
    wrapped,
    write_notes,
)
from secli.tables.labels import distinct_labels
from secli.tables.places import tap_names, telling_warnings, warning_places, whole
from secli.tables.reasons import merged, pattern
from secli.tables.scales import LOG_FROM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

COLOURS = "viridis"  # perceptually uniform, and readable without colour
NULL_COLOUR, NULL_HATCH = "0.93", "0.78"
CELL_WIDTH, CELL_HEIGHT = 0.37, 0.21  # inches: a number of five characters fits
NARROW_CELL = 0.14
NUMBER_SIZE = 6
PAGE = 7.2  # inches: the two columns of a page
GAP = 0.12
BAR = 0.75  # colour bar with its labels
TICK_CHARACTER = 0.062  # inches per character of a tap's name
HEAD = 0.27  # the title of a map
FOOT, FOOT_UPRIGHT = 0.42, 0.56  # tick labels and axis label


def plot_heatmap(records: Sequence[EquivarianceRecord], path: Path, title: str | None = None) -> None:
    """Draw the equivariance error as colour over tap × scale factor and write the figure, whole or not at all.

    One map per network, side by side where the page holds them and one below the other elsewhere, with one colour
    scale (logarithmic when the values span a factor of 50) and the numbers in the cells where they fit. Null cells
    are hatched grey with a letter that the notes explain; a small ring marks factors off the model's lattice of
    scales, an asterisk a warning that the notes repeat.

    Parameters
    ----------
    records : sequence of EquivarianceRecord
        One map each; single levels, single channels and controls are left to the curves.
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
    save_figure(draw_heatmap(records, title), path)


def draw_heatmap(records: Sequence[EquivarianceRecord], title: str | None = None) -> Figure:
    """Return the figure that ``plot_heatmap`` writes, free of any global state."""
    check_one_metric(records)
    values = [value for record in records for row in whole(record.rows) if (value := _value(row)) is not None]
    if not values:
        raise InputError("no heat map to draw: every value is null (the record's 'reason' says why)")
    import matplotlib
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    letters = _letters(records)
    cell = _cell_width(records)
    sizes = [_size(record, cell) for record in records]
    under = _foot(cell)
    abreast = sum(width for width, _ in sizes) + GAP * (len(sizes) - 1) + BAR <= PAGE
    width = (sum(w for w, _ in sizes) + GAP * (len(sizes) - 1) if abreast else max(w for w, _ in sizes)) + BAR
    width = max(width, 3.5)
    notes = wrapped(_notes(records, letters), width)
    foot = notes_height(notes)
    maps_height = max(h for _, h in sizes) if abreast else sum(h for _, h in sizes)
    head = textwrap.wrap(title if title is not None else measured_on(records), int(width * 14))
    height = maps_height + 0.12 + 0.16 * len(head) + foot
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        norm, colours = _norm(values), colormaps[COLOURS]
        left, top = 0.0, height - 0.12 - 0.16 * len(head)
        for record, label, size in zip(records, distinct_labels(records), sizes, strict=True):
            names = size[0] - cell * len(_factors(record))
            box = (left + names, top - size[1] + under, size[0] - names, size[1] - under - HEAD)
            axes = figure.add_axes(_relative(box, width, height))
            _draw_map(axes, record, letters, norm, colours, numbers=cell == CELL_WIDTH)
            axes.set_title("\n".join(textwrap.wrap(plain(label), int(size[0] * 16))), pad=4)
            if abreast:
                left += size[0] + GAP
            else:
                top -= size[1]
        bar_height = min(maps_height - under - HEAD, 2.4)
        middle = foot + under + (maps_height - under - HEAD) / 2
        box = (width - BAR + 0.12, middle - bar_height / 2, 0.11, bar_height)
        bar_axes = figure.add_axes(_relative(box, width, height))
        bar = figure.colorbar(ScalarMappable(norm, colours), cax=bar_axes)
        _label_bar(bar, norm)
        bar_axes.set_title(METRICS[records[0].metric].symbol, loc="left", pad=5)
        bar.outline.set_visible(False)
        figure.suptitle("\n".join(head), fontsize=TITLE_SIZE, y=1 - 0.07 / height, va="top")
        write_notes(figure, notes)
    return figure


def _value(row: CurveRow) -> float | None:
    return row.mean if row.mean is not None and math.isfinite(row.mean) else None


def _factors(record: EquivarianceRecord) -> list[float]:
    return sorted({row.factor for row in whole(record.rows)})


def _cell_width(records: Sequence[EquivarianceRecord]) -> float:
    """Return the width of a cell: that of a number, unless the longest row would then run over the page."""
    room = min((PAGE - BAR - _names_width(record)) / max(len(_factors(record)), 1) for record in records)
    return CELL_WIDTH if room >= CELL_WIDTH else max(NARROW_CELL, room)


def _names_width(record: EquivarianceRecord) -> float:
    return 0.18 + TICK_CHARACTER * max((len(tap) for tap in tap_names(record.rows)), default=0)


def _size(record: EquivarianceRecord, cell: float) -> tuple[float, float]:
    """Return width and height of one map with its names and ticks, in inches."""
    taps = len(tap_names(whole(record.rows)))
    return _names_width(record) + cell * len(_factors(record)), HEAD + CELL_HEIGHT * taps + _foot(cell)


def _foot(cell: float) -> float:
    return FOOT if cell == CELL_WIDTH else FOOT_UPRIGHT


def _relative(
    box: tuple[float, float, float, float], width: float, height: float
) -> tuple[float, float, float, float]:
    left, bottom, across, up = box
    return left / width, bottom / height, across / width, up / height


def _norm(values: Sequence[float]) -> Normalize:
    """Return the colour scale: logarithmic over the positive values when they span much, else linear from 0."""
    from matplotlib.colors import LogNorm, Normalize

    positive = [value for value in values if value > 0]
    if not positive:
        return Normalize(0, 1)
    if max(positive) / min(positive) >= LOG_FROM:
        return LogNorm(min(positive), max(positive), clip=True)
    return Normalize(0, max(positive))


def _label_bar(bar: Any, norm: Normalize) -> None:
    """Give the bar plain numbers: powers of ten on a log scale."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    if not isinstance(norm, LogNorm) or norm.vmin is None or norm.vmax is None:
        return
    exponents = range(math.ceil(math.log10(norm.vmin)), math.floor(math.log10(norm.vmax)) + 1)
    ticks = [10.0**exponent for exponent in exponents]
    labels = [f"{t:g}" if 1e-3 <= t <= 1e3 else f"$10^{{{round(math.log10(t))}}}$" for t in ticks]
    bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
    bar.ax.yaxis.set_major_formatter(FixedFormatter(labels))
    bar.ax.yaxis.set_minor_locator(NullLocator())


def _draw_map(
    axes: Axes,
    record: EquivarianceRecord,
    letters: dict[str, str],
    norm: Normalize,
    colours: Colormap,
    numbers: bool,
) -> None:
    """Draw one map, input at the top."""
    from matplotlib.patches import Rectangle

    rows = whole(record.rows)
    factors, taps = _factors(record), tap_names(rows)
    warned = telling_warnings(rows)
    for row in rows:
        x, y = factors.index(row.factor), taps.index(row.tap)
        value = _value(row)
        corner, ink = (x - 0.5, y - 0.5), "0.35"
        if value is None:
            look: dict[str, Any] = {
                "facecolor": NULL_COLOUR,
                "edgecolor": NULL_HATCH,
                "hatch": "////",
                "linewidth": 0,
            }
            axes.add_patch(Rectangle(corner, 1, 1, **look))
            text = letters[pattern(row.reason)]
        else:
            colour = colours(norm(value))
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5))
            ink = "black" if _luminance(colour) > 0.18 else "white"
            text = number_text(value) if numbers else ""
            if any(pattern(warning) in warned for warning in row.warnings):
                text += "*"
            if row.on_lattice is False:
                ring: dict[str, Any] = {
                    "markerfacecolor": "none",
                    "markeredgecolor": ink,
                    "markeredgewidth": 0.5,
                }
                axes.plot(x + 0.36, y - 0.3, "o", markersize=2, **ring)
        size = NUMBER_SIZE if value is not None else NUMBER_SIZE + 0.5
        axes.text(x, y + 0.04, text, ha="center", va="center", size=size, color=ink)
    axes.set_xlim(-0.5, len(factors) - 0.5)
    axes.set_ylim(len(taps) - 0.5, -0.5)
    upright = numbers or not factors
    axes.set_xticks(
        range(len(factors)), [f"{f:.3g}" for f in factors], rotation=0 if upright else 90, size=6.5
    )
    axes.set_yticks(range(len(taps)), [plain(tap) for tap in taps])
    axes.tick_params(length=0, pad=2)
    axes.set_xlabel("scale factor $s$", labelpad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def number_text(value: float) -> str:
    """Write an error in at most five characters: ``0``, ``.0012``, ``.123``, ``1.23``, ``12.3``, ``4e-5``."""
    if value == 0:
        return "0"
    if value < 5e-4:
        return f"{value:.0e}".replace("e-0", "e-")
    if value < 0.01:
        return f"{value:.4f}"[1:]
    if value < 0.9995:
        return f"{value:.3f}"[1:]
    return f"{value:.3g}" if value < 999.5 else f"{value:.0e}".replace("e+0", "e")


def _luminance(colour: tuple[float, ...]) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _letters(records: Sequence[EquivarianceRecord]) -> dict[str, str]:
    """Return a letter for each form of reason."""
    rows = [row for record in records for row in whole(record.rows)]
    forms = dict.fromkeys(pattern(row.reason) for row in rows if _value(row) is None)
    names = string.ascii_lowercase
    return {form: names[i] if i < len(names) else str(i) for i, form in enumerate(forms)}


def _notes(records: Sequence[EquivarianceRecord], letters: dict[str, str]) -> list[str]:
    rows = [row for record in records for row in whole(record.rows)]
    notes = [metric_note(records)]
    signs = []
    if any(row.on_lattice is False and row.mean is not None for row in rows):
        signs.append("Small ring: s lies off the lattice of scales, levels are interpolated.")
    if any(telling_warnings(whole(record.rows)) for record in records):
        signs.append("Asterisk: a warning, given below.")
    if letters:
        signs.append("Hatched: not measurable, the letter says why.")
    notes += [" ".join(signs)] if signs else []
    for form, letter in letters.items():
        reasons = [row.reason for row in rows if _value(row) is None and pattern(row.reason) == form]
        notes.append(plain(f"{letter}: {merged(reasons)}."))
    for record, label in zip(records, distinct_labels(records), strict=True):
        owner = f"{label}: " if len(records) > 1 else ""
        notes += [plain(f"{owner}{text}: {where}.") for _, text, where in warning_places(whole(record.rows))]
    return notes
