"""The figure of features: rows of one colour scale, hatched where nothing is known, within the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from secli.errors import InputError
from secli.records.feature_maps import FeatureView, FeatureViews, SamplingView
from secli.tables.views import ROOM, block_rows, draw_views, groups_of, plot_views, width_of


def view(
    tap: str, channel: int = 0, level: int | None = None, known: bool = True, size: int = 6
) -> FeatureView:
    expected = np.arange(size * size, dtype=np.float64).reshape(size, size) - 4
    actual = expected + 1.0
    return FeatureView(tap, channel, level, expected, actual, actual - expected, np.full((size, size), known))


def figure_of(
    *views: FeatureView, sampling: tuple[SamplingView, ...] = (), channels: int = 1
) -> FeatureViews:
    image = np.linspace(0, 1, channels * 64).reshape(channels, 8, 8)
    return FeatureViews(0.5, image, image / 2, "empty", views, sampling)


def texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_each_view_is_three_pictures_on_one_symmetric_scale() -> None:
    figure: Any = draw_views(figure_of(view("conv1"), view("conv1", 3)))
    pictures = figure.axes[0].images
    assert len(pictures) == 2 + 2 * 3
    expected, actual, difference = pictures[2:5]
    assert {picture.get_clim() for picture in pictures[2:]} == {(-32.0, 32.0)}  # the largest of the three
    np.testing.assert_array_equal(
        np.subtract(actual.get_array(), expected.get_array()), difference.get_array()
    )
    assert "ch\u00a03\n±32" in texts(figure)
    # 36 ones over the sum of squares of −4 … 31
    assert f"$\\Delta$ {36 / sum(i * i for i in range(-4, 32)):.4f}".replace("0.", ".") in texts(figure)


def test_what_is_not_known_is_hatched_and_said() -> None:
    figure: Any = draw_views(figure_of(view("lift", level=0), view("lift", level=1, known=False)))
    axes = figure.axes[0]
    assert len([patch for patch in axes.patches if patch.get_hatch()]) == 3
    assert len(axes.images) == 2 + 3
    assert "Hatched: cells that $L_s$ cannot know" in texts(figure).replace("\n", " ")
    assert "level 1" in texts(figure)
    assert "Hatched" not in texts(draw_views(figure_of(view("conv1"))))


def test_values_that_are_not_finite_are_hatched_too() -> None:
    broken = view("conv1")
    broken.difference[0, 0] = np.nan
    assert broken.error is not None
    figure: Any = draw_views(figure_of(broken))
    assert len([patch for patch in figure.axes[0].patches if patch.get_hatch()]) == 3


def test_an_error_of_nothing_is_none() -> None:
    zero = np.zeros((4, 4))
    nothing = FeatureView("a", 0, None, zero, zero, zero, np.ones((4, 4), dtype=bool))
    assert nothing.error is None
    assert view("a", known=False).error is None
    draw_views(figure_of(nothing))


def test_sampling_points_stand_at_their_places() -> None:
    positions = np.array([[3.0, 2.0]])
    points = np.array([[[2.0, 2.0], [4.0, 2.0], [-3.0, 2.0]]])
    figure: Any = draw_views(
        figure_of(view("a"), sampling=(SamplingView("b.conv", positions, positions, points, points),))
    )
    axes = figure.axes[0]
    assert len(axes.images) == 2 + 2 + 3
    dots = next(line for line in axes.lines if line.get_marker() == ".")
    cross = next(line for line in axes.lines if line.get_marker() == "+")
    left, right, lower, upper = axes.images[2].get_extent()
    cell = (right - left) / 8
    assert np.asarray(cross.get_xdata())[0] == pytest.approx(left + 3.5 * cell)
    assert np.asarray(cross.get_ydata())[0] == pytest.approx(upper + 2.5 * cell)
    assert lower > upper
    # the point off the picture is left out
    assert np.asarray(dots.get_xdata()) == pytest.approx([left + 2.5 * cell, left + 4.5 * cell])
    assert "b.conv, $L_sf$" in texts(figure)


def test_rows_fill_the_page_and_taps_stay_together() -> None:
    groups = groups_of([view(tap, channel) for tap in "abcd" for channel in range(4)])
    rows = list(block_rows(groups))
    assert [[group.tap for group in row] for row in rows] == [list("aaaabbbbcccc"), list("dddd")]
    levels = groups_of([view("s", channel, level) for channel in range(5) for level in range(4)])
    assert [len(row) for row in block_rows(levels)] == [3, 2]
    long = groups_of([view("s", 0, level) for level in range(30)])
    assert sum(len(group.views) for group in long) == 30
    for row in [*rows, *block_rows(levels), *block_rows(long)]:
        assert width_of(row) <= ROOM


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_files_are_written_whole_and_alike(tmp_path: Path, suffix: str, channels: int) -> None:
    views = figure_of(*(view(tap, channel) for tap in "abc" for channel in range(4)), channels=channels)
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path in (first, second):
        plot_views(views, path)
    assert first.read_bytes() == second.read_bytes()
    if suffix == ".png":
        with Image.open(first) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert (pixels[[0, -1]] == 255).all()
        assert (pixels[:, [0, -1]] == 255).all()


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("old")
    with pytest.raises(InputError, match=r"a figure is written as \.png"):
        plot_views(figure_of(view("a")), path)
    assert path.read_text() == "old"
    with pytest.raises(InputError, match="no tap has a plane"):
        plot_views(figure_of(), tmp_path / "a.png")


def test_drawing_loads_no_torch() -> None:
    code = "import sys, secli.tables.views, secli.tables.heatmap, secli.tables.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
