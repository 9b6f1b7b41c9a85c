"""The tables that a sweep ends in, from its directory: those that its file names, else the flat comparison."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from secli.config import among
from secli.errors import InputError
from secli.records.schema import (
    RECORD_FILE,
    SWEEP_FILE,
    SweepRecord,
    SweptRun,
    TrainingRecord,
    read_record,
    read_sweep_record,
)
from secli.tables.ablation import ablation_tables
from secli.tables.aggregate import summarise
from secli.tables.belonging import fact_name, facts, named_apart
from secli.tables.collect import Run, SetAside, collect
from secli.tables.comparison import aside_table, compare, grouped_aside
from secli.tables.derived import net, size, system
from secli.tables.factor_curves import curve_tables
from secli.tables.formats import Column, Table
from secli.tables.naming import called
from secli.tables.pivot import Wanted, pivot_tables
from secli.tables.published import Published, load_published

# what a planned run's data are called in the sweep's file; no fact of a run, so no table can ask for it
_SWEPT = "swept dataset"
# <dataset>-r<realisation>-s<seed>-<key>, the name of a run's directory in a sweep
_FOLDER = re.compile(r"^(?P<dataset>.+)-r(?P<realisation>\d+)-s(?P<seed>\d+)-[0-9a-f]+$")


def sweep_tables(directory: Path) -> list[Table]:
    """Return the tables of a sweep, of what is finished in it.

    Parameters
    ----------
    directory : Path
        The sweep's directory, with its ``sweep.json``.

    Returns
    -------
    list of Table
        As its file names them, each with notes on runs that are missing, on versions of secli and on datasets that
        stand in for others; the flat comparison where it names none; what was set aside, at the end.

    Raises
    ------
    InputError
        When there is no sweep, its record is damaged, or no run is finished.
    """
    record = read_sweep_record(directory)
    if record is None:
        raise InputError(f"{directory}: no sweep here; 'secli sweep' writes sweep.json")
    listed = {(directory / one.run).resolve() for one in record.runs}
    if not any((run / RECORD_FILE).is_file() for run in listed):
        raise InputError(f"{directory}: no run of the sweep {record.name} has begun")
    everything, aside = collect([directory])
    runs = [run for run in everything if run.path.resolve() in listed]
    if not runs:
        raise InputError(f"{directory}: no run of the sweep {record.name} is finished")
    states = _states(directory, record, {run.path.resolve() for run in runs})
    aside = [one for one in aside if Path(one.path).resolve() in listed or Path(one.path).name == SWEEP_FILE]
    notes = [*_stand_in_notes(runs), *_missing_notes(record, states)]
    planned = _named_as_found([_planned(one) for one in record.runs], runs)
    tables: list[Table] = []
    for wanted in record.tables:
        tables += [_noted(one, notes) for one in _named_tables(wanted, runs, aside, planned)]
    if not record.tables:
        comparison = compare(summarise([run.path for run in runs]))
        tables = [_noted(comparison.main, notes), *comparison.others]
        aside += comparison.summary.set_aside
    rest = aside_table(grouped_aside(list(dict.fromkeys(aside))))
    return _distinct([*tables, *([rest] if rest is not None else [])])


def _named_tables(
    table: Mapping[str, Any], runs: Sequence[Run], aside: list[SetAside], planned: Sequence[Mapping[str, Any]]
) -> list[Table]:
    """Return what one entry of ``tables`` in a sweep's file asks for."""
    published: Published | None = load_published() if table.get("published") else None
    factors = table.get("factors")
    wanted = Wanted(
        rows=tuple(table.get("rows") or ("model",)),
        columns=tuple(table.get("columns") or ()),
        values=tuple(table.get("values") or ("test_error",)),
        title=table["title"],
        tap=table.get("tap"),
        factors=tuple(factors) if factors else None,
        ranks=bool(table.get("ranks")),
        test=table.get("test") or "t",
    )
    only: Mapping[str, Any] = table.get("only") or {}
    chosen = [part for run in runs if (part := _entering(run, only)) is not None]
    lacking = [one for one in planned if could_match(one, only)]
    if not chosen:
        return [_empty(wanted, "No finished run belongs into this table.")]
    try:
        if table.get("ablate"):
            return ablation_tables(chosen, aside, table["ablate"], wanted)
        if table.get("curves"):
            return curve_tables(chosen, aside, wanted, published, lacking)
        return pivot_tables(chosen, aside, wanted, published, lacking)
    except InputError as error:  # one table that cannot be made must not take the others with it
        return [_empty(wanted, f"This table cannot be made: {error}.")]


def _empty(wanted: Wanted, note: str) -> Table:
    return Table(wanted.title or "", tuple(Column(row, row, text=True) for row in wanted.rows), (), (note,))


