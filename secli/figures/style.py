"""Colours, markers and lines of networks, of their single levels and channels, and of controls; and their legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secli.records.schema import EquivarianceRecord
from secli.tables.curve_notes import telling_warnings
from secli.tables.curve_rows import part_name, parts, whole

# Okabe & Ito (2008), colour-blind safe; their yellow is left out: it vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "svg.hashsalt": "secli",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
FLOOR_COLOUR = "#DDDDDD"
CONTROL_LINES = ((0, (1, 1.5)), (0, (4, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (8, 2)), (0, (2, 1, 1, 1, 1, 1)))
CONTROL_COLOUR = "0.5"
MAX_PARTS = 6  # single levels or channels that get a line of the legend each
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 7.5,
    "markerfacecolor": "none",
    "markeredgecolor": "0.35",
    "markeredgewidth": 0.6,
    "linestyle": "",
}
HOLLOW: dict[str, Any] = {"marker": "o", "markersize": 4, "markerfacecolor": "white", "linestyle": ""}

Records = Sequence[EquivarianceRecord]
Colour = str | tuple[float, float, float]


@dataclass(frozen=True)
class Style:
    """How one network is drawn in every panel."""

    label: str
    colour: str
    marker: str
    line: Any  # matplotlib's stubs want a literal


@dataclass(frozen=True)
class Control:
    """A control of one network, and how it is drawn: once and grey where all networks have the same numbers."""

    owner: int
    record: EquivarianceRecord
    colour: Colour
    line: Any
    shared: bool


def styles_of(labels: Sequence[str]) -> list[Style]:
    """Return one style per network."""
    return [
        Style(
            label,
            COLOURS[index % len(COLOURS)],
            MARKERS[index % len(MARKERS)],
            LINES[index // len(COLOURS) % len(LINES)],
        )
        for index, label in enumerate(labels)
    ]


def tint(colour: str, share: float) -> tuple[float, float, float]:
    """Mix a colour with white: share 0 is the palest tint that is still seen, 1 the colour darkened a little."""
    from matplotlib.colors import to_rgb

    mixed = 0.38 + 0.62 * share
    red, green, blue = (1 - mixed * (1 - 0.85 * part) for part in to_rgb(colour))
    return red, green, blue


def part_tints(records: Records, colour: str) -> dict[str, tuple[float, float, float]]:
    """Return the tint of each single level and channel that occurs, in their own order."""
    rows = [row for record in records for row in parts(record.rows)]
    found = {part_name(row): (_number(row.level), _number(row.channel)) for row in rows}
    names = sorted(found, key=found.__getitem__)
    return {name: tint(colour, index / max(len(names) - 1, 1)) for index, name in enumerate(names)}


def _number(number: int | None) -> int:
    return -1 if number is None else number


def controls_of(records: Records, styles: Sequence[Style]) -> dict[str, list[Control]]:
    """Return the controls of all networks by name, with how they are drawn."""
    named: dict[str, list[tuple[int, EquivarianceRecord]]] = {}
    for owner, record in enumerate(records):
        for control in record.controls:
            named.setdefault(control.control or control.model.name, []).append((owner, control))
    found = {}
    for index, (name, own) in enumerate(named.items()):
        numbers = [[(row.tap, row.factor, row.mean) for row in control.rows] for _, control in own]
        shared = all(other == numbers[0] for other in numbers)
        line = CONTROL_LINES[index % len(CONTROL_LINES)]
        colours: list[Colour] = [
            CONTROL_COLOUR if shared else tint(styles[owner].colour, 0.4) for owner, _ in own
        ]
        found[name] = [Control(*one, colour, line, shared) for one, colour in zip(own, colours, strict=True)]
    return found


def legend_entries(records: Records, styles: Sequence[Style], width: float) -> tuple[dict[str, Any], int]:
    """Return the legend's entries (networks, parts, controls, then the signs that occur) and how many fit abreast."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = [row for record in records for row in whole(record.rows)]
    entries: dict[str, Any] = {
        one.label: Line2D([], [], color=one.colour, linestyle=one.line, marker=one.marker, markersize=4)
        for one in styles
    }
    # the tints of one network are its own; those of several are told by lightness alone
    colour = styles[0].colour if len(styles) == 1 else "#000000"
    tints: dict[str, Any] = dict(part_tints(records, colour))
    if len(tints) > MAX_PARTS:
        tints = {f"{next(iter(tints))} (pale) to {list(tints)[-1]} (dark)": tint(colour, 0.5)}
    entries |= {name: Line2D([], [], color=colour, linewidth=0.8) for name, colour in tints.items()}
    for name, own in controls_of(records, styles).items():
        line = Line2D([], [], color=CONTROL_COLOUR, linewidth=1, linestyle=own[0].line)
        entries[f"control: {name}"] = line
    if any(row.low is not None for row in rows) or any(row.low is not None for r in records for row in r.lie):
        band = (Patch(color="0.2", alpha=0.25, linewidth=0), Line2D([], [], color="0.2"))
        entries["95 % interval of the mean"] = band
    if len(records) == 1 and any(row.floor is not None for row in rows):
        entries["floor of the resampling"] = Patch(color=FLOOR_COLOUR, linewidth=0)
    if any(row.on_lattice is False and row.mean is not None for row in rows):
        entries["hollow: off the lattice of scales"] = Line2D([], [], color="0.3", **HOLLOW)
    if any(telling_warnings(whole(record.rows)) for record in records):
        entries["ringed: carries a warning"] = Line2D([], [], **RING)
    longest = max(len(label) for label in entries)
    columns = max(1, min(len(entries), int((width - 0.2) / (0.5 + 0.057 * longest))))
    # equal rows look calmer than a full row and a stray one
    return entries, math.ceil(len(entries) / math.ceil(len(entries) / columns))
