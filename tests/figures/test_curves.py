"""The figure: axes, units, legend, zeros and nulls; and a failure leaves what stood there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from secli.errors import InputError
from secli.figures.curves import curves_caption, draw_curves, plot_curves
from secli.figures.panels import control_taps, tap_panels
from secli.records.notes import recognised
from secli.records.schema import EquivarianceRecord
from secli.tables.labels import distinct_labels, legend_labels
from tests.tables.fabricate import (
    FACTORS,
    curve_row,
    curves,
    data,
    lie_row,
    training,
    with_controls,
    with_parts,
    write_run,
)


def drawn(records: Sequence[EquivarianceRecord]) -> Any:
    """The figure, free of matplotlib's types, which know little of what a line holds."""
    return draw_curves(records)


def texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def wide(name: str = "cnn", **changes: Any) -> EquivarianceRecord:
    """Curves whose Δ spans three decades."""
    rows = [curve_row("conv1", f, math.log(f) ** 2 * (0.001 if f > 0.5 else 1), **changes) for f in FACTORS]
    return curves(name, rows=rows)


def test_a_figure_has_a_panel_per_tap_and_one_for_the_accuracy() -> None:
    figure = drawn([curves(taps=["conv1", "conv2", "conv3"])])
    assert [axes.get_title() for axes in figure.axes] == [
        "conv1",
        "conv2",
        "conv3",
        "accuracy (%)",
    ]
    assert "equivariance error" in figure.axes[0].get_ylabel()
    assert texts(figure).count("\u03a6") == 0  # what must be said stands in the caption
    assert curves_caption([curves()])[0] == (
        "Δ_s, squared, relative to ‖L_sΦ(f)‖² (no unit), mean over 100 images of mnist r0; Φ(0) subtracted."
    )
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["1/3", "0.5", "0.7", "1"]
    assert "scale factor" in figure.axes[3].get_xlabel()


def test_without_accuracy_there_is_no_panel_for_it() -> None:
    figure = drawn([curves(taps=["conv1"], accuracy=False)])
    assert [axes.get_title() for axes in figure.axes] == ["conv1"]


def test_the_axis_is_linear_unless_a_log_one_is_asked_for() -> None:
    axes = drawn([wide()]).axes[0]
    assert axes.get_yscale() == "linear"
    bottom, _ = axes.get_ylim()
    assert bottom < 0  # the point at s = 1, where Δ is 0, is seen whole
    log: Any = draw_curves([wide()], log=True).axes[0]
    assert log.get_yscale() == "log"
    bottom, top = log.get_ylim()
    positive = [row.mean for row in wide().rows if row.mean]
    assert 0 < bottom < min(positive)
    assert top > max(positive)


def test_s_of_1_is_marked() -> None:
    for axes in drawn([curves()]).axes:
        (mark,) = axes.collections[-1:]
        assert mark.get_segments()[0][:, 0].tolist() == [1, 1]


def test_each_tap_has_an_axis_of_its_own() -> None:
    rows = [curve_row(tap, f, size * (1 - f)) for tap, size in (("a", 0.01), ("b", 3)) for f in FACTORS]
    small, large = drawn([curves(rows=rows, accuracy=False)]).axes
    assert small.get_ylim()[1] < 0.02
    assert large.get_ylim()[1] > 1


def test_a_tap_without_a_value_has_no_panel() -> None:
    rows = [curve_row(tap, f, 0.1 if tap == "a" else None) for tap in ("a", "b") for f in FACTORS]
    figure = drawn([curves(rows=rows, accuracy=False)])
    assert [axes.get_title() for axes in figure.axes] == ["a"]
    assert "b at every s" in " ".join(curves_caption([curves(rows=rows)]))


def test_null_is_not_drawn_and_said_below() -> None:
    rows = [
        curve_row("conv1", f, None if f < 0.6 else 0.3, reason="fewer than 4 cells" if f < 0.6 else None)
        for f in FACTORS
    ]
    figure = drawn([curves(rows=rows)])
    heights = [float(y) for line in figure.axes[0].lines for y in np.asarray(line.get_ydata())]
    assert sum(math.isnan(y) for y in heights) >= 2
    assert not any(y == 0 for y in heights)
    assert "conv1 at s = 0.333–0.5 (fewer than 4 cells)" in curves_caption([curves(rows=rows)])[-1]


