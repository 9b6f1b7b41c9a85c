"""A warning beside Δ: at which taps, of which networks, it is an error of the smaller part of the cells."""

from __future__ import annotations

from collections.abc import Sequence

from secli.tables.curve_rows import whole
from secli.tables.groups import Row
from secli.tables.readings import same_factor

HALF = 0.5
NAMED = 6


def compared_notes(rows: Sequence[Row], factors: Sequence[float]) -> list[str]:
    """Say where less than half of a tap's cells entered the Δ that a table shows.

    Parameters
    ----------
    rows : sequence of Row
        The rows, each read at its tap.
    factors : sequence of float
        The scale factors that are shown or averaged over.

    Returns
    -------
    list of str
        One note, with the smallest share of each such row and its factor; none where there is no such row.
    """
    said = []
    for row in rows:
        shares = [
            (found.compared, found.factor)
            for record in row.curves
            for found in whole(record.rows)
            if found.tap == row.tap and found.mean is not None and found.compared is not None
            if any(same_factor(found.factor, factor) for factor in factors)
        ]
        if shares and min(shares)[0] < HALF:
            share, factor = min(shares)
            said.append(f"{row.named}, {row.tap}: {100 * share:.0f} % at s = {factor:.3g}")
    if not said:
        return []
    more = f"; and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return [f"Δ compares less than half of the tap's cells: {'; '.join(said[:NAMED])}{more}."]
