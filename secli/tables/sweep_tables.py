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
from secli.tables.belonging import fact_name, facts, named_apart
from secli.tables.collect import Run, SetAside, collect
from secli.tables.compare import aside_table, compare, grouped_aside
from secli.tables.dataset_names import called
from secli.tables.factor_curves import curve_tables
from secli.tables.groups import summarise
from secli.tables.model_names import net, size, system
from secli.tables.pivot import TableSpec, pivot_tables
from secli.tables.published import load_published
from secli.tables.table import Column, Table

# what a planned run's data are called in the sweep's file; no fact of a run, so no table can ask for it
_SWEPT = "swept dataset"
# <dataset>-r<realisation>-s<seed>-<key>, the name of a run's directory in a sweep
_FOLDER = re.compile(r"^(?P<dataset>.+)-r(?P<realisation>\d+)-s(?P<seed>\d+)-[0-9a-f]+$")


def sweep_tables(directory: Path) -> list[Table]:
    """Return the tables of a sweep's directory, of what is finished in it.

    They are those that its file names, each with notes on runs that are missing and on datasets that stand in for
    others, or the flat comparison; at the end stands what was set aside.

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
    aside = [one for one in aside if Path(one.path).resolve() in listed or Path(one.path).name == SWEEP_FILE]
    notes = (*_stand_in_notes(runs), *_missing_notes(directory, record, {run.path.resolve() for run in runs}))
    planned = _named_as_found([_planned(one) for one in record.runs], runs)
    tables = [table for spec in record.tables for table in _named_tables(spec, runs, aside, planned)]
    others: tuple[Table, ...] = ()
    if not record.tables:
        comparison = compare(summarise([run.path for run in runs]))
        tables, others = [comparison.main], comparison.others
        aside += comparison.summary.set_aside
    tables = [replace(table, notes=(*notes, *table.notes)) for table in tables]
    rest = aside_table(grouped_aside(list(dict.fromkeys(aside))))
    return _distinct([*tables, *others, *([rest] if rest is not None else [])])


def _named_tables(
    entry: Mapping[str, Any], runs: Sequence[Run], aside: list[SetAside], planned: Sequence[Mapping[str, Any]]
) -> list[Table]:
    """Return what one entry of ``tables`` in a sweep's file asks for."""
    spec = TableSpec(
        rows=tuple(entry.get("rows") or ("model",)),
        columns=tuple(entry.get("columns") or ()),
        values=tuple(entry.get("values") or ("test_error",)),
        title=entry["title"],
        tap=entry.get("tap") or entry.get("depth"),
        factors=tuple(entry.get("factors") or ()) or None,
        ranks=bool(entry.get("ranks")),
        test=entry.get("test") or "t",
    )
    published = load_published() if entry.get("published") else None
    only: Mapping[str, Any] = entry.get("only") or {}
    chosen = [part for run in runs if (part := _matching(run, only)) is not None]
    lacking = [one for one in planned if could_match(one, only)]
    if not chosen:
        return [_empty(spec, "No finished run belongs into this table.")]
    try:
        if entry.get("ablate"):
            return ablation_tables(chosen, aside, entry["ablate"], spec)
        tables = curve_tables if entry.get("curves") else pivot_tables
        return tables(chosen, aside, spec, published, lacking)
    except InputError as error:  # one table that cannot be made must not take the others with it
        return [_empty(spec, f"This table cannot be made: {error}.")]


def _empty(spec: TableSpec, note: str) -> Table:
    return Table(spec.title or "", tuple(Column(row, row, text=True) for row in spec.rows), (), (note,))


def _matching(run: Run, only: Mapping[str, Any]) -> Run | None:
    """Return a run with those of its names that match; None where none does.

    Its data match by their own name, or by the one that the sweep's file gives them.
    """
    folder = _FOLDER.match(run.path.name)
    parts = []
    for part in named_apart([run], ("label", "tag")):
        known = facts(part)
        swept = known if folder is None else {**known, "dataset": folder["dataset"]}
        if matches(known, only) or matches(swept, only):
            parts.append(part)
    return replace(run, names=tuple(name for part in parts for name in part.names)) if parts else None


