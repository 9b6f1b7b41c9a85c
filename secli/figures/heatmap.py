"""The heat map of the equivariance error: tap × factor, one map per network, all on one colour scale."""

from __future__ import annotations

import math
import string
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.errors import InputError, printable
from secli.figures import page
from secli.figures.axes import power_label
from secli.figures.style import STYLE, Records
from secli.metrics import METRICS
from secli.records.notes import Form
from secli.records.schema import CurveRow, EquivarianceRecord
from secli.tables.curve_notes import by_reason, reason_of, telling_warnings, warnings_of
from secli.tables.curve_rows import tap_names, whole
from secli.tables.labels import legend_labels
from secli.tables.statistic import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

COLOURS = "viridis"  # perceptually uniform, and readable without colour
NULL: dict[str, Any] = {"facecolor": "0.93", "edgecolor": "0.78", "hatch": "////", "linewidth": 0}
CELL_WIDTH, CELL_HEIGHT = 0.37, 0.21  # inches: a number of five characters fits
NARROW_CELL = 0.14
NUMBER_SIZE = 6
PAGE = 7.2  # inches: the two columns of a page
GAP = 0.12
LOG_FROM = 50  # largest over smallest positive value from which a linear scale hides the small ones
BAR = 0.75  # colour bar with its labels
TICK_CHARACTER = 0.062  # inches per character of a tap's name
HEAD, HEAD_LINE = 0.27, 0.13  # the title of a map, and each further line of it
FOOT, FOOT_UPRIGHT = 0.42, 0.56  # tick labels and axis label


@dataclass(frozen=True)
class Map:
    """One network's map; lengths in inches."""

    record: EquivarianceRecord
    label: str

    @property
    def rows(self) -> list[CurveRow]:
        """What is drawn."""
        return whole(self.record.rows)

    @property
    def factors(self) -> list[float]:
        """The columns."""
        return sorted({row.factor for row in self.rows})

    @property
    def names_width(self) -> float:
        """Room for the names of the taps."""
        return 0.18 + TICK_CHARACTER * max((len(tap) for tap in tap_names(self.record.rows)), default=0)

    def width(self, cell: float) -> float:
        """Return the width of the map with its names."""
        return self.names_width + cell * len(self.factors)

    def height(self, foot: float, head: float) -> float:
        """Return the height of the map with its title and ticks."""
        return head + CELL_HEIGHT * len(tap_names(self.rows)) + foot


def plot_heatmap(
    records: Records, path: Path, title: str | None = None, *, labels: Mapping[str, str] | None = None
) -> None:
    """Draw the equivariance error as colour over tap × scale factor and write the figure, whole or not at all.

    One map per network, side by side where the page holds them and one below the other elsewhere, with one colour
    scale (logarithmic when the values span a factor of 50) and the numbers in the cells where they fit. Null cells
    are hatched grey with a letter that the caption explains (:func:`heatmap_caption`); a small ring marks factors off
    the model's lattice of scales, an asterisk a warning that the caption repeats.

    Raises
    ------
    InputError
        On an unknown suffix, no records, nothing measurable in them, or records of different metrics.
    OSError
        When the figure cannot be written.
    """
    page.check_plot_path(path)
    page.save_figure(draw_heatmap(records, title, labels=labels), path)


def draw_heatmap(
    records: Records, title: str | None = None, *, labels: Mapping[str, str] | None = None
) -> Figure:
    """Return the figure that ``plot_heatmap`` writes, free of any global state."""
    page.check_one_metric(records)
    maps = [Map(*one) for one in zip(records, legend_labels(records, labels), strict=True)]
    values = [value for one in maps for row in one.rows if (value := finite(row.mean)) is not None]
    if not values:
        raise InputError("no heat map to draw: every value is null (the record's 'reason' says why)")
    import matplotlib
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    cell = _cell_width(maps)
    foot = FOOT if cell == CELL_WIDTH else FOOT_UPRIGHT
    widths = [one.width(cell) for one in maps]
    titles = [
        textwrap.wrap(page.plain(one.label), int(across * 15))
        for one, across in zip(maps, widths, strict=True)
    ]
    above = HEAD + HEAD_LINE * (max(map(len, titles)) - 1)
    heights = [one.height(foot, above) for one in maps]
    side_by_side = sum(widths) + GAP * (len(maps) - 1)
    abreast = side_by_side + BAR <= PAGE
    width = max((side_by_side if abreast else max(widths)) + BAR, 3.5)
    letters = _letters(maps)
    maps_height = max(heights) if abreast else sum(heights)
    head = page.title_lines(title, width)
    height = maps_height + 0.12 + 0.16 * len(head)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        norm, colours = _norm(values), colormaps[COLOURS]
        left, top = 0.0, height - 0.12 - 0.16 * len(head)
        for one, lines, across, up in zip(maps, titles, widths, heights, strict=True):
            names = across - cell * len(one.factors)
            box = (left + names, top - up + foot, across - names, up - foot - above)
            axes = figure.add_axes(_relative(box, width, height))
            _draw_map(axes, one, letters, norm, colours, numbers=cell == CELL_WIDTH)
            axes.set_title("\n".join(lines), pad=4)
            left, top = (left + across + GAP, top) if abreast else (left, top - up)
        room = maps_height - foot - above
        middle = foot + room / 2
        box = (width - BAR + 0.12, middle - min(room, 2.4) / 2, 0.11, min(room, 2.4))
        axes = figure.add_axes(_relative(box, width, height))
        _draw_bar(figure, axes, norm, colours, METRICS[records[0].metric].symbol)
        if head:
            figure.suptitle("\n".join(head), fontsize=page.TITLE_SIZE, y=1 - 0.07 / height, va="top")
    return figure


