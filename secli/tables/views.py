"""The figure of features: for one image and one factor, L_sΦ(f), Φ(L_s f) and their difference, channel by channel."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secli.errors import InputError
from secli.records.feature_maps import Array, FeatureView, FeatureViews, SamplingView
from secli.tables.figures import (
    COLOURS,
    STYLE,
    TITLE_SIZE,
    check_plot_path,
    notes_height,
    plain,
    save_figure,
    wrapped,
    write_notes,
)
from secli.tables.heatmap import number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIVERGING = "RdBu_r"
ROWS = ("$L_s\\Phi(f)$", "$\\Phi(L_sf)$", "difference")

PAGE, MARGIN = 7.2, 0.08  # inches, as all lengths below
LABELS = 0.58  # the names of the rows
GAP, GROUP_GAP, TAP_GAP = 0.03, 0.07, 0.16
SIDE = 0.45  # of a feature picture: twelve stand abreast
ROOM = PAGE - 2 * MARGIN - LABELS
PICTURE = 1.06  # side of f, L_s f and the sampling points
HEADING, BELOW = 0.46, 0.26  # above and below the three rows of a block
BAR_HEIGHT = 0.42
SMALL, SMALLER = 6.5, 5.5  # points


@dataclass(frozen=True)
class Group:
    """One channel of one tap: pictures side by side, one per level."""

    tap: str
    name: str
    limit: float
    views: tuple[FeatureView, ...]

    @property
    def width(self) -> float:
        """Inches across."""
        return len(self.views) * (SIDE + GAP) - GAP


def plot_views(views: FeatureViews, path: Path, title: str | None = None) -> None:
    """Draw what the equivariance error is made of, for one image and one factor, and write the figure.

    On top f and L_s f, and for deformable layers the points they read on both. Below, for the channels of each tap:
    L_sΦ(f), Φ(L_s f) and their difference on one symmetric colour scale per channel, level by level for a scale
    space. Cells that L_s cannot know are hatched.

    Parameters
    ----------
    views : FeatureViews
        What ``secli.equivariance.feature_maps.feature_views`` returns.
    path : Path
        ``.png``, ``.svg`` or ``.pdf``.
    title : str, optional
        Title of the figure; by default the factor.

    Raises
    ------
    InputError
        On an unknown suffix, or when there is nothing to show.
    OSError
        When the figure cannot be written.
    """
    check_plot_path(path)
    save_figure(draw_views(views, title), path)


def draw_views(views: FeatureViews, title: str | None = None) -> Figure:
    """Return the figure that ``plot_views`` writes, free of any global state."""
    if not views.features:
        raise InputError("no features to draw: no tap has a plane")
    import matplotlib
    from matplotlib.figure import Figure

    blocks = list(block_rows(groups_of(views.features)))
    pictures = [*_pictures(views), *(one for sampling in views.sampling for one in _sampled(views, sampling))]
    abreast = int((PAGE - 2 * MARGIN + GAP) / (PICTURE + GAP + 0.06))
    lines = [pictures[i : i + abreast] for i in range(0, len(pictures), abreast)]
    head = title if title is not None else f"Features at scale factor $s={views.factor:.3g}$"
    titles = textwrap.wrap(head, int(PAGE * 14))
    notes = wrapped(_notes(views), PAGE)
    top = 0.1 + 0.16 * len(titles)
    picture_height = PICTURE + 0.3
    block_height = HEADING + 3 * (SIDE + GAP) + BELOW
    height = top + len(lines) * picture_height + len(blocks) * block_height + BAR_HEIGHT + notes_height(notes)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PAGE, height))
        # one axes in inches, from the top, holds all pictures: hundreds of axes would take seconds
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        y = top
        for line in lines:
            for place, picture in enumerate(line):
                picture.draw(axes, MARGIN + place * (PICTURE + GAP + 0.06), y + 0.2)
            y += picture_height
        for block in blocks:
            _draw_block(axes, block, y)
            y += block_height
        axes.set_xlim(0, PAGE)
        axes.set_ylim(height, 0)
        axes.set_aspect("auto")
        _draw_bar(figure, y, height)
        figure.suptitle("\n".join(titles), fontsize=TITLE_SIZE, y=1 - 0.06 / height, va="top")
        write_notes(figure, notes)
    return figure


def groups_of(views: Sequence[FeatureView]) -> list[Group]:
    """Put the levels of a channel together, with the largest absolute value of its three pictures."""
    found: dict[tuple[str, int, tuple[int, ...]], list[FeatureView]] = {}
    for view in views:
        found.setdefault((view.tap, view.channel, view.component), []).append(view)
    groups = []
    for (tap, channel, component), own in found.items():
        limit = max(
            (
                float(np.abs(part[view.compared]).max())
                for view in own
                if view.compared.any()
                for part in (view.expected, view.actual, view.difference)
            ),
            default=0.0,
        )
        name = "ch\u00a0" + ".".join(str(number) for number in (channel, *component))
        # a channel of more levels than stand abreast goes on in the next row
        most = int((ROOM + GAP) / (SIDE + GAP))
        for start in range(0, len(own), most):
            groups.append(Group(tap, name, limit, tuple(own[start : start + most])))
    return groups


def block_rows(groups: Sequence[Group]) -> Iterator[list[Group]]:
    """Fill rows as wide as the page; a tap that fits into one row is not parted."""
    row: list[Group] = []
    for _, members in itertools.groupby(groups, key=lambda group: group.tap):
        own = list(members)
        if row and width_of([*row, *own]) > ROOM >= width_of(own):
            yield row
            row = []
        for group in own:
            if row and width_of([*row, group]) > ROOM:
                yield row
                row = []
            row.append(group)
    if row:
        yield row


def width_of(row: Sequence[Group]) -> float:
    """Return the inches across a row of channels: more room between two taps than between two channels of one."""
    gaps = (GROUP_GAP if one.tap == next_one.tap else TAP_GAP for one, next_one in itertools.pairwise(row))
    return sum(group.width for group in row) + sum(gaps)


@dataclass(frozen=True)
class Picture:
    """One of the pictures on top: an image, its name, and sampling points for some of its places."""

    name: str
    image: Array
    positions: Array | None = None
    points: Array | None = None

    def draw(self, axes: Axes, x: float, y: float) -> None:
        """Draw the picture with its upper left corner at (x, y), in inches."""
        shown, scale = np.clip(self.image, 0, 1), _fit(self.image.shape[:2], PICTURE)
        height, width = (side * scale for side in self.image.shape[:2])
        box = (x, x + width, y + height, y)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=box, interpolation="nearest", aspect="auto")
        _frame(axes, box)
        axes.text(x + width / 2, y - 0.05, self.name, ha="center", va="bottom", size=SMALL)
        if self.positions is None or self.points is None:
            return
        for place, (position, points) in enumerate(zip(self.positions, self.points, strict=True)):
            colour = COLOURS[(1, 4, 3)[place % 3]]
            inside = ((points >= -0.5) & (points <= np.array(self.image.shape[1::-1]) - 0.5)).all(-1)
            at = np.array([x, y]) + (points[inside] + 0.5) * scale
            axes.plot(at[:, 0], at[:, 1], ".", color=colour, markersize=2.6, markeredgewidth=0)
            centre = np.array([x, y]) + (position + 0.5) * scale
            axes.plot(*centre, "+", color=colour, markersize=5, markeredgewidth=0.8)


def _pictures(views: FeatureViews) -> list[Picture]:
    return [Picture("$f$", _shown(views.image)), Picture("$L_sf$", _shown(views.rescaled))]


def _sampled(views: FeatureViews, sampling: SamplingView) -> list[Picture]:
    name = plain(sampling.layer)
    return [
        Picture(f"{name}, $f$", _shown(views.image), sampling.positions, sampling.points),
        Picture(f"{name}, $L_sf$", _shown(views.rescaled), sampling.moved_positions, sampling.moved_points),
    ]


def _shown(image: Array) -> Array:
    """Return an image as it is shown: three channels as colours, any other number as their mean."""
    return np.moveaxis(image, 0, -1) if len(image) == 3 else image.mean(0)


def _fit(shape: tuple[int, ...], side: float) -> float:
    """Return inches per cell so that the larger side has a length."""
    return side / max(shape)


def _draw_block(axes: Axes, block: Sequence[Group], y: float) -> None:
    """Draw a row of channels: headings, the three rows of pictures, and each picture's own error below."""
    first = y + HEADING
    for row, name in enumerate(ROWS):
        middle = first + row * (SIDE + GAP) + SIDE / 2
        axes.text(MARGIN + LABELS - 0.08, middle, name, ha="right", va="center", size=7)
    x = MARGIN + LABELS
    for tap, members in itertools.groupby(block, key=lambda group: group.tap):
        own = list(members)
        axes.plot([x, x + width_of(own)], [y + 0.15] * 2, color="0.6", linewidth=0.6)
        axes.text(x, y + 0.11, plain(tap), ha="left", va="bottom", size=7.5)
        for group in own:
            _draw_group(axes, group, x, first)
            x += group.width + GROUP_GAP
        x += TAP_GAP - GROUP_GAP


