"""The tables of ``docs/untrained.md``: Δ of untrained networks, each beside the plain one of its body."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

BEGIN = "<!-- written by `secli untrained`: edit the text around it, not this -->"
END = "<!-- end of what `secli untrained` wrote -->"

Row = Mapping[str, Any]


def plain_of(model: str) -> str:
    """Return the plain network of a network's body.

    Examples
    --------
    >>> plain_of("mnist_ses_vector_56p"), plain_of("dss_v1")
    ('mnist_cnn_56', 'cnn')
    """
    found = re.fullmatch(r"mnist_.*_(28|56)p?", model)
    return f"mnist_cnn_{found[1]}" if found else "cnn"


def reference(rows: Sequence[Row], row: Row) -> Row | None:
    """Return the plain network's row to hold another beside: the tap of the same name, else the block of its number."""
    for tap in (row["tap"], row["tap"].replace("conv", "block")):
        for other in rows:
            where = (plain_of(row["model"]), "", tap, row["factor"])
            if (other["model"], other["variant"], other["tap"], other["factor"]) == where:
                return other
    return None


def not_below(rows: Sequence[Row], row: Row) -> bool:
    """Say whether a network is measured, and farther from equivariance than the plain one beside it."""
    other = reference(rows, row)
    if other is None or (other["model"] == row["model"] and not row["variant"]):
        return False
    return row["mean"] is not None and other["mean"] is not None and row["mean"] > other["mean"]


def block(rows: Sequence[Row], command: str) -> str:
    """Return the generated part of the page, markers included.

    Parameters
    ----------
    rows : sequence of mapping
        As ``secli untrained --format json`` prints them.
    command : str
        What printed this.
    """
    own = [row for row in rows if not row["variant"]]
    parts = [BEGIN, f"`{command}`", _measured(rows), "### Every network", _table(rows, own)]
    variants = [row for row in rows if row["variant"]]
    if variants:
        parts += ["### Options", _table(rows, variants)]
    return "\n\n".join([*parts, END]) + "\n"


def _measured(rows: Sequence[Row]) -> str:
    counts = sorted({(row["images"], row["seeds"]) for row in rows})
    said = "; ".join(f"{images} pictures and {seeds} seeds" for images, seeds in counts)
    return (
        f"Δ, the mean over seeds (smallest–largest), of {said}. ▲: above the plain network of the same body at the "
        "tap of that name (a convolution without one: at the block of its number); a tap that computes the "
        "same has the same figure. The last column is the share of cells compared at each factor, where "
        "that is not all of them."
    )


def _table(rows: Sequence[Row], shown: Sequence[Row]) -> str:
    factors = list(dict.fromkeys(row["factor"] for row in shown))
    lines: dict[tuple[str, str, str], dict[float, Row]] = {}
    for row in shown:
        lines.setdefault((row["model"], row["variant"], row["tap"]), {})[row["factor"]] = row
    header = ["network", "tap", *(f"s = {factor:.3g}" for factor in factors), "compared"]
    text = ["| " + " | ".join(header) + " |", "| --- | --- |" + " ---: |" * (len(factors) + 1)]
    last = None
    for (model, variant, tap), cells in lines.items():
        name = f"`{model}`" + (f" {variant}" if variant else "")
        values = [_cell(cells[f], not_below(rows, cells[f])) if f in cells else "" for f in factors]
        shares = [cells[f]["compared"] for f in factors if f in cells]
        text.append(
            "| " + " | ".join(["" if name == last else name, f"`{tap}`", *values, _shares(shares)]) + " |"
        )
        last = name
    return "\n".join(text)


def _cell(row: Row, marked: bool) -> str:
    if row["mean"] is None:
        return (
            "too small" if "fewer than" in row["reason"] else "no level" if "level" in row["reason"] else "—"
        )
    value = f"{row['mean']:.3g}"
    if row["seeds"] > 1:
        value += f" ({row['low']:.2g}–{row['high']:.2g})"
    return value + " ▲" * marked


def _shares(shares: Sequence[float | None]) -> str:
    if all(share is None or share > 0.9995 for share in shares):
        return ""
    return ", ".join("—" if share is None else f"{share:.0%}" for share in shares)


def replaced(page: str, written: str) -> str:
    """Return a page with its generated part replaced.

    Raises
    ------
    ValueError
        When the page does not hold the two markers, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines '{BEGIN}' and '{END}'")
    return before + written.rstrip("\n") + after
