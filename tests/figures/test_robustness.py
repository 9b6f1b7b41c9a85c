"""The figure accuracy × robustness: axes, points, legend, caption, and what cannot be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from secli.errors import InputError
from secli.figures.robustness import draw_robustness, plot_robustness, robustness_caption
from secli.tables.robustness import RobustnessRow

ROWS = [
    RobustnessRow("a", accuracy=0.9, accuracy_area=0.7, agreement_area=0.8, cosine=0.3),
    RobustnessRow("b", accuracy=0.8, accuracy_area=0.75, agreement_area=0.6, cosine=0.2),
    RobustnessRow("drawn", agreement_area=0.5, cosine=0.1),
]


def points(figure: Any) -> list[tuple[float, float]]:
    marked = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in marked]


def test_a_point_per_network_that_has_an_accuracy() -> None:
    figure: Any = draw_robustness(ROWS, {"b": "the other"})
    assert points(figure) == [(90, pytest.approx(70)), (80, 75)]
    assert figure.axes[0].get_xlabel() == "accuracy at $s=1$ (%)"
    assert figure.axes[0].get_ylabel() == "area under accuracy (%)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "the other"]


def test_without_any_accuracy_agreement_is_drawn_over_the_cosine() -> None:
    figure: Any = draw_robustness([ROWS[2], RobustnessRow("gone")])
    assert points(figure) == [(0.1, 50)]
    assert figure.axes[0].get_xlabel() == "mean cosine of the embedding"
    assert figure.axes[0].get_ylabel() == "area under agreement (%)"


def test_no_sentence_stands_in_the_image_and_the_caption_says_them() -> None:
    figure: Any = draw_robustness(ROWS)
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    assert not any(text.endswith(".") for text in texts)
    assert robustness_caption(ROWS, ["GFLOPs: …."]) == [
        "Area under accuracy over accuracy at s = 1; on the line none is lost at any factor.",
        "Not drawn: drawn.",
        "GFLOPs: ….",
    ]
    assert robustness_caption(ROWS[2:], [])[0].startswith("Area under agreement over the mean cosine")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_it_is_written_the_same_twice(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{name}.{suffix}" for name in ("one", "two")]
    for file in files:
        plot_robustness(ROWS, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    if suffix == "png":
        with Image.open(files[0]) as image:
            assert min(image.size) > 500


def test_nothing_to_draw_and_a_wrong_suffix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no network has numbers to draw"):
        draw_robustness([RobustnessRow("gone", reason="why")])
    with pytest.raises(InputError, match="choose one of these suffixes"):
        plot_robustness(ROWS, tmp_path / "figure.gif")


def test_a_name_is_drawn_as_it_reads() -> None:
    figure: Any = draw_robustness([RobustnessRow("$a_b$", accuracy=0.5, accuracy_area=0.5)])
    assert figure.legends[0].get_texts()[0].get_text() == r"\$a_b\$"


def test_no_two_of_many_networks_look_alike() -> None:
    rows = [RobustnessRow(f"n{k}", accuracy=k / 30, accuracy_area=k / 30) for k in range(30)]
    figure: Any = draw_robustness(rows)
    marked = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert len({(line.get_color(), line.get_marker()) for line in marked}) == 30