def _cell_width(maps: Sequence[Map]) -> float:
    """Return the width of a cell: that of a number, unless the longest row would then run over the page."""
    room = min((PAGE - BAR - one.names_width) / max(len(one.factors), 1) for one in maps)
    return CELL_WIDTH if room >= CELL_WIDTH else max(NARROW_CELL, room)


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


def _draw_bar(figure: Figure, axes: Axes, norm: Normalize, colours: Colormap, symbol: str) -> None:
    """Draw the colour bar, with plain numbers: powers of ten on a log scale."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    bar = figure.colorbar(ScalarMappable(norm, colours), cax=axes)
    if isinstance(norm, LogNorm) and norm.vmin is not None and norm.vmax is not None:
        exponents = range(math.ceil(math.log10(norm.vmin)), math.floor(math.log10(norm.vmax)) + 1)
        ticks = [10.0**exponent for exponent in exponents]
        bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
        bar.ax.yaxis.set_major_formatter(FixedFormatter(list(map(power_label, ticks))))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    axes.set_title(symbol, loc="left", pad=5)
    bar.outline.set_visible(False)


def _draw_map(
    axes: Axes, one: Map, letters: dict[Form, str], norm: Normalize, colours: Colormap, numbers: bool
) -> None:
    """Draw one map, input at the top."""
    from matplotlib.patches import Rectangle

    factors, taps = one.factors, tap_names(one.rows)
    warned = telling_warnings(one.rows)
    for row in one.rows:
        x, y = factors.index(row.factor), taps.index(row.tap)
        value = finite(row.mean)
        corner, ink, size = (x - 0.5, y - 0.5), "0.35", NUMBER_SIZE + 0.5
        if value is None:
            axes.add_patch(Rectangle(corner, 1, 1, **NULL))
            text = letters[reason_of(row).form]
        else:
            colour = colours(norm(value))
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5))
            ink, size = "black" if _luminance(colour) > 0.18 else "white", NUMBER_SIZE
            text = number_text(value) if numbers else ""
            if any(note.form in warned for note in row.warnings):
                text += "*"
            if row.on_lattice is False:
                ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": ink}
                axes.plot(x + 0.36, y - 0.3, "o", markersize=2, markeredgewidth=0.5, **ring)
        axes.text(x, y + 0.04, text, ha="center", va="center", size=size, color=ink)
    axes.set_xlim(-0.5, len(factors) - 0.5)
    axes.set_ylim(len(taps) - 0.5, -0.5)
    rotation = 0 if numbers or not factors else 90
    axes.set_xticks(range(len(factors)), [f"{f:.3g}" for f in factors], rotation=rotation, size=6.5)
    axes.set_yticks(range(len(taps)), [page.plain(tap) for tap in taps])
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


def _letters(maps: Sequence[Map]) -> dict[Form, str]:
    """Return a letter for each form of reasons, then numbers."""
    names = string.ascii_lowercase
    found = by_reason(row for one in maps for row in one.rows)
    return {
        reason_of(same[0]).form: names[index] if index < len(names) else str(index)
        for index, (_, same) in enumerate(found)
    }


def heatmap_caption(records: Records, labels: Mapping[str, str] | None = None) -> list[str]:
    """Return the sentences of a caption: the error, the signs, the reasons behind the letters, the warnings."""
    maps = [Map(*one) for one in zip(records, legend_labels(records, labels), strict=True)]
    letters = _letters(maps)
    rows = [row for one in maps for row in one.rows]
    signs = []
    if any(row.on_lattice is False and row.mean is not None for row in rows):
        signs.append("Small ring: s lies off the lattice of scales, levels are interpolated.")
    if any(telling_warnings(one.rows) for one in maps):
        signs.append("Asterisk: a warning, given below.")
    if letters:
        signs.append("Hatched: not measurable, the letter says why.")
    found = [page.caption_head(records), *([" ".join(signs)] if signs else [])]
    found += [f"{letters[reason_of(same[0]).form]}: {reason}." for reason, same in by_reason(rows)]
    for one in maps:
        owner = f"{one.label}: " if len(maps) > 1 else ""
        found += [f"{owner}{warned.text}: {warned.where}." for warned in warnings_of(one.rows)]
    return list(map(printable, found))