def test_points_off_the_lattice_are_hollow() -> None:
    rows = [curve_row("lift", f, 0.1, on_lattice=f in (0.5, 1.0)) for f in FACTORS]
    figure = drawn([curves(rows=rows)])
    faces = {
        str(line.get_markerfacecolor()): np.size(line.get_xdata())
        for line in figure.axes[0].lines
        if line.get_marker() != "None"
    }
    assert faces["white"] == 3
    assert "hollow: off the lattice of scales" in legend(figure)


def test_legend_names_networks_interval_and_floor() -> None:
    names = legend(drawn([curves("cnn"), curves("dss_v1")]))
    assert names == ["cnn", "dss_v1", "95 % interval of the mean"]  # floors of several would hide each other
    assert legend(drawn([curves()])) == ["cnn", "95 % interval of the mean", "floor of the resampling"]


def test_networks_have_colours_of_their_own() -> None:
    figure = drawn([curves(seed=seed) for seed in range(7)])
    colours = {line.get_color() for line in figure.axes[0].lines}
    assert len(colours) == 7


def test_controls_are_thin_and_grey_where_they_belong() -> None:
    figure = drawn([with_controls(curves(taps=["conv1", "conv2"]))])
    assert [name for name in legend(figure) if name.startswith("control")] == [
        "control: identity",
        "control: pointwise",
        "control: untrained",
        "control: plain cnn",
    ]
    # the CNN has a conv1 but no conv2; identity and pointwise stand beside both
    for axes, count in zip(figure.axes[:2], (4, 3), strict=True):
        grey = [line for line in axes.lines if line.get_color() == "0.5"]
        assert len(grey) == count
        assert len({str(line._dash_pattern) for line in grey}) == count
        assert np.asarray(grey[0].get_ydata()).tolist() == [0.0] * 5
    untrained = [line for line in figure.axes[0].lines if line.get_color() == "0.5"][2]
    assert untrained.get_ydata()[0] == pytest.approx(2 * 0.5 * math.log(3) ** 2)


