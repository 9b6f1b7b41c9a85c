"""One parameter at a time: its values, with all other parameters at the base configuration."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.records.identity import DRAW, MACHINE
from secli.tables.aggregate import Row, Rows, check_left, rows_of, trained_words, version_notes
from secli.tables.belonging import DERIVED, check_facts, facts, named_apart, same_data, same_protocol
from secli.tables.collect import Run, SetAside
from secli.tables.compared import compared_notes
from secli.tables.comparison import measure_note
from secli.tables.formats import Table
from secli.tables.grid import Grid, GridColumn, accuracy_factors, filled, ordered
from secli.tables.grid_layout import lay_grid
from secli.tables.pivot import Key, Wanted, row_names
from secli.tables.quantities import Quantity, delta_at, quantity

# What follows from a parameter, and so may differ with it.
FOLLOWING = ("options", "parameters", "test images", "lossy source")
BASE = " (base)"


def ablation_tables(
    runs: Sequence[Run], aside: list[SetAside], parameters: Sequence[str], wanted: Wanted
) -> list[Table]:
    """Return one table per parameter: test error and Δ at each of its values, all else at the base configuration.

    The base is, network by network, the value that most runs have of each parameter; of several as frequent ones the
    registry's.

    Parameters
    ----------
    runs : sequence of Run
        Finished runs.
    aside : list of SetAside
        Takes the runs that differ from the base in something that is not among the parameters, or in two of them.
    parameters : sequence of str
        Options (``model.base``) and training settings (``lr``).
    wanted : Wanted
        What makes a network (``rows``), quantities, tap, factors.

    Raises
    ------
    UnknownNameError
        On a parameter or quantity that does not exist, with the near miss.
    InputError
        When nothing is left to compare.
    """
    names = check_facts(parameters, runs, "parameter --ablate")
    rows = tuple(one for one in check_facts(wanted.rows, runs, "fact --rows") if one not in names)
    runs = same_data(named_apart(runs, rows), rows, aside, _apart)
    networks: dict[Key, list[Run]] = {}
    for run in runs:
        known = facts(run)
        networks.setdefault((run.trained, *(known.get(key) for key in rows)), []).append(run)
    kept: list[Run] = []
    bases: dict[Key, dict[str, Any]] = {}
    for key, group in networks.items():
        same, bases[key] = _about_base(group, names, aside)
        kept += same
    groups: dict[Key, list[Run]] = {}
    for run in kept:
        known = facts(run)
        groups.setdefault((run.trained, *(known.get(one) for one in (*rows, *names))), []).append(run)
    members = [same_protocol(group, rows, aside, _apart) for group in groups.values()]
    check_left(members, aside)
    # all configurations at once, so that Δ is averaged over the same factors in every table
    found = rows_of(members, (*rows, *names), aside, wanted.factors, wanted.tap, wanted.factors)
    notes = version_notes(kept)
    return [_table(name, rows, bases, found, wanted, notes) for name in names]


def _apart(key: str) -> str:
    return f"'--ablate' with {key} among the parameters compares them"


def _about_base(
    group: Sequence[Run], names: Sequence[str], aside: list[SetAside]
) -> tuple[list[Run], dict[str, Any]]:
    """Return the runs of one network that differ in the parameters alone, and the base."""

    def rest(run: Run) -> str:
        known = facts(run)
        left = (*DRAW, *MACHINE, *DERIVED, *FOLLOWING, *names)
        return json.dumps({key: known[key] for key in known if key not in left}, default=str)

    usual = Counter(rest(run) for run in group).most_common(1)[0][0]
    same = []
    for run in group:
        if rest(run) == usual:
            same.append(run)
        else:
            mine, others = json.loads(rest(run)), json.loads(usual)
            key = next(key for key in {**others, **mine} if mine.get(key) != others.get(key))
            aside.append(
                SetAside(str(run.path), f"{key} {mine.get(key)}, not {others.get(key)}; {_apart(key)}")
            )
    base = {name: _base_value(same, name) for name in names}
    inside = []
    for run in same:
        known = facts(run)
        moved = [name for name in names if known.get(name) != base[name]]
        if len(moved) > 1:
            said = ", ".join(f"{name} {known.get(name)}, not {base[name]}" for name in moved)
            aside.append(SetAside(str(run.path), f"differs from the base in more than one parameter: {said}"))
        else:
            inside.append(run)
    return inside, base


def _base_value(runs: Sequence[Run], name: str) -> Any:
    """Return the most frequent value of a parameter; of several, the registry's if it is among them."""
    counts = Counter(facts(run).get(name) for run in runs).most_common()
    frequent = [value for value, count in counts if count == counts[0][1]]
    usual = _registry_value(runs[0], name)
    return usual if usual in frequent else frequent[0]


