"""One parameter at a time: its values, with all other parameters at the base configuration."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.records.identity import DRAW, MACHINE
from secli.tables import notes
from secli.tables.belonging import DERIVED, check_facts, facts, grouped, named_apart, same_data, same_protocol
from secli.tables.collect import Run, SetAside
from secli.tables.groups import Summary, averaged
from secli.tables.layout import lay_out
from secli.tables.pivot import Key, PivotColumn, TableSpec, ordered, pivoted, row_key, row_names
from secli.tables.quantities import delta_at, quantity
from secli.tables.table import Table

# What follows from a parameter, and so may differ with it.
FOLLOWING = ("options", "parameters", "test images", "lossy source")
BASE = " (base)"

Bases = dict[Key, dict[str, Any]]
"""The base value of each parameter, network by network."""


def ablation_tables(
    runs: Sequence[Run], aside: list[SetAside], parameters: Sequence[str], spec: TableSpec
) -> list[Table]:
    """Return one table per parameter: test error and Δ at each of its values, all else at the base configuration.

    Parameters are options (``model.base``) and training settings (``lr``). The base is, network by network, the value
    that most runs have of each; of several as frequent ones the registry's. ``aside`` takes the runs that differ from
    it in something else, or in two of them.

    Raises
    ------
    UnknownNameError
        On a parameter or quantity that does not exist, with the near miss.
    InputError
        When nothing is left to compare.
    """
    names = check_facts(parameters, runs, "parameter --ablate")
    rows = tuple(one for one in check_facts(spec.rows, runs, "fact --rows") if one not in names)
    kept: list[Run] = []
    bases: Bases = {}
    for network in grouped(same_data(named_apart(runs, rows), rows, aside, _keeps_apart), rows):
        same, base = _about_base(network, names, aside)
        known = facts(network[0])
        key = (network[0].trained, *(known.get(one) for one in rows))
        bases[key] = base
        kept += same
    by = (*rows, *names)
    members = [same_protocol(group, rows, aside, _keeps_apart) for group in grouped(kept, by)]
    # all configurations at once, so that Δ is averaged over the same factors in every table
    groups = averaged(members, by, aside, spec.factors, spec.tap, spec.factors)
    versions = notes.versions(kept)
    return [_table(name, rows, bases, groups, spec, versions) for name in names]


def _keeps_apart(key: str) -> str:
    return f"'--ablate' with {key} among the parameters compares them"


def _about_base(
    runs: Sequence[Run], names: Sequence[str], aside: list[SetAside]
) -> tuple[list[Run], dict[str, Any]]:
    """Return the runs of one network that differ from the base in one parameter at most, and the base."""
    free = {*DRAW, *MACHINE, *DERIVED, *FOLLOWING, *names}
    fixed = [json.dumps({k: v for k, v in facts(run).items() if k not in free}, default=str) for run in runs]
    usual = Counter(fixed).most_common(1)[0][0]
    same = [run for run, own in zip(runs, fixed, strict=True) if own == usual]
    base = {name: _base_value(same, name) for name in names}
    for run, own in zip(runs, fixed, strict=True):
        if own != usual:
            mine, others = json.loads(own), json.loads(usual)
            key = next(key for key in {**others, **mine} if mine.get(key) != others.get(key))
            reason = f"{key} {mine.get(key)}, not {others.get(key)}; {_keeps_apart(key)}"
            aside.append(SetAside(str(run.path), reason))
    inside = []
    for run in same:
        known = facts(run)
        moved = [
            f"{name} {known.get(name)}, not {base[name]}" for name in names if known.get(name) != base[name]
        ]
        if len(moved) > 1:
            reason = f"differs from the base in more than one parameter: {', '.join(moved)}"
            aside.append(SetAside(str(run.path), reason))
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
    bases: Bases,
    groups: Summary,
    spec: TableSpec,
    versions: Sequence[str],
) -> Table:
    """Return the table of one parameter: the configurations that are at the base in all others."""
    heads = (*rows, name)
    at_base = []
    for group in groups.rows:
        base = bases[row_key(group, rows)]
        unset = group.by[name] is None and base[name] is None  # the network has no such option
        if not unset and all(group.by[other] == value for other, value in base.items() if other != name):
            at_base.append(group)
    chosen = [quantity(value) for value in spec.values]
    if spec.values == TableSpec().values and groups.measure is not None:
        chosen += [quantity("delta"), *(delta_at(factor) for factor in groups.factors)]
    quantities = list({one.key: one for one in chosen}.values())
    keys = ordered([row_key(group, heads) for group in at_base], ("trained", *heads))
    names = []
    for key in keys:
        *network, value = row_names(key)
        is_base = bases[key[:-1]][name] == key[-1]
        names.append((*network, f"{value if value is not None else 'unset'}{BASE if is_base else ''}"))
    base_words = "; ".join(_base_words(key, base) for key, base in bases.items())
    more = [f"Base, the most frequent value of each parameter: {base_words}."]
    if groups.measure is not None:
        more.append(notes.measured(groups.measure, groups.measured_on))
    if any(one.at_tap for one in quantities):
        more += notes.little_compared(at_base, (*groups.mean_factors, *groups.factors))
    title = f"{spec.title or 'Ablation over ' + notes.trained_on(groups.rows)}: {name}"
    columns = [PivotColumn(one.title, one) for one in quantities]
    pivot = pivoted(title, at_base, heads, keys, columns, taps=groups.measure is not None)
    blocks = tuple(key[:-1] for key in keys)
    return lay_out(
        replace(pivot, names=tuple(names), blocks=blocks, notes=(*more, *versions)), test=spec.test
    )


def _base_words(key: Key, base: Mapping[str, Any]) -> str:
    name = ", ".join(part for part in row_names(key) if part is not None)
    return f"{name} " + ", ".join(f"{one} {value}" for one, value in base.items() if value is not None)
