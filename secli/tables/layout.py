"""A grid as a table: mean ± standard deviation (n), the best and its equals marked, published figures below, ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from secli.tables.beside import Beside
from secli.tables.compare import KIND_TITLES, dagger
from secli.tables.formats import MISSING, Cell, Column, Table
from secli.tables.grid import Grid
from secli.tables.paired_tests import ALPHA, FEWEST_PAIRS, TEST_NAMES, Standing, Test, mean_ranks, standings
from secli.tables.statistic import NOTHING, Statistic

BEST, TIED = "*", "≈"

Standings = dict[tuple[int, int], Standing]


def lay_grid(grid: Grid, ranks: bool = False, test: Test = "t") -> Table:
    """Lay a grid out.

    Parameters
    ----------
    grid : Grid
        The numbers.
    ranks : bool
        Whether the mean rank over the columns has a column.
    test : str
        The paired test over draws that tells the best from its equals.

    Returns
    -------
    Table
        For a reader; its ``machine`` has one line per row and set of column facts, with ``<quantity>``,
        ``<quantity>_standing`` (best, tied, worse), ``<quantity>_p``, the published figures and their difference in
        standard errors.
    """
    found = _standings(grid, test)
    marks: dict[tuple[str, ...], str] = {}
    places = range(len(grid.columns))
    kinds = [_kinds(grid, row) for row in range(len(grid.names))]
    said = any(kinds)
    ranked, over = _ranks(grid) if ranks else ([None] * len(grid.names), [])
    columns = [Column(head, head, text=True) for head in grid.heads]
    columns += [Column("from", "from", text=True)] if said else []
    for place in places:
        one = grid.columns[place]
        columns.append(
            Column(
                f"column_{place}",
                one.title,
                percent=one.quantity.percent,
                digits=one.quantity.digits,
                statistic=True,
            )
        )
    columns += [Column("mean_rank", "mean rank", digits=2)] if ranks else []
    columns += [Column("tap", "tap", text=True)] if grid.taps is not None else []
    lines: list[tuple[Cell, ...]] = []
    for row, names in enumerate(grid.names):
        head = [Cell(MISSING if name is None else name, said=grid.said.get(name or "", "")) for name in names]
        tail = [Cell(ranked[row])] if ranks else []
        tail += [Cell(grid.taps[row])] if grid.taps is not None else []
        measured = [_measured(grid, row, place, found.get((row, place))) for place in places]
        lines.append((*head, *([Cell("measured")] if said else []), *measured, *tail))
        for words, cells in _below(grid, row, kinds[row], marks):
            # the line goes on with the row above: its names, rank and tap are said there
            lines.append((*(Cell("") for _ in head), Cell(words), *cells, *(Cell("") for _ in tail)))
    notes = (
        *_notes(grid, found, test),
        *_rank_notes(grid, ranks, over),
        *_beside_notes(grid, marks),
        *grid.notes,
    )
    machine = _machine(grid, found, ranked, ranks)
    return Table(grid.title, tuple(columns), tuple(lines), notes, machine, len(grid.heads) + said)


def _standings(grid: Grid, test: Test) -> Standings:
    blocks = grid.blocks or (None,) * len(grid.names)
    found: Standings = {}
    for place, column in enumerate(grid.columns):
        lower = column.quantity.lower_is_better
        for block in dict.fromkeys(blocks) if lower is not None else ():
            rows = [row for row, own in enumerate(blocks) if own == block]
            if not _same_tap(grid, rows, place):
                continue
            samples = [grid.cell(row, place).values for row in rows]
            for row, standing in zip(rows, standings(samples, bool(lower), test), strict=True):
                if standing is not None:
                    found[row, place] = standing
    return found


def _same_tap(grid: Grid, rows: Sequence[int], place: int) -> bool:
    """Say whether the values of a column may be compared: Δ of another tap is another quantity."""
    return len({grid.cell(row, place).tap for row in rows if grid.cell(row, place).values}) < 2


def _ranks(grid: Grid) -> tuple[list[float | None], list[int]]:
    rows = range(len(grid.names))
    usable = [
        place
        for place, one in enumerate(grid.columns)
        if one.quantity.lower_is_better is not None and _same_tap(grid, rows, place)
    ]
    means = [[grid.statistic(row, place).mean for place in usable] for row in range(len(grid.names))]
    lower = [bool(grid.columns[place].quantity.lower_is_better) for place in usable]
    ranked, over = mean_ranks(means, lower)
    return ranked, [usable[index] for index in over]


def _measured(grid: Grid, row: int, place: int, standing: Standing | None) -> Cell:
    value = grid.statistic(row, place)
    if value.mean is None:
        return Cell(None)
    if grid.columns[place].quantity.key == "parameters" and not value.std:
        return Cell(round(value.mean))
    mark = "" if standing is None else BEST if standing.best else TIED if standing.tied else ""
    return Cell(value, f" ({value.n}){mark}")


def _kinds(grid: Grid, row: int) -> list[str]:
    there = {one.kind for place in range(len(grid.columns)) for one in grid.cell(row, place).beside}
    return [kind for kind in KIND_TITLES if kind in there]


def _below(
    grid: Grid, row: int, kinds: Sequence[str], marks: dict[tuple[str, ...], str]
) -> Iterator[tuple[str, list[Cell]]]:
    """Give the lines of published figures below a row: the figure, and how far ours is from it."""
    for kind in kinds:
        figures: list[Beside | None] = [
            next((one for one in grid.cell(row, place).beside if one.kind == kind), None)
            for place in range(len(grid.columns))
        ]
        words = KIND_TITLES[kind].removesuffix(" (%)")
        cells = []
        for figure in figures:
            mark = ""
            if figure is not None and figure.departures:
                mark = marks.setdefault(figure.departures, dagger(len(marks)))
            n = f" ({figure.statistic.n})" if figure is not None and figure.statistic.n else ""
            cells.append(Cell(None) if figure is None else Cell(figure.statistic, n + mark))
        yield words, cells
        away = [
            None if figure is None else figure.difference(grid.statistic(row, place))
            for place, figure in enumerate(figures)
        ]
        if any(value is not None for value in away):
            signed = [MISSING if value is None else f"{value:+.1f}".replace("-", "−") for value in away]
            yield f"ours − {words} (SE)", [Cell(text) for text in signed]


def _notes(grid: Grid, found: Standings, test: Test) -> Iterator[str]:
    yield "Mean ± standard deviation (n − 1) over n runs (n in brackets): realisations of the data and seeds."
    places = [(row, place) for row in range(len(grid.names)) for place in range(len(grid.columns))]
    missing = [at for at in places if grid.statistic(*at).mean is None]
    if any(not grid.cell(*at).runs for at in missing):
        yield f"{MISSING} in a cell: no finished run."
    unmeasured = [at for at in missing if grid.cell(*at).runs]
    if unmeasured:
        yield f"Runs without a value (not measured, or not measurable): {_said(grid, unmeasured)}."
    if any(None in names for names in grid.names):
        yield f"{MISSING} in a name: the network has no such option."
    if any(standing.best for standing in found.values()):
        yield f"{BEST} best mean of its column{' among the rows of one network' if grid.blocks else ''}."
    yield from _test_notes(grid, found, test)
    yield from _tap_notes(grid)


def _test_notes(grid: Grid, found: Standings, test: Test) -> Iterator[str]:
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
    silent = {at: one.pairs for at, one in found.items() if not one.best and one.p is None}
    for reason, places in (
        (
            f"Fewer than {FEWEST_PAIRS} pairs with the best",
            [at for at, pairs in silent.items() if pairs < FEWEST_PAIRS],
        ),
        (
            f"Too few pairs for this test ({TEST_NAMES[test]}, corrected, could not reach p ≤ {ALPHA})",
            [at for at, pairs in silent.items() if pairs >= FEWEST_PAIRS],
        ),
    ):
        if places:
            every = len(places) + _best(found) == len(found)
            yield f"{reason}, so not said whether tied: {'all other cells' if every else _said(grid, places)}."


def _tap_notes(grid: Grid) -> Iterator[str]:
    blocks = grid.blocks or (None,) * len(grid.names)
    mixed = [
        column.title
        for place, column in enumerate(grid.columns)
        if any(
            not _same_tap(grid, [row for row, own in enumerate(blocks) if own == block], place)
            for block in dict.fromkeys(blocks)
        )
    ]
    if mixed:
        where = "" if len(mixed) == len(grid.columns) else f" in {'; '.join(mixed)}"
        among = " where the rows of one network are read at several taps" if grid.blocks else ""
        yield (
            f"No best and no rank{where}{among}: Δ at different taps does not say which network is ahead; "
            "--tap ('tap' in a sweep's file) reads all at one."
        )


def _best(found: Standings) -> int:
    return sum(standing.best for standing in found.values())


def _said(grid: Grid, places: Sequence[tuple[int, int]]) -> str:
    """Name cells, at most six of them."""
    named = []
    for row, place in places[:6]:
        named.append(f"{grid.name(row)} ({grid.columns[place].title})")
    more = f" and {len(places) - 6} more" if len(places) > 6 else ""
    return "; ".join(named) + more


def _rank_notes(grid: Grid, ranks: bool, over: Sequence[int]) -> Iterator[str]:
    if not ranks:
        return
    if over:
        titles = "; ".join(grid.columns[place].title for place in over)
        yield f"Mean rank (1 is the best) over the columns that all rows have: {titles}."
    else:
        yield "No mean rank: there is no column that all rows have."


def _beside_notes(grid: Grid, marks: dict[tuple[str, ...], str]) -> Iterator[str]:
    for departures, mark in marks.items():
        yield f"{mark} Not the published setting: {'; '.join(departures)}."
    said: dict[tuple[str, str], list[str]] = {}
    entries = [one for cell in grid.cells.values() for one in cell.beside]
    for one in entries:
        protocols = said.setdefault((one.kind, one.source), [])
        if one.protocol not in protocols:
            protocols.append(one.protocol)
    if said:
        yield f"{MISSING} on the lines below a row: nothing published, or no standard deviation to compare with."
    for (kind, source), protocols in said.items():
        yield f"{KIND_TITLES[kind].removesuffix(' (%)')}: {source} ({'; '.join(protocols)})."
    if any(one.difference(cell.statistic) is not None for cell in grid.cells.values() for one in cell.beside):
        yield "SE: difference in standard errors, (ours − theirs) / √(se² + se²), se = standard deviation / √n."


def _machine(grid: Grid, found: Standings, ranked: Sequence[float | None], ranks: bool) -> Table:
    """Return the content for programs: one line per row and set of column facts."""
    facts = list(dict.fromkeys(key for one in grid.columns for key in one.facts))
    quantities = {one.quantity.key: one.quantity for one in grid.columns}
    # curves hold one quantity per factor: for a program, the factor is a fact and the quantity one
    keys = {key: key.rsplit("_", 1)[0] if "factor" in facts else key for key in quantities}
    kinds = list(dict.fromkeys(kind for row in range(len(grid.names)) for kind in _kinds(grid, row)))
    columns = [Column(head, head, text=True) for head in grid.heads]
    columns += [Column(fact, fact, text=True) for fact in facts]
    for key in dict.fromkeys(keys.values()):
        one = next(quantity for name, quantity in quantities.items() if keys[name] == key)
        columns.append(Column(key, one.title, percent=one.percent, statistic=True))
        columns += [Column(f"{key}_standing", "standing", text=True), Column(f"{key}_p", "p")]
        for kind in kinds:
            columns.append(Column(f"{key}_{kind}", kind, percent=one.percent, statistic=True))
            columns.append(Column(f"{key}_{kind}_difference_se", "SE"))
            columns.append(Column(f"{key}_{kind}_departures", "departures", text=True))
    columns += [Column("mean_rank", "mean rank")] if ranks else []
    columns += [Column("tap", "tap", text=True)] if grid.taps is not None else []
    columns.append(Column("runs", "runs", text=True))
    lines = []
    for row, names in enumerate(grid.names):
        for values in dict.fromkeys(tuple(one.facts.get(fact) for fact in facts) for one in grid.columns):
            at = {**dict(zip(grid.heads, names, strict=True)), **dict(zip(facts, values, strict=True))}
            mine = [
                place
                for place, one in enumerate(grid.columns)
                if tuple(one.facts.get(fact) for fact in facts) == values
            ]
            filled: dict[str, Cell] = {key: Cell(value) for key, value in at.items()}
            for place in mine:
                key = keys[grid.columns[place].quantity.key]
                filled |= _machine_cell(grid, found.get((row, place)), row, place, key)
            filled["mean_rank"] = Cell(ranked[row])
            filled["tap"] = Cell(None if grid.taps is None else grid.taps[row])
            runs = dict.fromkeys(run for place in mine for run in grid.cell(row, place).runs)
            filled["runs"] = Cell("; ".join(runs) or None)
            lines.append(
                tuple(filled.get(each.key, Cell(NOTHING if each.statistic else None)) for each in columns)
            )
    return Table(grid.title, tuple(columns), tuple(lines), ())


def _machine_cell(grid: Grid, standing: Standing | None, row: int, place: int, key: str) -> dict[str, Cell]:
    cell = grid.cell(row, place)
    value: Statistic = cell.statistic
    filled = {
        key: Cell(value),
        f"{key}_standing": Cell(standing.word if standing is not None else None),
        f"{key}_p": Cell(standing.p if standing is not None else None),
    }
    for one in cell.beside:
        filled[f"{key}_{one.kind}"] = Cell(one.statistic)
        filled[f"{key}_{one.kind}_difference_se"] = Cell(one.difference(value))
        filled[f"{key}_{one.kind}_departures"] = Cell("; ".join(one.departures) or None)
    return filled