def _registry_value(run: Run, name: str) -> Any:
    option = name.removeprefix("model.")
    if option != name:
        return run.model.changed.get(option, run.model.options.get(option))
    published: Mapping[str, Any] = MODELS[run.model.name].training if run.model.name in MODELS else {}
    if name in published:
        return published[name]
    field = TrainingSettings.model_fields.get(name)
    return None if field is None else field.default


def _table(
    name: str,
    rows: tuple[str, ...],
    bases: Mapping[Key, Mapping[str, Any]],
    found: Rows,
    wanted: Wanted,
    notes: Sequence[str],
) -> Table:
    """Return the table of one parameter: the configurations that are at the base in all others."""
    placed: dict[Key, Row] = {}
    for row in found.rows:
        network = (row.trained, *(row.by[one] for one in rows))
        if row.by[name] is None and bases[network][name] is None:
            continue  # the network has no such option
        if all(row.by[other] == value for other, value in bases[network].items() if other != name):
            configuration: Key = (*network, row.by[name])
            placed[configuration] = row
    quantities = _quantities(wanted, found.factors, found.measure is not None)
    accuracies = accuracy_factors(found.rows, wanted.factors)
    keys = ordered(list(placed), ("trained", *rows, name))
    cells = {
        (index, place): filled(placed[key], one, found, accuracies)
        for index, key in enumerate(keys)
        for place, one in enumerate(quantities)
    }
    named = []
    for key in keys:
        *network_names, value = row_names(key)
        is_base = bases[key[:-1]][name] == key[-1]
        named.append((*network_names, f"{value if value is not None else 'unset'}{BASE if is_base else ''}"))
    bases_said = "; ".join(_base_words(key, base) for key, base in bases.items())
    more = [measure_note(found.measure, found.measured_on)] if found.measure is not None else []
    if any(one.at_tap for one in quantities):
        more += compared_notes(list(placed.values()), (*found.mean_factors, *found.factors))
    grid = Grid(
        f"{wanted.title or 'Ablation over ' + trained_words(found.rows)}: {name}",
        (*rows, name),
        tuple(named),
        tuple(GridColumn(one.title, one) for one in quantities),
        cells,
        taps=tuple(placed[key].tap for key in keys) if found.measure is not None else None,
        blocks=tuple(key[:-1] for key in keys),
        notes=(f"Base, the most frequent value of each parameter: {bases_said}.", *more, *notes),
    )
    return lay_grid(grid, False, wanted.test)


def _quantities(wanted: Wanted, factors: Sequence[float], measured: bool) -> list[Quantity]:
    """Return the quantities asked for, by default test error, Δ and Δ at the factors shown."""
    chosen = [quantity(value) for value in wanted.values]
    if wanted.values == Wanted().values and measured:
        chosen += [quantity("delta"), *(delta_at(factor) for factor in factors)]
    return list({one.key: one for one in chosen}.values())


def _base_words(key: Key, base: Mapping[str, Any]) -> str:
    name = ", ".join(part for part in row_names(key) if part is not None)
    return f"{name} " + ", ".join(f"{one} {value}" for one, value in base.items() if value is not None)
