"""The figure accuracy × robustness: a point per network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.errors import InputError
from secli.figures import page
from secli.figures.style import COLOURS, MARKERS, STYLE
from secli.tables.robustness import RobustnessRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 3.5, 2.7  # inches: one column of a page
LEGEND_LINE = 0.145  # inches
LEGEND_CHARACTERS = 24  # of a name, where two stand abreast
MARGIN = 0.08  # of the range, so that points stand clear of the axes

Points = list[tuple[str, float, float]]


def plot_robustness(
    rows: Sequence[RobustnessRow], path: Path, labels: Mapping[str, str] | None = None
) -> None:
    """Draw the area under accuracy over the accuracy at s = 1 and write the figure, whole or not at all.

    On the line no accuracy is lost at any factor. Where no network has an accuracy, the area under agreement is drawn
    over the mean cosine of the embedding. ``labels`` are labels by network.

    Raises
    ------
    InputError
        On an unknown suffix, or where no network has both numbers.
    OSError
        When the figure cannot be written.
    """
    page.check_plot_path(path)
    page.save_figure(draw_robustness(rows, labels), path)


def draw_robustness(rows: Sequence[RobustnessRow], labels: Mapping[str, str] | None = None) -> Figure:
    """Return the figure that ``plot_robustness`` writes, free of any global state."""
    points, by_accuracy = _points(rows)
    if not points:
        raise InputError("--plot: no network has numbers to draw; the table gives the reasons")
    import matplotlib
    from matplotlib.figure import Figure

    called = labels or {}
    names = [page.plain(called.get(name, name)) for name, _, _ in points]
    columns = 2 if max(map(len, names)) <= LEGEND_CHARACTERS and len(names) > 1 else 1
    below = LEGEND_LINE * -(-len(names) // columns) + 0.17
    height = HEIGHT + below
    with matplotlib.rc_context({**STYLE, "lines.markersize": 5}):
        figure = Figure(figsize=(WIDTH, height))
        figure.set_layout_engine("constrained", rect=(0, below / height, 1, 1 - below / height))
        axes: Any = figure.subplots()
        for index, (name, (_, across, up)) in enumerate(zip(names, points, strict=True)):
            marker = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]  # no pair comes again before 49
            axes.plot(
                across, up, color=COLOURS[index % len(COLOURS)], marker=marker, linestyle="", label=name
            )
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.margins(MARGIN)
        if by_accuracy:
            axes.axline((0, 0), slope=1, color="0.75", linewidth=0.7, linestyle=(0, (1, 2)), zorder=0)
        axes.set_xlabel("accuracy at $s=1$ (%)" if by_accuracy else "mean cosine of the embedding")
        axes.set_ylabel("area under accuracy (%)" if by_accuracy else "area under agreement (%)")
        legend = figure.legend(
            *axes.get_legend_handles_labels(),
            loc="lower center",
            bbox_to_anchor=(0.5, 0),
            ncols=columns,
            frameon=False,
            labelspacing=0.3,
            columnspacing=1.4,
        )
        legend.set_in_layout(False)
    return figure


def robustness_caption(rows: Sequence[RobustnessRow], notes: Sequence[str]) -> list[str]:
    """Return what must be said of the figure: what is drawn, what is not, then the notes of the table."""
    points, by_accuracy = _points(rows)
    drawn = {name for name, _, _ in points}
    what = (
        "Area under accuracy over accuracy at s = 1; on the line none is lost at any factor."
        if by_accuracy
        else "Area under agreement over the mean cosine of the embedding with that at s = 1: there is no accuracy."
    )
    lacking = [row.network for row in rows if row.network not in drawn]
    return [what, *([f"Not drawn: {', '.join(lacking)}."] if lacking else []), *notes]


def _points(rows: Sequence[RobustnessRow]) -> tuple[Points, bool]:
    """Return the points of the networks, and whether they are of accuracies."""
    by_accuracy = any(row.accuracy is not None for row in rows)
    points = []
    for row in rows:
        across, up = (row.accuracy, row.accuracy_area) if by_accuracy else (row.cosine, row.agreement_area)
        if across is not None and up is not None:
            points.append((row.network, 100 * across if by_accuracy else across, 100 * up))
    return points, by_accuracy
