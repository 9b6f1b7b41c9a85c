"""What all figures share: the file that they go to, their title, and notes below that cover nothing."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.errors import InputError, printable, shortened
from secli.figures.style import STYLE
from secli.metrics import METRICS
from secli.records.schema import EquivarianceRecord
from secli.storage.writing import atomic_path, write_text
from secli.tables.dataset_names import with_realisations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
TITLE_SIZE = 9
TITLE_CHARACTERS = 14  # per inch of width
NOTE_SIZE, NOTE_LINE = 6.5, 0.115  # points; inches per line
NOTE_CHARACTERS = 20  # per inch of width
LONGEST_WORDS = 300  # characters of a name or a reason that are drawn

_FORMULA = re.compile(r"(?<!\\)\$[^$]+(?<!\\)\$")


def check_plot_path(path: Path) -> None:
    """Refuse a figure path whose suffix is not one of PNG, SVG and PDF.

    Raises
    ------
    InputError
        Naming the path and the suffixes that can be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: a figure is written as {', '.join(SUFFIXES)}; choose one of these suffixes"
        )
    if path.is_dir():
        raise InputError(f"{path}: is a directory; name a file for the figure")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all; the same figure gives the same bytes.

    Raises
    ------
    OSError
        When the figure cannot be written.
    """
    import matplotlib

    suffix = path.suffix.lower()
    # the date would make two figures of the same records differ
    metadata: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, format=suffix[1:], dpi=300, metadata=metadata)


def check_one_metric(records: Sequence[EquivarianceRecord]) -> None:
    """Refuse no records at all, and records of different metrics.

    Raises
    ------
    InputError
        In one line.
    """
    if not records:
        raise InputError("no curves to draw: give at least one result of 'secli equivariance'")
    metrics = sorted({record.metric for record in records})
    if len(metrics) > 1:
        raise InputError(
            f"curves of different metrics ({', '.join(metrics)}) cannot share an axis; draw them apart"
        )


def plain(text: str) -> str:
    """Return text that is drawn as it reads, whatever stands in a name: no dollar sign begins a formula."""
    return re.sub(r"(?<!\\)\$", r"\\$", printable(shortened(text, LONGEST_WORDS)))


def title_lines(title: str | None, width: float) -> list[str]:
    """Return the lines of a title in a figure of a width in inches; a figure without one has none."""
    return textwrap.wrap(plain(title), int(width * TITLE_CHARACTERS)) if title else []


def caption_head(records: Sequence[EquivarianceRecord]) -> str:
    """Return the first sentence of a caption: the metric, what the means are taken over, and the pictures."""
    images = sorted({row.n for record in records for row in record.rows if row.mean is not None})
    count = "" if not images else f"{images[0]}" if len(images) == 1 else f"{images[0]} to {images[-1]}"
    on = with_realisations(record.data for record in records)
    kept = {record.background for record in records}
    metric = METRICS[records[0].metric]
    less = {"empty": "; Φ(0) subtracted", "none": "; background kept"}
    end = less[kept.pop()] if len(kept) == 1 else ""
    return f"Δ_s, {metric.words} ({metric.unit}), mean over {count} images of {on}{end}."


def caption_file(figure: Path) -> Path:
    """Return the text file of a figure's caption: ``fig.png.txt``, so that two figures of one name have two."""
    return figure.with_name(f"{figure.name}.txt")


def write_caption(figure: Path, sentences: Sequence[str]) -> Path:
    """Write the caption of a figure into a text file beside it, a sentence a line, and return its path."""
    file = caption_file(figure)
    write_text(file, "".join(f"{sentence}\n" for sentence in sentences))
    return file


def wrapped(sentences: Sequence[str], width: float) -> list[str]:
    """Return notes wrapped to a figure's width in inches, each sentence on lines of its own; formulas stay whole."""
    room = int(width * NOTE_CHARACTERS)
    lines: list[str] = []
    for sentence in sentences:
        # each formula is wrapped as one word about as long as it is drawn
        words = _FORMULA.sub(lambda found: "\0" * _drawn_length(found[0]), sentence)
        texts = textwrap.wrap(words, room)
        for formula in _FORMULA.findall(sentence):
            index = next(i for i, text in enumerate(texts) if "\0" in text)
            texts[index] = texts[index].replace("\0" * _drawn_length(formula), formula, 1)
        lines += texts
    return lines


def _drawn_length(formula: str) -> int:
    return max(1, len(re.sub(r"[_^{}]", "", re.sub(r"\\[A-Za-z]+|\\.", "x", formula.strip("$")))))


def notes_height(lines: Sequence[str]) -> float:
    """Return the height of the notes at the foot of a figure, in inches."""
    return 0.08 + NOTE_LINE * len(lines)


def write_notes(figure: Figure, lines: Sequence[str]) -> None:
    """Set the notes at the foot of a figure, outside its layout."""
    if lines:
        width, height = figure.get_size_inches()
        text = figure.text(0.1 / width, 0.06 / height, "\n".join(lines), fontsize=NOTE_SIZE, color="0.25")
        text.set_in_layout(False)
