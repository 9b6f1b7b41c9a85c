"""Which curves share a figure: one line per row of the comparison, few enough to be told apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

from secli.equivariance.pooling import pool
from secli.errors import InputError
from secli.records.schema import EquivarianceRecord
from secli.tables.aggregate import Row
from secli.tables.curves import tables_of
from secli.tables.figures import COLOURS, plain
from secli.tables.heatmap import draw_heatmap
from secli.tables.labels import distinct_labels
from secli.tables.naming import called
from secli.tables.places import tap_names, whole
from secli.tables.plots import draw_curves
from secli.tables.report.content import FigurePart

MOST_CURVES = len(COLOURS)  # beyond them only the line style tells two networks apart
MOST_MAPS = 6
OWN_COLOURS = " Each figure has a colour scale of its own."


def figures(rows: Sequence[Row], sweeps: Sequence[str]) -> list[FigurePart]:
    """Return the figures of curves, then the heat maps, of all rows that were measured.

    Parameters
    ----------
    rows : sequence of Row
        Of the comparison.
    sweeps : sequence of str
        Commands of the sweeps that measured: their workers have no command of their own.
    """
    networks = [record for row in rows for record in networks_of(row) if _drawable(record)]
    parts = []
    for name, most, draw in (("curves", MOST_CURVES, draw_curves), ("heatmap", MOST_MAPS, draw_heatmap)):
        groups = shared_figures(networks, most)
        for number, group in enumerate(groups, start=1):
            what = "Equivariance over scale" if name == "curves" else "Equivariance by tap and factor"
            which = f" ({number} of {len(groups)})" if len(groups) > 1 else ""
            labels = distinct_labels(group)
            tables = [
                table
                for record, label in zip(group, labels, strict=True)
                for table in tables_of(record, label)
            ]
            parts.append(
                FigurePart(
                    key=f"{name}-{number}",
                    title=f"{what}{which}",
                    caption=_caption(name, group, labels)
                    + (OWN_COLOURS if name == "heatmap" and which else ""),
                    draw=partial(draw, group, plain(", ".join(_data(group)))),
                    # the maps show what the curves show
                    numbers=tuple(tables) if name == "curves" else (),
                    measured_by=measuring_commands(group, sweeps),
                )
            )
    return parts


def networks_of(row: Row) -> list[EquivarianceRecord]:
    """Return the curves of a row, named as the row is: the mean over its runs, or each run where they do not match."""
    if not row.curves:
        return []
    name = ", ".join([row.model, *_rest(row)])
    try:
        return [_named(pool(row.curves), name)]
    except InputError:  # measured at other taps or factors
        return [_named(record, f"{name}, run {number}") for number, record in enumerate(row.curves, start=1)]


def shared_figures(records: Sequence[EquivarianceRecord], most: int) -> list[list[EquivarianceRecord]]:
    """Return the networks of each figure: all in one if they are few, else those with the same taps together.

    What is compared most, the rows of one model, shares a figure as far as there is room.
    """
    if len(records) <= most:
        return [list(records)] if records else []
    chains: dict[tuple[str, ...], list[EquivarianceRecord]] = {}
    for record in records:
        chains.setdefault(tuple(tap_names(whole(record.rows))), []).append(record)
    groups: list[list[EquivarianceRecord]] = []
    for same in chains.values():
        groups.append([])
        for _, rows in itertools.groupby(same, key=lambda record: record.model.name.split(", ")[0]):
            one_model = list(rows)
            if groups[-1] and len(groups[-1]) + len(one_model) > most:
                groups.append([])
            for start in range(0, len(one_model), most):
                if start:
                    groups.append([])
                groups[-1] += one_model[start : start + most]
    return groups


def measuring_commands(records: Sequence[EquivarianceRecord], sweeps: Sequence[str]) -> tuple[str, ...]:
    """Return the commands that measured; a worker's own file says nothing, its sweep's command does."""
    own = [record.provenance.command for record in records]
    commands = [command for command in own if command.startswith("secli ")]
    if len(commands) < len(own):
        commands += sweeps
    return tuple(dict.fromkeys(commands))


def _rest(row: Row) -> list[str]:
    return [f"{key} {row.said(key)}" for key, value in row.by.items() if key != "model" and value is not None]


def _named(record: EquivarianceRecord, name: str) -> EquivarianceRecord:
    return record.model_copy(update={"model": record.model.model_copy(update={"name": name})})


def _drawable(record: EquivarianceRecord) -> bool:
    return any(row.mean is not None and math.isfinite(row.mean) for row in whole(record.rows))


def _data(records: Sequence[EquivarianceRecord]) -> list[str]:
    return sorted({f"measured on {name}" for name in called(record.data for record in records).values()})


def _caption(name: str, group: Sequence[EquivarianceRecord], labels: Sequence[str]) -> str:
    counts = [len(record.pooled) or 1 for record in group]
    if len(set(counts)) == 1:
        over = "one run each" if counts[0] == 1 else f"{counts[0]} runs each"
    else:
        over = ", ".join(f"{label} {n}" for label, n in zip(labels, counts, strict=True))
    said = f"Mean over runs ({over})."
    if name == "curves":
        several, single = any(n > 1 for n in counts), any(n == 1 for n in counts)
        what = [
            *(["over the runs of a network (of two runs: their range)"] if several else []),
            *(["over images where there is a single run"] if single else []),
        ]
        said += f" Bands: 95 % bootstrap interval of the mean {', '.join(what)}."
    return said
