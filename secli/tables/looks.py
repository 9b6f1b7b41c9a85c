"""How a network, its single levels and channels, and its controls look in every panel; and the legend of it all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secli.records.schema import CurveRow, EquivarianceRecord
from secli.tables.figures import COLOURS
from secli.tables.places import part_name, parts, telling_warnings, whole

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


@dataclass(frozen=True)
class Look:
    """How one network is drawn in every panel."""

    label: str
    colour: str
    marker: str
    line: Any  # matplotlib's stubs want a literal


def looks_of(labels: Sequence[str]) -> list[Look]:
    """Return one look per network, by its place."""
    return [
        Look(
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


def part_names(records: Sequence[EquivarianceRecord]) -> list[str]:
    """Return the single levels and channels that occur, each once, in their own order."""
    rows = [row for record in records for row in parts(record.rows)]
    found = {part_name(row): (_place(row.level), _place(row.channel)) for row in rows}
    return sorted(found, key=found.__getitem__)


def control_names(records: Sequence[EquivarianceRecord]) -> list[str]:
    """Return the controls that occur, each once."""
    return list(dict.fromkeys(control_name(c) for record in records for c in record.controls))


def control_name(control: EquivarianceRecord) -> str:
    """Return what a control is called."""
    return control.control or control.model.name


def shared_control(records: Sequence[EquivarianceRecord], name: str) -> bool:
    """Whether all networks have the same numbers for a control, so that one grey line stands for all."""
    found = [
        [(row.tap, row.factor, row.mean) for row in control.rows]
        for record in records
        for control in record.controls
        if control_name(control) == name
    ]
    return all(other == found[0] for other in found)


def legend_entries(
    records: Sequence[EquivarianceRecord], looks: Sequence[Look], width: float
) -> tuple[dict[str, Any], int]:
    """Return the legend's entries (networks, parts, controls, then the signs that occur) and how many fit abreast."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = [row for record in records for row in whole(record.rows)]
    entries: dict[str, Any] = {
        look.label: Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker, markersize=4)
        for look in looks
    }
    entries |= _part_entries(records, looks)
    for index, name in enumerate(control_names(records)):
        style: Any = CONTROL_LINES[index % len(CONTROL_LINES)]
        entries[f"control: {name}"] = Line2D([], [], color=CONTROL_COLOUR, linewidth=1, linestyle=style)
    if any(row.low is not None for row in rows) or any(row.low is not None for r in records for row in r.lie):
        band = (Patch(color="0.2", alpha=0.25, linewidth=0), Line2D([], [], color="0.2"))
        entries["95 % interval of the mean"] = band
    if any(row.floor is not None for row in rows):
        entries["floor of the resampling"] = Patch(color=FLOOR_COLOUR, linewidth=0)
    if any(row.on_lattice is False and row.mean is not None for row in rows):
        entries["hollow: off the lattice of scales"] = Line2D([], [], color="0.3", **HOLLOW)
    if any(telling_warnings(whole(record.rows)) for record in records):
        entries["ringed: see the notes"] = Line2D([], [], **RING)
    longest = max(len(label) for label in entries)
    columns = max(1, min(len(entries), int((width - 0.2) / (0.5 + 0.057 * longest))))
    # equal rows look calmer than a full row and a stray one
    return entries, math.ceil(len(entries) / math.ceil(len(entries) / columns))


def _part_entries(records: Sequence[EquivarianceRecord], looks: Sequence[Look]) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    names = part_names(records)
    # the tints of one network are its own; those of several are told by lightness alone
    colour = looks[0].colour if len(looks) == 1 else "#000000"
    if len(names) > MAX_PARTS:
        return {
            f"{names[0]} (pale) to {names[-1]} (dark)": Line2D([], [], color=tint(colour, 0.5), linewidth=0.8)
        }
    return {
        name: Line2D([], [], color=tint(colour, place / max(len(names) - 1, 1)), linewidth=0.8)
        for place, name in enumerate(names)
    }


def _place(number: int | None) -> int:
    return -1 if number is None else number


def sorted_rows(rows: Sequence[CurveRow]) -> list[CurveRow]:
    """Return rows by increasing factor."""
    return sorted(rows, key=lambda row: row.factor)
