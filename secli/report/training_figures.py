"""The figures of networks that were measured while they trained, with the numbers behind them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from secli.figures.training import draw_training, taps_drawn
from secli.records.epochs import MeasuredEpoch, read_epochs
from secli.report.content import FigurePart
from secli.tables.groups import Group
from secli.tables.statistic import finite
from secli.tables.table import Cell, Column, Table


def training_figures(groups: Sequence[Group]) -> list[FigurePart]:
    """Return a figure for each group with a run that was measured while it trained: of the first such run."""
    parts: list[FigurePart] = []
    for group in groups:
        read = next(((run, epochs) for run in group.members if (epochs := read_epochs(run.path))), None)
        if read is None or not taps_drawn(read[1]):
            continue
        run, epochs = read
        seconds = sum(one.reading.seconds for one in epochs)
        parts.append(
            FigurePart(
                key=f"training-{len(parts) + 1}",
                title=f"{group.named} while it trains",
                caption=f"Run {run.path}, {epochs[0].reading.images} images after each of {len(epochs)} epochs, "
                f"{seconds:.3g} s in all.",
                draw=partial(draw_training, epochs),
                numbers=(epochs_table(epochs),),
                measured_by=(),
            )
        )
    return parts


def epochs_table(epochs: Sequence[MeasuredEpoch]) -> Table:
    """Return the readings over epochs as a table, a line per epoch, tap and factor."""
    columns = (
        Column("epoch", "epoch"),
        Column("tap", "tap", text=True),
        Column("factor", "s"),
        Column("mean", "Δ"),
        Column("reason", "reason", text=True),
    )
    rows = [
        (
            Cell(one.epoch),
            Cell(row.tap),
            Cell(row.factor),
            Cell(finite(row.mean)),
            Cell(None if row.reason is None else str(row.reason)),
        )
        for one in epochs
        for row in one.reading.rows
    ]
    return Table("Δ while the network trains", columns, tuple(rows))
