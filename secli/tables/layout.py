"""A pivot as a table: mean ± standard deviation (n), the best and its equals marked, published figures below, ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from secli.tables import notes
from secli.tables.paired_tests import (
    ALPHA,
    FEWEST_PAIRS,
    TEST_NAMES,
    Standing,
    Test,
    mean_ranks,
    standard_errors,
    standings,
)
from secli.tables.published import KINDS, Kind, Reported, source_notes
from secli.tables.quantities import Quantity
from secli.tables.statistic import NOTHING, Statistic
from secli.tables.table import MISSING, Cell, Column, Table

if TYPE_CHECKING:
    from secli.tables.pivot import Pivot, PivotCell

BEST, TIED = "*", "≈"
MOST_NAMED = 6

At = tuple[int, int]
Standings = dict[At, Standing]
Marks = dict[tuple[str, ...], str]


def lay_out(pivot: Pivot, ranks: bool = False, test: Test = "t") -> Table:
    """Lay a pivot out, with the mean rank where asked, and the paired test that tells the best from its equals.

    The table's ``machine`` has one line per row and set of column facts, with ``<quantity>``,
    ``<quantity>_standing`` (best, tied, worse), ``<quantity>_p``, the published figures and their difference in
    standard errors.
    """
    found = _standings(pivot, test)
    marks: Marks = {}
    kinds = [_kinds(pivot, row) for row in range(len(pivot.names))]
    ranked, over = _ranks(pivot) if ranks else ([None] * len(pivot.names), [])
    columns = [Column(head, head, text=True) for head in pivot.heads]
    columns += [Column("from", "from", text=True)] if any(kinds) else []
    columns += [column_of(one.quantity, f"column_{at}", one.title) for at, one in enumerate(pivot.columns)]
    tail_columns = [Column("mean_rank", "mean rank", digits=2)] if ranks else []
    tail_columns += [Column("tap", "tap", text=True)] if pivot.taps is not None else []
    lines: list[tuple[Cell, ...]] = []
    for row, names in enumerate(pivot.names):
        head = [
            Cell(MISSING if name is None else name, words=pivot.dataset_names.get(name or "", ""))
            for name in names
        ]
        head += [Cell("measured")] if any(kinds) else []
        tail = {"mean_rank": ranked[row], "tap": pivot.taps[row] if pivot.taps is not None else None}
        tail_cells = [Cell(tail[column.key]) for column in tail_columns]
        measured = [_measured(pivot, at, found.get(at)) for at in _row(pivot, row)]
        lines.append((*head, *measured, *tail_cells))
        for words, cells in _published_lines(pivot, row, kinds[row], marks):
            # the line goes on with the row above: its names, rank and tap stand there
            blank = [Cell("")] * (len(head) - 1)
            lines.append((*blank, Cell(words), *cells, *([Cell("")] * len(tail_cells))))
    more = (
        *_cell_notes(pivot, found),
        *_test_notes(pivot, found, test),
        *_tap_notes(pivot),
        *(_rank_notes(pivot, over) if ranks else ()),
        *notes.departures(marks),
        *_published_notes(pivot),
        *pivot.notes,
    )
    machine = _machine(pivot, found, ranked, tail_columns)
    heads = len(pivot.heads) + any(kinds)
    return Table(pivot.title, (*columns, *tail_columns), tuple(lines), more, machine, heads)


def column_of(quantity: Quantity, key: str | None = None, title: str | None = None) -> Column:
    """Return the column of a quantity."""
    return Column(
        key or quantity.key,
        title or quantity.title,
        percent=quantity.percent,
        digits=quantity.digits,
        statistic=True,
    )


def _row(pivot: Pivot, row: int) -> list[At]:
    return [(row, index) for index in range(len(pivot.columns))]


def _blocks(pivot: Pivot) -> list[list[int]]:
    """Return the rows among which one is the best."""
    blocks = pivot.blocks or (None,) * len(pivot.names)
    return [[row for row, own in enumerate(blocks) if own == block] for block in dict.fromkeys(blocks)]


def _standings(pivot: Pivot, test: Test) -> Standings:
    found: Standings = {}
    for index, column in enumerate(pivot.columns):
        lower = column.quantity.lower_is_better
        for rows in _blocks(pivot) if lower is not None else ():
            if not _same_tap(pivot, rows, index):
                continue
            samples = [pivot.cell(row, index).values for row in rows]
            for row, standing in zip(rows, standings(samples, bool(lower), test), strict=True):
                if standing is not None:
                    found[row, index] = standing
    return found


def _same_tap(pivot: Pivot, rows: Sequence[int], index: int) -> bool:
    """Whether the values of a column may be compared: Δ at another depth is another quantity."""
    cells = [pivot.cell(row, index) for row in rows]
    return not pivot.columns[index].quantity.at_tap or len({cell.depth for cell in cells if cell.values}) < 2


def _ranks(pivot: Pivot) -> tuple[list[float | None], list[int]]:
    rows = range(len(pivot.names))
    usable = [
        index
        for index, column in enumerate(pivot.columns)
        if column.quantity.lower_is_better is not None and _same_tap(pivot, rows, index)
    ]
    means = [[pivot.cell(row, index).statistic.mean for index in usable] for row in rows]
    lower = [bool(pivot.columns[index].quantity.lower_is_better) for index in usable]
    ranked, over = mean_ranks(means, lower)
    return ranked, [usable[index] for index in over]


def _measured(pivot: Pivot, at: At, standing: Standing | None) -> Cell:
    value = pivot.cell(*at).statistic
    if value.mean is None:
        return Cell(None)
    if pivot.columns[at[1]].quantity.key == "parameters" and not value.std:
        return Cell(round(value.mean))
    mark = "" if standing is None else BEST if standing.best else TIED if standing.tied else ""
    return Cell(value, f" ({value.n}){mark}")


def _kinds(pivot: Pivot, row: int) -> list[Kind]:
    there = {kind for at in _row(pivot, row) for kind in pivot.cell(*at).reported}
    return [kind for kind in KINDS if kind in there]


def _published_lines(
    pivot: Pivot, row: int, kinds: Sequence[Kind], marks: Marks
) -> Iterator[tuple[str, list[Cell]]]:
    """Give the lines of published figures below a row: the figure, and how far ours is from it."""
    for kind in kinds:
        cells, away = [], []
        for index, column in enumerate(pivot.columns):
            cell = pivot.cell(row, index)
            figure = cell.reported.get(kind)
            away.append(_difference(cell, figure, column.quantity))
            if figure is None:
                cells.append(Cell(None))
                continue
            value = figure.statistic(column.quantity)
            n = f" ({value.n})" if value.n else ""
            cells.append(Cell(value, n + notes.mark_of(figure.departures, marks)))
        yield KINDS[kind], cells
        if any(value is not None for value in away):
            signed = [MISSING if value is None else f"{value:+.1f}".replace("-", "−") for value in away]
            yield f"ours − {KINDS[kind]} (SE)", [Cell(text) for text in signed]


def _difference(cell: PivotCell, figure: Reported | None, quantity: Quantity) -> float | None:
    """Return (ours − theirs) in standard errors; None where one of them has none."""
    ours, theirs = cell.statistic, NOTHING if figure is None else figure.statistic(quantity)
    if ours.mean is None or theirs.mean is None:
        return None
    return standard_errors(ours.mean, ours.std, ours.n, theirs.mean, theirs.std, theirs.n)


def _cell_notes(pivot: Pivot, found: Standings) -> Iterator[str]:
    yield "Mean ± standard deviation (n − 1) over n runs (n in brackets): realisations of the data and seeds."
    everywhere = [at for row in range(len(pivot.names)) for at in _row(pivot, row)]
    missing = [at for at in everywhere if not pivot.cell(*at).values]
    if any(pivot.cell(*at).group is None for at in missing):
        yield f"{MISSING} in a cell: no finished run."
    unmeasured = [at for at in missing if pivot.cell(*at).group is not None]
    if unmeasured:
        yield f"Runs without a value (not measured, or not measurable): {_named(pivot, unmeasured)}."
    if any(None in names for names in pivot.names):
        yield f"{MISSING} in a name: the network has no such option."
    if any(standing.best for standing in found.values()):
        yield f"{BEST} best mean of its column{' among the rows of one network' if pivot.blocks else ''}."


def _test_notes(pivot: Pivot, found: Standings, test: Test) -> Iterator[str]:
    tested = [standing for standing in found.values() if standing.p is not None]
    if tested:
        alone = {standing.seeds_alone for standing in tested}
        # seeds of one realisation are no independent draws of the images
        pairs = "common realisations (the mean over their seeds)"
        if alone == {True}:
            pairs = "common seeds"
        elif True in alone:
            pairs += ", over common seeds where the realisation is one"
        yield (
            f"{TIED} not told from the best: {TEST_NAMES[test]} over {pairs}, two-sided, "
            f"p > {ALPHA} after Holm's correction over the comparisons of its column."
        )
        if True in alone:
            yield "With one realisation the test covers seeds alone: it says nothing of other images."
    untested = [at for at, one in found.items() if not one.best and one.p is None]
    few = [at for at in untested if found[at].pairs < FEWEST_PAIRS]
    unable = f"Too few pairs for this test ({TEST_NAMES[test]}, corrected, could not reach p ≤ {ALPHA})"
    reasons = {
        f"Fewer than {FEWEST_PAIRS} pairs with the best": few,
        unable: [at for at in untested if at not in few],
    }
    best = sum(standing.best for standing in found.values())
    for reason, cells in reasons.items():
        if cells:
            which = "all other cells" if len(cells) + best == len(found) else _named(pivot, cells)
            yield f"{reason}, so not said whether tied: {which}."


def _tap_notes(pivot: Pivot) -> Iterator[str]:
    mixed = [
        column.title
        for index, column in enumerate(pivot.columns)
        if not all(_same_tap(pivot, rows, index) for rows in _blocks(pivot))
    ]
    if mixed:
        where = "" if len(mixed) == len(pivot.columns) else f" in {'; '.join(mixed)}"
        among = " where the rows of one network are read at several taps" if pivot.blocks else ""
        yield (
            f"No best and no rank{where}{among}: Δ at different taps does not say which network is ahead; "
            "--depth ('depth' in a sweep's file) reads all at one."
        )


def _named(pivot: Pivot, cells: Sequence[At]) -> str:
    """Name cells, as many as are read."""
    named = []
    for row, index in cells[:MOST_NAMED]:
        names = [pivot.dataset_names.get(part, part) for part in pivot.names[row] if part is not None]
        named.append(f"{', '.join(names)} ({pivot.columns[index].title})")
    more = f" and {len(cells) - MOST_NAMED} more" if len(cells) > MOST_NAMED else ""
    return "; ".join(named) + more


def _rank_notes(pivot: Pivot, over: Sequence[int]) -> Iterator[str]:
    if over:
        titles = "; ".join(pivot.columns[index].title for index in over)
        yield f"Mean rank (1 is the best) over the columns that all rows have: {titles}."
    else:
        yield "No mean rank: there is no column that all rows have."


def _published_notes(pivot: Pivot) -> Iterator[str]:
    entries = [
        (cell, one, pivot.columns[index].quantity)
        for (_, index), cell in pivot.cells.items()
        for one in cell.reported.values()
    ]
    if not entries:
        return
    yield f"{MISSING} on the lines below a row: nothing published, or no standard deviation to compare with."
    yield from source_notes(
        (one.source.kind, one.source.text + one.read_off, one.protocol.description) for _, one, _ in entries
    )
    if any(_difference(*entry) is not None for entry in entries):
        yield "SE: difference in standard errors, (ours − theirs) / √(se² + se²), se = standard deviation / √n."


def _machine(
    pivot: Pivot, found: Standings, ranked: Sequence[float | None], tail_columns: Sequence[Column]
) -> Table:
    """Return the content for programs: one line per row and set of column facts."""
    facts = list(dict.fromkeys(key for one in pivot.columns for key in one.facts))
    # curves hold one quantity per factor: for a program, the factor is a fact and the quantity one
    keys = [
        one.quantity.key.rsplit("_", 1)[0] if "factor" in facts else one.quantity.key for one in pivot.columns
    ]
    quantities = {key: one.quantity for key, one in reversed(list(zip(keys, pivot.columns, strict=True)))}
    kinds = list(dict.fromkeys(kind for row in range(len(pivot.names)) for kind in _kinds(pivot, row)))
    columns = [Column(name, name, text=True) for name in (*pivot.heads, *facts)]
    for key in dict.fromkeys(keys):
        percent, title = quantities[key].percent, quantities[key].title
        columns.append(Column(key, title, percent=percent, statistic=True))
        columns += [Column(f"{key}_standing", "standing", text=True), Column(f"{key}_p", "p")]
        for kind in kinds:
            columns.append(Column(f"{key}_{kind}", kind, percent=percent, statistic=True))
            columns.append(Column(f"{key}_{kind}_difference_se", "SE"))
            columns.append(Column(f"{key}_{kind}_departures", "departures", text=True))
    columns += [*tail_columns, Column("runs", "runs", text=True)]
    by_facts: dict[tuple[object, ...], list[int]] = {}
    for index, one in enumerate(pivot.columns):
        by_facts.setdefault(tuple(one.facts.get(fact) for fact in facts), []).append(index)
    lines = []
    for row, names in enumerate(pivot.names):
        for values, own in by_facts.items():
            cells = dict(zip([*pivot.heads, *facts], map(Cell, (*names, *values)), strict=True))  # type: ignore[arg-type]
            runs: dict[str, None] = {}
            for index in own:
                cells |= _machine_cells(pivot, (row, index), found.get((row, index)), keys[index])
                group = pivot.cell(row, index).group
                runs |= dict.fromkeys(str(run.path) for run in (group.members if group is not None else ()))
            cells["mean_rank"] = Cell(ranked[row])
            cells["tap"] = Cell(None if pivot.taps is None else pivot.taps[row])
            cells["runs"] = Cell("; ".join(runs) or None)
            empty = {True: Cell(NOTHING), False: Cell(None)}
            lines.append(tuple(cells.get(column.key, empty[column.statistic]) for column in columns))
    return Table(pivot.title, tuple(columns), tuple(lines))


def _machine_cells(pivot: Pivot, at: At, standing: Standing | None, key: str) -> dict[str, Cell]:
    cell, quantity = pivot.cell(*at), pivot.columns[at[1]].quantity
    value: Statistic = cell.statistic
    cells = {
        key: Cell(value),
        f"{key}_standing": Cell(standing.word if standing is not None else None),
        f"{key}_p": Cell(standing.p if standing is not None else None),
    }
    for kind, figure in cell.reported.items():
        cells[f"{key}_{kind}"] = Cell(figure.statistic(quantity))
        cells[f"{key}_{kind}_difference_se"] = Cell(_difference(cell, figure, quantity))
        cells[f"{key}_{kind}_departures"] = Cell("; ".join(figure.departures) or None)
    return cells
