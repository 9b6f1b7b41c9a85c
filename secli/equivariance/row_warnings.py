"""Warnings of one row of a measurement."""

from __future__ import annotations

from collections.abc import Mapping

from secli.records.notes import Note
from secli.records.schema import CurveRow

FEW_CELLS = 8
"""Below so many cells across, a feature map hardly has a scale."""


def warnings(
    row: CurveRow,
    *,
    cells: float | None,
    dark: bool,
    pointwise: Mapping[float, float],
    radius: float | None = None,
    surround: bool = False,
    whole: bool = False,
) -> tuple[Note, ...]:
    """Return the warnings of one row; none where nothing was measured or nothing changes.

    Parameters
    ----------
    cells : float, optional
        Cells of the tap that the picture covers, across.
    dark : bool
        Whether the edge of the canvas cuts nothing bright: for s < 1 the edge of the pictures, which becomes a frame
        inside the canvas; for s > 1 the edge of the magnified pictures.
    pointwise : mapping
        The pointwise control's error by factor: the cost of sampling a nonlinearity.
    radius : float, optional
        The tap's receptive-field radius in pixels, where it is known: a border must not be narrower.
    surround : bool
        Whether pictures are windows of photographs, so that no frame appears.
    whole : bool
        Whether the tap sees all of a window.
    """
    if row.mean is None or row.factor == 1:
        return ()
    found = []
    if row.on_lattice is False:
        found.append(Note.of("off-lattice"))
    if surround:
        found += _window(row, radius, whole)
    elif not dark:
        found += _frame(row, cells, radius)
    if cells is not None and cells < FEW_CELLS:
        found.append(Note.of("tiny-plane", cells=cells))
    control = pointwise.get(row.factor)
    if control is not None and 0 < row.mean < control and cells is not None:
        found.append(Note.of("below-control", control=control))
    return tuple(found)


def _frame(row: CurveRow, cells: float | None, radius: float | None) -> list[Note]:
    """Return the warning of a value that the frame around pictures, or what they lose, has entered."""
    shrunk = row.factor < 1
    if cells is None:
        return [Note.of("framed-output" if shrunk else "cut-output")]
    if row.border == 0:
        return [Note.of("framed" if shrunk else "cut")]
    if radius is not None and row.border < radius:
        return [Note.of("narrow-border", border=row.border, radius=radius)]
    return []


def _window(row: CurveRow, radius: float | None, whole: bool) -> list[Note]:
    """Return the warning of a value that what enters or leaves the window, or its edge, has entered."""
    if whole:
        return [Note.of("global")]
    if radius is not None and row.border < radius - 1e-9:
        return [Note.of("narrow-border", border=row.border, radius=radius)]
    return []