def _draw_group(axes: Axes, group: Group, x: float, y: float) -> None:
    limit = f"±{number_text(group.limit)}"
    many = group.views[0].level is not None
    heading = f"{group.name}, {limit}" if many else f"{group.name}\n{limit}"
    centre = x + group.width / 2
    axes.text(
        centre, y - (0.13 if many else 0.02), heading, ha="center", va="bottom", size=SMALLER, linespacing=1.1
    )
    for place, view in enumerate(group.views):
        left = x + place * (SIDE + GAP)
        if view.level is not None:
            axes.text(
                left + SIDE / 2, y - 0.02, f"level {view.level}", ha="center", va="bottom", size=SMALLER
            )
        for row, values in enumerate((view.expected, view.actual, view.difference)):
            _draw_values(axes, values, view, group.limit, left, y + row * (SIDE + GAP))
        error = view.error
        text = "" if error is None else f"$\\Delta$ {number_text(error)}"
        axes.text(left + SIDE / 2, y + 3 * (SIDE + GAP), text, ha="center", va="top", size=SMALLER)


def _draw_values(axes: Axes, values: Array, view: FeatureView, limit: float, x: float, y: float) -> None:
    from matplotlib.patches import Rectangle

    scale = _fit(values.shape, SIDE)
    height, width = (side * scale for side in values.shape)
    left, upper = x + (SIDE - width) / 2, y + (SIDE - height) / 2
    box = (left, left + width, upper + height, upper)
    compared = view.compared
    if not compared.all():
        look: dict[str, Any] = {"facecolor": "0.95", "edgecolor": "0.7", "hatch": "//////", "linewidth": 0}
        axes.add_patch(Rectangle((left, upper), width, height, **look))
    if compared.any():
        shown = np.ma.masked_array(values, mask=~compared)
        top = limit or 1.0
        axes.imshow(
            shown,
            cmap=DIVERGING,
            vmin=-top,
            vmax=top,
            extent=box,
            interpolation="nearest",
            aspect="auto",
            zorder=2,
        )
    _frame(axes, box)


