"""The heat map: a cell per number, hatched where there is none, one colour scale for all networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from secli.errors import InputError
from secli.figures.heatmap import draw_heatmap, heatmap_caption, number_text, plot_heatmap
from secli.records.schema import EquivarianceRecord
from tests.tables.fabricate import FACTORS, curve_row, curves, with_controls, with_parts


def texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def drawn(records: list[EquivarianceRecord]) -> Any:
    """The figure, free of matplotlib's types, which know little of what a line holds."""
    return draw_heatmap(records)


def cells(axes: Any) -> list[Any]:
    return list(axes.patches)


def test_one_cell_per_tap_and_factor_with_its_number() -> None:
    figure = drawn([curves(taps=["conv1", "conv2"])])
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["conv1", "conv2"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.333", "0.5", "0.8", "1", "1.25"]
    assert len(cells(axes)) == 10
    assert [text.get_text() for text in axes.texts][:5] == [".603", ".240", ".025", "0", ".025"]
    bottom, top = axes.get_ylim()
    assert bottom > top  # the input stands at the top


def test_larger_errors_have_lighter_colours_of_one_scale() -> None:
    small, large = curves(level=0.1), curves("dcn", level=1.0)
    figure = drawn([small, large])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["cnn", "dcn"]
    colours = [sum(cells(axes)[0].get_facecolor()[:3]) for axes in figure.axes[:2]]
    assert colours[0] < colours[1]
    again = drawn([curves(level=0.1), curves("dcn", level=0.1)])
    assert cells(again.axes[0])[0].get_facecolor() == cells(again.axes[1])[0].get_facecolor()


def test_the_colour_scale_is_logarithmic_when_the_range_is_wide() -> None:
    narrow = [curve_row("a", f, 0.2 + f / 10) for f in FACTORS]
    wide = [curve_row("a", f, 10.0**-i) for i, f in enumerate(FACTORS)]
    for rows, logarithmic in ((narrow, False), (wide, True)):
        bar = drawn([curves(rows=rows)]).axes[-1]
        assert (bar.get_yscale() == "log") is logarithmic
        assert bar.get_title(loc="left") == r"$\Delta_s$"
    assert drawn([curves(rows=narrow, metric="absolute")]).axes[-1].get_title(loc="left") == "error"


def test_null_cells_are_hatched_with_a_letter_that_the_caption_explains() -> None:
    rows = [
        curve_row("a", 0.5, None, reason="the picture covers 3.5 cells of this tap, fewer than 4"),
        curve_row("a", 0.4, None, reason="the picture covers 2.8 cells of this tap, fewer than 4"),
        curve_row("a", 0.3, None, reason="dead tap"),
        curve_row("a", 1.0, 0.1),
    ]
    figure = drawn([curves(rows=rows)])
    axes = figure.axes[0]
    hatched = [patch for patch in cells(axes) if patch.get_hatch()]
    assert len(hatched) == 3
    assert sorted(text.get_text() for text in axes.texts) == [".100", "a", "a", "b"]
    told = heatmap_caption([curves(rows=rows)])
    assert "a: the picture covers 2.8–3.5 cells of this tap, fewer than 4." in told
    assert "b: dead tap." in told


def test_signs_mark_the_lattice_and_warnings() -> None:
    rows = [
        curve_row("a", 0.5, 0.1, on_lattice=True),
        curve_row("a", 0.7, 0.2, on_lattice=False),
        curve_row("a", 0.8, 0.3, warnings=("framed",)),
    ]
    figure = drawn([curves(rows=rows)])
    axes = figure.axes[0]
    assert len(axes.lines) == 1
    assert axes.lines[0].get_xdata()[0] == pytest.approx(1.36)
    assert [text.get_text() for text in axes.texts] == [".100", ".200", ".300*"]
    told = "\n".join(heatmap_caption([curves(rows=rows)]))
    assert "framed: a at s = 0.8." in told
    assert "Small ring: s lies off the lattice" in told


def test_titles_of_several_lines_have_their_room() -> None:
    """Long labels stand above their map and cover no other."""
    long = {
        name: f"{name} " + "trained with this and with that and with something else too"
        for name in ("cnn", "dcn")
    }
    rows = [curve_row("a", f, 0.1) for f in (0.5, 0.8)]
    figure: Any = draw_heatmap([curves(name, rows=rows) for name in long], labels=long)
    figure.canvas.draw()
    maps = figure.axes[:2]
    boxes = [axes.title.get_window_extent() for axes in maps]
    assert all("\n" in axes.get_title() for axes in maps)
    assert not boxes[0].overlaps(boxes[1])
    for box in boxes:
        assert box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(axes.get_window_extent()) for axes in maps)


def test_numbers_leave_where_they_do_not_fit() -> None:
    many = [curve_row("conv1", 0.3 + i / 50, 0.1) for i in range(40)]
    axes = drawn([curves(rows=many)]).axes[0]
    assert not any(text.get_text() for text in axes.texts)
    assert axes.get_xticklabels()[0].get_rotation() == 90


def test_networks_stand_abreast_or_below_each_other() -> None:
    def places(factors: int) -> list[Any]:
        rows = [curve_row("a", 0.3 + i / 20, 0.1) for i in range(factors)]
        axes = drawn([curves(rows=rows), curves("dcn", rows=rows)]).axes
        return [one.get_position() for one in axes[:2]]

    left, right = places(4)
    assert left.y0 == right.y0
    assert left.x1 < right.x0
    above, below = places(12)
    assert above.y0 > below.y1


def test_parts_and_controls_are_left_out() -> None:
    figure = drawn([with_controls(with_parts(curves()))])
    assert len(figure.axes) == 2  # one map and the bar
    assert len(cells(figure.axes[0])) == 2 * len(FACTORS)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.00003, "3e-5"), (0.0012, ".0012"), (0.012, ".012"), (0.1234, ".123"), (0.9996, "1"),
        (1.234, "1.23"), (12.34, "12.3"), (1234.0, "1e3"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert number_text(value) == text
    assert len(text) <= 5


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_files_are_written_whole_and_alike(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path in (first, second):
        plot_heatmap([curves(), curves("dcn")], path, title="A title")
    assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
    if suffix == ".png":
        with Image.open(first) as image:
            pixels = np.asarray(image.convert("RGB"))
        # nothing is cut off at the edges
        assert (pixels[[0, -1]] == 255).all()
        assert (pixels[:, [0, -1]] == 255).all()


@pytest.mark.parametrize(
    ("records", "name", "message"),
    [
        ([curves()], "map.jpg", "a figure is written as .png, .svg, .pdf"),
        ([], "map.png", "no curves to draw"),
        ([curves(), curves(metric="relative")], "map.png", "different metrics"),
        ([curves(rows=[curve_row("a", 0.5, None)])], "map.png", "every value is null"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, records: list[EquivarianceRecord], name: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(InputError, match=message):
        plot_heatmap(records, path)
    assert path.read_text() == "old"