def _entering(run: Run, only: Mapping[str, Any]) -> Run | None:
    """Return a run with those of its names that match; None where none does."""
    parts = [part for part in named_apart([run], ("label", "tag")) if _belongs(part, only)]
    return replace(run, names=tuple(name for part in parts for name in part.names)) if parts else None


def _belongs(run: Run, only: Mapping[str, Any]) -> bool:
    """Say whether a run matches; its data by their own name, or by the one that the sweep's file gives them."""
    known = facts(run)
    named = _FOLDER.match(run.path.name)
    return matches(known, only) or (
        named is not None and matches({**known, "dataset": named["dataset"]}, only)
    )


def matches(known: Mapping[str, Any], only: Mapping[str, Any]) -> bool:
    """Say whether facts match every key of an entry, as in a sweep's exclusions; patterns and lists are allowed."""
    return all(among(known.get(fact_name(key)), wanted) for key, wanted in only.items())


def could_match(known: Mapping[str, Any], only: Mapping[str, Any]) -> bool:
    """Say whether a run of which only some facts are known may match; its data by either of their names."""
    return all(
        fact_name(key) not in known
        or among(known[fact_name(key)], wanted)
        or (fact_name(key) == "dataset" and among(known.get(_SWEPT), wanted))
        for key, wanted in only.items()
    )


def _states(directory: Path, record: SweepRecord, finished: set[Path]) -> dict[Path, str]:
    """Return what is the matter with each run that is not finished."""
    states = {}
    for run in dict.fromkeys((directory / one.run).resolve() for one in record.runs):
        if run in finished:
            continue
        try:
            found = read_record(run / RECORD_FILE)
        except InputError:
            states[run] = "damaged" if (run / RECORD_FILE).is_file() else "not begun"
            continue
        states[run] = found.status if isinstance(found, TrainingRecord) else "damaged"
    return states


def _planned(one: SweptRun) -> dict[str, Any]:
    """Return the facts of a run that its place in the sweep tells, finished or not."""
    match = _FOLDER.match(Path(one.run).name)
    known: dict[str, Any] = {
        "model": one.model,
        "label": one.label,
        "tag": one.tag,
        "system": system(one.model),
        "net": net(one.model),
    }
    side = size(one.model, {})
    known |= {"size": side} if side is not None else {}
    if match:
        known |= {
            "dataset": match["dataset"],
            _SWEPT: match["dataset"],
            "realisation": int(match["realisation"]),
            "seed": int(match["seed"]),
        }
    return known


def _named_as_found(planned: Sequence[dict[str, Any]], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Call the data of planned runs as the finished runs have them: with the hash of other sizes, or a stand-in's.

    Where runs on several sets share a name in the sweep's file, a planned run does not tell which is its own.
    """
    called: dict[str, set[str]] = {}
    for run in runs:
        match = _FOLDER.match(run.path.name)
        if match is not None and run.trained_on is not None:
            called.setdefault(match["dataset"], set()).add(run.trained_on.name)
    named = []
    for one in planned:
        names = called.get(one.get(_SWEPT, ""), set())
        rest = {key: value for key, value in one.items() if key != "dataset"} if names else dict(one)
        named.append({**rest, "dataset": next(iter(names))} if len(names) == 1 else rest)
    return named


def _missing_notes(record: SweepRecord, states: Mapping[Path, str]) -> list[str]:
    if not states:
        return []
    total = len({one.key for one in record.runs})
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items())
    return [f"Missing: {len(states)} of {total} runs of the sweep ({counts})."]


def _stand_in_notes(runs: Sequence[Run]) -> list[str]:
    """Name the datasets that were trained on in place of those that the sweep's file names."""
    found: dict[tuple[str, str], None] = {}
    names = called(run.trained_on for run in runs if run.trained_on is not None)
    for run in runs:
        match = _FOLDER.match(run.path.name)
        if match is None or run.trained_on is None:
            continue
        wanted, used = match["dataset"], run.trained_on.name
        # a set with other parameters than the standard ones carries their hash
        if not re.fullmatch(rf"{re.escape(wanted)}(-[0-9a-f]{{6,}})?", used):
            found[wanted, names[used]] = None
    return [f"Not {wanted}: {used} stands in for it." for wanted, used in found]


def _noted(table: Table, notes: Sequence[str]) -> Table:
    return replace(table, notes=(*notes, *table.notes))


def _distinct(tables: Sequence[Table]) -> list[Table]:
    """Number titles that occur twice: programs find a table by its title."""
    seen: Counter[str] = Counter()
    named = []
    for table in tables:
        seen[table.title] += 1
        count = seen[table.title]
        named.append(table if count == 1 else replace(table, title=f"{table.title} ({count})"))
    return named