def test_networks_that_share_a_control_have_one_line_for_it() -> None:
    figure = drawn([with_controls(curves(level=0.5)), with_controls(curves(level=0.3))])
    colours = [str(line.get_color()) for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert colours.count("0.5") == 3  # identity, pointwise and the CNN are the same for both
    assert len(colours) == 5  # but each has an untrained twin of its own


def test_single_levels_are_thin_tints_and_not_mixed_with_the_whole() -> None:
    figure = drawn([with_parts(curves(taps=["lift"], accuracy=False))])
    axes = figure.axes[0]
    thin = [line for line in axes.lines if line.get_linewidth() == 0.8]
    assert [line.get_ydata()[0] for line in thin] == pytest.approx([0.5 * math.log(3) ** 2, math.log(3) ** 2])
    assert len({line.get_color() for line in thin}) == 2
    whole = next(line for line in axes.lines if line.get_color() == "#0072B2")
    assert len(whole.get_xdata()) == len(FACTORS)
    assert legend(figure)[1:4] == ["level 0", "level 1", "level 2"]
    many = legend(drawn([with_parts(curves(taps=["lift"]), levels=9)]))
    assert "level 0 (pale) to level 8 (dark)" in many


def test_a_value_between_two_nulls_is_seen() -> None:
    rows = [curve_row("a", f, 0.1) for f in FACTORS]
    rows += [curve_row("a", f, 0.2 if f == 0.8 else None, level=0) for f in FACTORS]
    (thin,) = [x for x in drawn([curves(rows=rows)]).axes[0].lines if x.get_linewidth() == 0.8]
    assert thin.get_marker() == "."
    assert thin.get_markevery() == [2]


def test_warned_points_are_ringed_and_the_caption_says_why() -> None:
    rows = [curve_row("a", f, 0.1, warnings=("framed: edges",) if f < 0.6 else ()) for f in FACTORS]
    figure = drawn([curves(rows=rows)])
    (ring,) = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert list(ring.get_xdata()) == [1 / 3, 0.5]
    assert "ringed: carries a warning" in legend(figure)
    assert "framed: edges: a at s = 0.333–0.5." in curves_caption([curves(rows=rows)])
    everywhere = [row.model_copy(update={"warnings": (recognised("framed: edges"),)}) for row in rows]
    figure = drawn([curves(rows=everywhere)])
    assert "ringed: carries a warning" not in legend(figure)
    assert "framed: edges: a at every s." in curves_caption([curves(rows=everywhere)])


def test_lie_derivatives_have_a_panel() -> None:
    lie = [lie_row("conv1", 0.2), lie_row("conv2", None)]
    records = [curves(seed=seed).model_copy(update={"lie": lie}) for seed in (0, 1)]
    figure = drawn(records)
    assert [axes.get_title() for axes in figure.axes][2:] == ["Lie derivative, $s=1$", "accuracy (%)"]
    panel = figure.axes[2]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["conv1", "conv2"]
    points = [line for line in panel.lines if line.get_marker() != "None"]
    assert [line.get_ydata()[0] for line in points] == [0.2, 0.2]
    assert points[0].get_xdata()[0] < 0 < points[1].get_xdata()[0]  # side by side
    assert "Lie derivative of conv2" in curves_caption(records)[-1]
    assert len(drawn([curves()]).axes) == 3


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    rows = [curve_row("a$b$^", f, 0.1 if f > 0.5 else None, reason="$x^$") for f in FACTORS]
    plot_curves([curves(rows=rows, dataset="d$^$")], tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_files_are_written_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"curves{suffix}"
    plot_curves([wide(), curves("dcn")], path, title="A title")
    head = path.read_bytes()[:8]
    assert {".png": head[:4] == b"\x89PNG", ".svg": head[:5] == b"<?xml", ".pdf": head[:4] == b"%PDF"}[
        suffix.lower()
    ]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.width > 1000


def test_the_same_records_give_the_same_file(tmp_path: Path) -> None:
    for suffix in (".svg", ".png"):
        first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        plot_curves([curves()], first)
        plot_curves([curves()], second)
        assert first.read_bytes() == second.read_bytes()


def test_the_users_settings_of_matplotlib_stay(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_curves([curves()], tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("records", "name", "message"),
    [
        ([curves()], "curves.jpg", "a figure is written as .png, .svg, .pdf"),
        ([curves()], "curves", "choose one of these suffixes"),
        ([], "curves.png", "no curves to draw"),
        ([curves(), curves(metric="relative")], "curves.png", "different metrics"),
        ([curves(rows=[curve_row("conv1", 0.5, None)], accuracy=False)], "curves.png", "every value is null"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, records: Sequence[EquivarianceRecord], name: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(InputError, match=message):
        plot_curves(records, path)
    assert path.read_text() == "old"


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match=r"file/curves\.png"):
        plot_curves([curves()], tmp_path / "file" / "curves.png")
    with pytest.raises(InputError, match="is a directory"):
        plot_curves([curves()], tmp_path / "folder.png")


def test_common_names_share_panels_in_order_of_depth() -> None:
    panels = tap_panels(
        [curves(taps=["conv1", "conv2", "logits"]), curves("dcn", taps=["conv1", "conv2", "conv3", "logits"])]
    )
    assert [panel.title for panel in panels] == ["conv1", "conv2", "conv3", "logits"]
    assert panels[2].taps == (None, "conv3")


def test_each_network_keeps_the_order_of_its_taps() -> None:
    panels = tap_panels(
        [curves(taps=["block1", "block2"]), curves("dss_v1", taps=["lift", "conv1", "block1", "block2"])]
    )
    assert [panel.title for panel in panels] == ["lift", "conv1", "block1", "block2"]
    against = tap_panels([curves(taps=["a", "b"]), curves("dcn", taps=["b", "a"])])
    assert sorted(panel.title for panel in against) == ["a", "b"]


def test_controls_stand_beside_the_taps_they_belong_to() -> None:
    def taps(names: Sequence[str]) -> EquivarianceRecord:
        return curves(taps=names)

    fields = {"field": "invariant"}
    network = curves(
        rows=[curve_row("a", 0.5, 0.1), curve_row("b", 0.5, 0.1), curve_row("logits", 0.5, 0.1, **fields)]
    )
    assert control_taps(network, taps(["b", "x"])) == {"b": "b"}
    assert control_taps(network, taps(["identity"])) == {"a": "identity", "b": "identity"}
    assert control_taps(network, taps(["x", "y", "z"])) == {"a": "x", "b": "z"}
    still = curves(rows=[curve_row("scores", 0.5, 0.1, **fields)])
    assert control_taps(network, still) == {}


def test_reasons_that_differ_in_numbers_are_said_once() -> None:
    rows = [
        curve_row(tap, f, None, reason=f"the picture covers {7 * f:.1f} cells of this tap, fewer than 4")
        for tap in ("pool", "block")
        for f in (1 / 3, 0.5)
    ]
    rows += [curve_row(tap, f, 0.1) for tap in ("pool", "block") for f in (0.8, 1.0)]
    told = curves_caption([curves(rows=rows)])[-1]
    assert "pool, block at s = 0.333–0.5 (the picture covers 2.3–3.5 cells of this tap, fewer than 4)" in told


def test_a_long_note_keeps_its_middle() -> None:
    reason = (
        "the picture covers fewer cells of this tap than a feature map needs to have a scale that can be told"
    )
    records = [
        curves(
            name, rows=[curve_row(f"{name}{f}", f, None if f < 0.6 else 0.3, reason=reason) for f in FACTORS]
        )
        for name in ("cnn", "dcn", "dss_v1", "so2_cnn")
    ]
    told = " ".join(curves_caption(records))
    assert told.count(reason) == 4
    assert "…" not in told


def test_other_names_meet_by_depth() -> None:
    panels = tap_panels([curves(taps=["a", "b", "c"]), curves("dcn", taps=["x", "y"])])
    assert [panel.title for panel in panels] == [
        "depth 1 of 3: a | x",
        "depth 2 of 3: b",
        "depth 3 of 3: c | y",
    ]
    assert panels[2].taps == ("c", "y")


def test_labels_say_only_what_tells_records_apart() -> None:
    assert distinct_labels([curves("cnn"), curves("dcn")]) == ["cnn", "dcn"]
    assert distinct_labels([curves(seed=0), curves(seed=1)]) == ["cnn seed 0", "cnn seed 1"]
    assert distinct_labels([curves(), curves(trained=False)]) == ["cnn", "cnn (untrained, seed 0)"]
    wide_option, narrow = {"base": 2, "n": 1}, {"base": 1.5, "n": 1}
    assert distinct_labels([curves(options=wide_option), curves(options=narrow)]) == [
        "cnn base=2",
        "cnn base=1.5",
    ]
    assert distinct_labels([curves(trained_on=data("a")), curves(trained_on=data("b"))]) == [
        "cnn trained on a",
        "cnn trained on b",
    ]
    assert distinct_labels([curves(), curves()]) == ["cnn #1", "cnn #2"]


def test_labels_tell_what_a_training_differs_in_and_no_name_of_a_run(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("digits-r0-s0-aaaa", "digits-r0-s0-bbbb")]
    for path, augment in zip(paths, ("none", "scale"), strict=True):
        write_run(path, training("cnn", 0.1, augment=augment))
    pair = [curves(run=str(path)) for path in paths]
    assert legend_labels(pair) == ["cnn augment=none", "cnn augment=scale"]
    assert legend_labels(pair[:1]) == ["cnn"]
    gone = [curves(run=str(tmp_path / name)) for name in ("x-aaaa", "x-bbbb")]
    assert legend_labels(gone) == ["cnn #1", "cnn #2"]


def test_labels_may_be_chosen(tmp_path: Path) -> None:
    run = str(tmp_path / "r")
    pair = [curves("cnn"), curves("dcn", run=run)]
    assert legend_labels(pair, {"cnn": "ours"}) == ["ours", "dcn"]
    assert legend_labels(pair, {run: "theirs", "dcn": "not this"}) == ["cnn", "theirs"]
    assert legend_labels(pair, {"cnn": "same", "dcn": "same"}) == ["same #1", "same #2"]
    names = legend(draw_curves(pair, labels={"cnn": "our $net$"}))
    assert names[0] == r"our \$net\$"
    assert curves_caption(pair, {"cnn": "ours"})


def test_the_floor_is_filled_down_to_the_foot_of_a_log_axis() -> None:
    figure: Any = draw_curves([curves(taps=["conv1"], accuracy=False)], log=True)
    axes = figure.axes[0]
    (floor,) = [
        one for one in axes.collections if one.get_zorder() == 0 and one.get_paths()[0].vertices.shape[0] > 2
    ]
    low = floor.get_paths()[0].vertices[:, 1].min()
    assert 0 < low < axes.get_ylim()[0]


def test_lie_derivatives_that_are_missing_have_their_owner_and_reason() -> None:
    lie = [lie_row("conv2", None)]
    pair = [curves("cnn").model_copy(update={"lie": lie}), curves("dcn")]
    assert "cnn: Lie derivative of conv2 (the features vanish)" in curves_caption(pair)[-1]
