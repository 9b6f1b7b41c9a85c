"""What a reader of one number must know: warnings, row by row."""

from __future__ import annotations

from collections.abc import Mapping

from secli.records import CurveRow

FEW_CELLS = 8
"""Below so many cells across, a feature map hardly has a scale."""


def warnings(
    row: CurveRow, *, cells: float | None, on_black: bool, pointwise: Mapping[float, float]
) -> tuple[str, ...]:
    """Return the warnings of one row; none where nothing was measured or nothing changes.

    Parameters
    ----------
    row : CurveRow
        The reading.
    cells : float, optional
        Cells of the tap that the picture covers, across.
    on_black : bool
        Whether the pictures fade to black at their edges.
    pointwise : mapping
        The pointwise control's reading by factor: what sampling a nonlinearity costs by itself.
    """
    if row.mean is None or row.factor == 1:
        return ()
    found = []
    if row.on_lattice is False:
        found.append("off the lattice of scales: levels are interpolated")
    if not on_black and row.border == 0 and cells is not None:
        found.append("framed: the edge of the rescaled picture is compared too (see --border)")
    if cells is not None and cells < FEW_CELLS:
        found.append(f"tiny plane: the picture covers {cells:.2g} cells")
    control = pointwise.get(row.factor)
    if control is not None and 0 < row.mean < control and cells is not None:
        found.append(
            f"below the pointwise control ({control:.2g}): what sampling a nonlinearity costs by itself"
        )
    return tuple(found)
