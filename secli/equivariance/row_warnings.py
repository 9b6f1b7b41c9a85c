"""Warnings of one row of a measurement."""

from __future__ import annotations

from collections.abc import Mapping

from secli.records.notes import Note
from secli.records.schema import CurveRow

FEW_CELLS = 8
"""Below so many cells across, a feature map hardly has a scale."""


def warnings(
    row: CurveRow, *, cells: float | None, dark: bool, pointwise: Mapping[float, float]
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
    """
    if row.mean is None or row.factor == 1:
        return ()
    found = []
    if row.on_lattice is False:
        found.append(Note.of("off-lattice"))
    if not dark and row.border == 0 and cells is not None:
        found.append(Note.of("framed" if row.factor < 1 else "cut"))
    if cells is not None and cells < FEW_CELLS:
        found.append(Note.of("tiny-plane", cells=cells))
    control = pointwise.get(row.factor)
    if control is not None and 0 < row.mean < control and cells is not None:
        found.append(Note.of("below-control", control=control))
    return tuple(found)
