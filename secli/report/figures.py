"""Which curves share a figure: one line per row of the comparison, few enough to be told apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

from secli.equivariance.pooling import pool
from secli.errors import InputError
from secli.figures.curves import curves_caption, draw_curves
from secli.figures.heatmap import draw_heatmap, heatmap_caption
from secli.figures.style import COLOURS
from secli.records.schema import EquivarianceRecord
from secli.report.content import FigurePart
from secli.report.training_figures import training_figures
from secli.tables.curve_rows import tap_names, whole
from secli.tables.curve_tables import tables_of
from secli.tables.groups import Group
from secli.tables.labels import distinct_labels, legend_labels
from secli.tables.statistic import finite

MOST_CURVES = len(COLOURS)  # beyond them only the line style tells two networks apart
MOST_MAPS = 6
OWN_COLOURS = " Each figure has a colour scale of its own."


def figures(groups: Sequence[Group], sweeps: Sequence[str]) -> list[FigurePart]:
    """Return the figures of curves, then the heat maps, of all groups that were measured.

    ``sweeps`` are the commands of the sweeps that measured: their workers have no command of their own.
    """
    networks = [
        record
        for group in groups
        for record in networks_of(group)
        if any(finite(row.mean) is not None for row in whole(record.rows))
    ]
    curves = shared_figures(networks, MOST_CURVES)
    parts = []
    for number, shown in enumerate(curves, start=1):
        labels = distinct_labels(shown)
        tables = [table for one, label in zip(shown, labels, strict=True) for table in tables_of(one, label)]
        which = f" ({number} of {len(curves)})" if len(curves) > 1 else ""
        parts.append(
            FigurePart(
                key=f"curves-{number}",
                title=f"Equivariance over scale{which}",
                caption=" ".join(
                    [_over_runs(shown, legend_labels(shown)) + _bands(shown), *curves_caption(shown)]
                ),
                draw=partial(draw_curves, shown),
                numbers=tuple(tables),
                measured_by=measuring_commands(shown, sweeps),
            )
        )
    maps = shared_figures(networks, MOST_MAPS)
    for number, shown in enumerate(maps, start=1):
        which = f" ({number} of {len(maps)})" if len(maps) > 1 else ""
        parts.append(
            FigurePart(
                key=f"heatmap-{number}",
                title=f"Equivariance by tap and factor{which}",
                caption=" ".join(
                    [
                        _over_runs(shown, legend_labels(shown)) + (OWN_COLOURS if which else ""),
                        *heatmap_caption(shown),
                    ]
                ),
                draw=partial(draw_heatmap, shown),
                numbers=(),  # the maps show what the curves show
                measured_by=measuring_commands(shown, sweeps),
            )
        )
    return parts + training_figures(groups)


def networks_of(group: Group) -> list[EquivarianceRecord]:
    """Return the curves of a group, named as it is: the mean over its runs, or each run where they do not match."""
    if not group.curves:
        return []
    name = ", ".join([group.model.name, *group.details])
    try:
        return [_named(pool(group.curves), name)]
    except InputError:  # measured at other taps or factors
        return [_named(one, f"{name}, run {number}") for number, one in enumerate(group.curves, start=1)]


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


def _named(record: EquivarianceRecord, name: str) -> EquivarianceRecord:
    return record.model_copy(update={"model": record.model.model_copy(update={"name": name})})


def _over_runs(records: Sequence[EquivarianceRecord], labels: Sequence[str]) -> str:
    counts = [len(record.pooled) or 1 for record in records]
    if len(set(counts)) > 1:
        over = ", ".join(f"{label} {n}" for label, n in zip(labels, counts, strict=True))
    else:
        over = "one run each" if counts[0] == 1 else f"{counts[0]} runs each"
    return f"Mean over runs ({over})."


def _bands(records: Sequence[EquivarianceRecord]) -> str:
    counts = [len(record.pooled) or 1 for record in records]
    several = ["over the runs of a network (of two runs: their range)"] if max(counts) > 1 else []
    single = ["over images where there is a single run"] if min(counts) == 1 else []
    return f" Bands: 95 % bootstrap interval of the mean {', '.join([*several, *single])}."
