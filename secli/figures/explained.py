"""Bars of Δ at every tap, and of what remains of it with a margin and on a finer grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secli.errors import InputError
from secli.figures import page
from secli.figures.style import STYLE, Records
from secli.records.schema import EquivarianceRecord
from secli.tables.labels import legend_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 3.4  # inches: one column of a page
HEIGHT = 2.2
READINGS = (
    ("as it stands", "error", "0.35"),
    ("with a margin", "with_margin", "#4477aa"),
    ("and enlarged twice", "enlarged", "#ee6677"),
)
"""Label, key and colour of the readings, from the largest to the smallest as a rule."""


def plot_explained(records: Records, path: Path, labels: Mapping[str, str] | None = None) -> None:
    """Draw the readings at the smallest factor, a panel per network.

    Raises
    ------
    InputError
        When nothing was explained, or the file cannot be written.
    """
    page.check_plot_path(path)
    page.save_figure(draw_explained(records, labels), path)


def draw_explained(records: Records, labels: Mapping[str, str] | None = None) -> Figure:
    """Return the figure that :func:`plot_explained` writes."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn = [
        (record, label)
        for record, label in zip(records, legend_labels(records, labels or {}), strict=True)
        if any(row.error is not None for row in record.explained)
    ]
    if not drawn:
        raise InputError("nothing to draw: where the error comes from was not measured")
    with matplotlib.rc_context(STYLE):
        return _drawn(Figure, drawn)


def _drawn(make: type[Figure], drawn: Sequence[tuple[EquivarianceRecord, str]]) -> Figure:
    figure = make(figsize=(WIDTH * min(2, len(drawn)), HEIGHT * -(-len(drawn) // 2)), layout="constrained")
    axes = figure.subplots(-(-len(drawn) // 2), min(2, len(drawn)), squeeze=False).flatten()
    for axis in axes[len(drawn) :]:
        axis.set_visible(False)
    for axis, (record, label) in zip(axes, drawn, strict=False):
        factor = min(row.factor for row in record.explained)
        rows = [row for row in record.explained if row.factor == factor and row.error is not None]
        bars(axis, [(row.tap, {key: getattr(row, key) for _, key, _ in READINGS}) for row in rows])
        axis.set_title(f"{label}, s = {factor:.3g}")
        axis.set_ylabel("Δ")
    axes[0].legend(frameon=False)
    return figure


def bars(axis: Axes, rows: Sequence[tuple[str, Mapping[str, float | None]]]) -> None:
    """Draw the readings of some taps side by side: (tap, value by key)."""
    width = 0.8 / len(READINGS)
    for k, (label, key, colour) in enumerate(READINGS):
        at = [(position, value) for position, (_, row) in enumerate(rows) if (value := row[key]) is not None]
        places = [position + (k - 1) * width for position, _ in at]
        axis.bar(places, [value for _, value in at], width, color=colour, label=label)
    axis.set_xticks(range(len(rows)), [tap for tap, _ in rows], rotation=30, ha="right")