def _frame(axes: Axes, box: tuple[float, float, float, float]) -> None:
    from matplotlib.patches import Rectangle

    left, right, lower, upper = box
    axes.add_patch(
        Rectangle(
            (left, upper), right - left, lower - upper, fill=False, edgecolor="0.6", linewidth=0.4, zorder=3
        )
    )


def _draw_bar(figure: Figure, y: float, height: float) -> None:
    """Draw the one colour bar: from −m to m, m standing above each channel."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    box = ((MARGIN + LABELS) / PAGE, 1 - (y + 0.16) / height, 2.2 / PAGE, 0.09 / height)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), colormaps[DIVERGING]),
        cax=figure.add_axes(box),
        orientation="horizontal",
    )
    bar.set_ticks([-1, 0, 1], labels=["−max", "0", "+max of the channel"])
    bar.ax.tick_params(length=2, labelsize=SMALL, pad=1)
    bar.outline.set_linewidth(0.4)


def _notes(views: FeatureViews) -> list[str]:
    notes = [
        "± is the largest value of a channel: the end of the colour scale of its three rows and all its levels. "
        "$\\Delta$ below a picture is its own $\\|\\Phi(L_sf)-L_s\\Phi(f)\\|^2/\\|L_s\\Phi(f)\\|^2$; "
        + ("$\\Phi(0)$ is subtracted." if views.background == "empty" else "the background is kept.")
    ]
    if not all(view.compared.all() for view in views.features):
        notes.append(
            "Hatched: cells that $L_s$ cannot know (or values that are not finite); they are not compared."
        )
    if views.sampling:
        notes.append(
            "Crosses: places of the picture, and the same ones of $L_sf$; dots: the points that the deformable "
            "layer reads for them (those off the picture are not drawn)."
        )
    return notes