def matches(known: Mapping[str, Any], only: Mapping[str, Any]) -> bool:
    """Say whether facts match every key of an entry, as in a sweep's exclusions; patterns and lists are allowed."""
    return all(among(known.get(fact_name(key)), allowed) for key, allowed in only.items())


def could_match(known: Mapping[str, Any], only: Mapping[str, Any]) -> bool:
    """Say whether a run of which only some facts are known may match; its data by either of their names."""
    return all(
        fact_name(key) not in known
        or among(known[fact_name(key)], allowed)
        or (fact_name(key) == "dataset" and among(known.get(_SWEPT), allowed))
        for key, allowed in only.items()
    )


def _planned(one: SweptRun) -> dict[str, Any]:
    """Return the facts of a run that its entry in the sweep tells, finished or not."""
    names = {"model": one.model, "label": one.label, "tag": one.tag}
    known: dict[str, Any] = {**names, "system": system(one.model), "net": net(one.model)}
    side = size(one.model, {})
    known |= {"size": side} if side is not None else {}
    if folder := _FOLDER.match(Path(one.run).name):
        numbers = {key: int(folder[key]) for key in ("realisation", "seed")}
        known |= {"dataset": folder["dataset"], _SWEPT: folder["dataset"], **numbers}
    return known


def _named_as_found(planned: Sequence[dict[str, Any]], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Call the data of planned runs as the finished runs have them: with the hash of other sizes, or a stand-in's.

    Where runs on several sets share a name in the sweep's file, a planned run does not tell which is its own.
    """
    found: dict[str, set[str]] = {}
    for run in runs:
        folder = _FOLDER.match(run.path.name)
        if folder is not None and run.trained_on is not None:
            found.setdefault(folder["dataset"], set()).add(run.trained_on.name)
    named = []
    for one in planned:
        names = found.get(one.get(_SWEPT, ""), set())
        rest = {key: value for key, value in one.items() if key != "dataset" or not names}
        named.append({**rest, "dataset": next(iter(names))} if len(names) == 1 else rest)
    return named


def _missing_notes(directory: Path, record: SweepRecord, finished: set[Path]) -> list[str]:
    """Count what is the matter with each run that is not finished."""
    states: Counter[str] = Counter()
    for run in dict.fromkeys((directory / one.run).resolve() for one in record.runs):
        if run in finished:
            continue
        try:
            found = read_record(run / RECORD_FILE)
            states[found.status if isinstance(found, TrainingRecord) else "damaged"] += 1
        except InputError:
            states["damaged" if (run / RECORD_FILE).is_file() else "not begun"] += 1
    if not states:
        return []
    total = len({one.key for one in record.runs})
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    return [f"Missing: {states.total()} of {total} runs of the sweep ({counts})."]


def _stand_in_notes(runs: Sequence[Run]) -> list[str]:
    """Name the datasets that were trained on in place of those that the sweep's file names."""
    found: dict[tuple[str, str], None] = {}
    names = called(run.trained_on for run in runs if run.trained_on is not None)
    for run in runs:
        folder = _FOLDER.match(run.path.name)
        if folder is None or run.trained_on is None:
            continue
        swept, used = folder["dataset"], run.trained_on.name
        # a set with other parameters than the standard ones carries their hash
        if not re.fullmatch(rf"{re.escape(swept)}(-[0-9a-f]{{6,}})?", used):
            found[swept, names[used]] = None
    return [f"Not {swept}: {used} stands in for it." for swept, used in found]


def _distinct(tables: Sequence[Table]) -> list[Table]:
    """Number titles that occur twice: programs find a table by its title."""
    seen: Counter[str] = Counter()
    named = []
    for table in tables:
        seen[table.title] += 1
        count = seen[table.title]
        named.append(table if count == 1 else replace(table, title=f"{table.title} ({count})"))
    return named
