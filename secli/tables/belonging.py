"""Which runs may be averaged: those that differ in seed, realisation and machine, and in nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from secli.config import TrainingSettings
from secli.errors import UnknownNameError
from secli.records.identity import DRAW, MACHINE, network_facts, reading_facts, settings_of
from secli.tables.collect import Name, Run, SetAside
from secli.tables.dataset_names import called, with_realisations
from secli.tables.model_names import net, size, system

UNKNOWN = "unknown"
# What follows from the rest, or is a sweep's name for it: it parts rows on request, and never keeps runs out of one.
DERIVED = ("label", "tag", "size", "system", "net")
# What is never a fact of its own for a reader to group by.
_HIDDEN = ("trained", "test images", "lossy source")
ALIASES = {"augmentation": "augment", "training.augmentation": "augment"}

KeepsApart = Callable[[str], str]
"""From the name of a fact to the option that would keep runs apart by it."""

T = TypeVar("T")


def facts(run: Run) -> dict[str, Any]:
    """Return all that sets a run apart, by the names that ``--by`` takes."""
    network = {
        key: readable(value) for key, value in network_facts(run.model, run.training, run.trained_on).items()
    }
    known: dict[str, Any] = {
        "model": run.called,
        "trained": run.trained,
        "dataset": network["dataset"],
        "realisation": run.realisation,
        "seed": run.seed,
        "options": network["options"],
        "parameters": network["parameters"],
    }
    known |= {key: value for key, value in network.items() if key.startswith("model.")}
    settings = None if run.settings is None else settings_of(run.settings)
    for key in TrainingSettings.model_fields:
        if key not in known:
            known[key] = readable(settings[key]) if settings is not None else UNKNOWN if run.trained else None
    known |= {key: network[key] for key in ("test images", "lossy source") if key in network}
    label, tag = run.names[0] if run.names else (run.model.name, None)
    derived = (
        label,
        tag,
        size(run.model.name, run.model.options),
        system(run.model.name),
        net(run.model.name),
    )
    return {**known, **dict(zip(DERIVED, derived, strict=True))}


def groupings(runs: Sequence[Run]) -> list[str]:
    """Return the names that ``--by`` takes for these runs."""
    return list(dict.fromkeys(key for run in runs for key in facts(run) if key not in _HIDDEN))


def fact_name(key: str) -> str:
    """Return the name of a fact as ``facts`` has it; a sweep's file writes ``training.lr`` for ``lr``.

    Examples
    --------
    >>> fact_name("training.lr"), fact_name("augmentation"), fact_name("model.base")
    ('lr', 'augment', 'model.base')
    """
    return ALIASES.get(key, key.removeprefix("training."))


def fact_names() -> list[str]:
    """Return the facts that some run could have, options of models apart."""
    fixed = ("model", "dataset", "realisation", "seed", "options", "parameters", *DERIVED)
    return [*fixed, *(key for key in TrainingSettings.model_fields if key not in fixed)]


def known_fact(key: str) -> bool:
    """Say whether some run could have a fact of this name, before there is any run."""
    key = fact_name(key)
    return key in fact_names() or (key.startswith("model.") and key != "model.")


def check_facts(keys: Sequence[str], runs: Sequence[Run], option: str) -> tuple[str, ...]:
    """Return the facts' own names, each once, or raise on one that no run has.

    Raises
    ------
    UnknownNameError
        With the near miss.
    """
    known = groupings(runs)
    found = [fact_name(key) for key in keys]
    for key in found:
        if key not in known:
            raise UnknownNameError(option, key, known)
    return tuple(dict.fromkeys(found))


def named_apart(runs: Sequence[Run], keys: Sequence[str]) -> list[Run]:
    """Return each run once per name that sweeps give it, as far as the label, the tag or both are asked for."""
    asked = [place for place, key in enumerate(("label", "tag")) if key in keys]
    if not asked:
        return list(runs)
    apart = []
    for run in runs:
        names: dict[Hashable, Name] = {}
        for name in run.names or ((run.model.name, None),):
            names.setdefault(tuple(name[place] for place in asked), name)
        apart += [replace(run, names=(name,)) for name in names.values()]
    return apart


def check_by(by: Sequence[str], runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the grouping with the model in front (rows never mix models), or raise on an unknown name.

    Raises
    ------
    UnknownNameError
        With the near miss.
    """
    known = groupings(runs)
    for key in by:
        if key not in known:
            raise UnknownNameError("grouping --by", key, known)
    return tuple(dict.fromkeys(("model", *by)))


def grouped(runs: Sequence[Run], by: Sequence[str]) -> list[list[Run]]:
    """Return the runs of each row, in order of first appearance; trained and fresh networks never share one."""
    rows: dict[Hashable, list[Run]] = {}
    for run in runs:
        known = facts(run)
        rows.setdefault((run.trained, *(known.get(key) for key in by)), []).append(run)
    return list(rows.values())


def same_data(
    runs: Sequence[Run], by: Sequence[str], aside: list[SetAside], keeps_apart: KeepsApart | None = None
) -> list[Run]:
    """Keep the runs on one set of images: one data set (unless ``by`` parts them) with one content per realisation."""
    kept = list(runs)
    hint = keeps_apart("dataset") if keeps_apart is not None else "'--by model,dataset' keeps them apart"
    if "dataset" not in by:
        names = called(run.trained_on for run in runs if run.trained_on is not None)

        def name(run: Run) -> str | None:
            return names[run.trained_on.name] if run.trained_on is not None else None

        kept = _majority(
            kept, name, lambda run, chosen: f"trained on {name(run)}, not {chosen}; {hint}", aside
        )
    contents: dict[tuple[str, int], list[Run]] = {}
    for run in kept:
        if run.trained_on is not None:
            contents.setdefault((run.trained_on.name, run.trained_on.realisation), []).append(run)
    wrong = {id(run) for sharing in contents.values() for run in _other_content(sharing, aside)}
    return [run for run in kept if id(run) not in wrong]


def _other_content(sharing: Sequence[Run], aside: list[SetAside]) -> list[Run]:
    """Set aside the runs whose images differ from most of those that go by the same name and realisation."""
    right = _majority(
        sharing,
        lambda run: run.trained_on.digest if run.trained_on is not None else None,
        lambda run, _: (
            f"its data ({_data_name(run)}) holds other images under the same name: the digest differs"
        ),
        aside,
    )
    return [run for run in sharing if run not in right]


def _data_name(run: Run) -> str:
    return "" if run.trained_on is None else with_realisations([run.trained_on])


def same_protocol(
    runs: Sequence[Run], by: Sequence[str], aside: list[SetAside], keeps_apart: KeepsApart | None = None
) -> list[Run]:
    """Keep the runs of one row that were made the same way, each draw once; the majority decides what that is."""

    def protocol(run: Run) -> str:
        known = facts(run)
        kept = {key: known[key] for key in known if key not in (*DRAW, *MACHINE, *DERIVED)}
        return json.dumps(kept, default=str)

    apart = keeps_apart or (lambda key: f"'--by {','.join((*by, key))}' keeps them apart")
    chosen = _chosen(runs, protocol)
    model = next(run for run in runs if protocol(run) == chosen)
    kept: dict[tuple[int, int | None], Run] = {}
    for run in runs:
        if protocol(run) != chosen:
            aside.append(SetAside(str(run.path), _difference(facts(run), facts(model), apart)))
            continue
        first = kept.setdefault((run.seed, run.realisation), run)
        if first is not run:
            aside.append(SetAside(str(run.path), _repetition(run, first)))
    return list(kept.values())


def _repetition(run: Run, first: Run) -> str:
    if run.called != run.model.name:
        return f"the same weights as in {first.path}, which is counted once"
    where = "" if run.realisation is None else f" on r{run.realisation}"
    return f"repeats seed {run.seed}{where}, which {first.path} stands for{_otherwise(run, first)}"


def _otherwise(run: Run, first: Run) -> str:
    """Say how the curves of a repetition were measured otherwise than those that stand in the table."""
    if run.curves is None or first.curves is None:
        return ""
    pairs = zip(reading_facts(run.curves), reading_facts(first.curves), strict=True)
    differences = [f"{name} {own}, not {other}" for (name, own), (_, other) in pairs if own != other]
    return f"; measured otherwise: {', '.join(differences)}" if differences else ""


def _difference(found: Mapping[str, Any], chosen: Mapping[str, Any], keeps_apart: KeepsApart) -> str:
    """Say in what a run differs from those that are averaged."""
    keys = [
        key
        for key in dict.fromkeys((*chosen, *found))
        if key not in (*DRAW, *MACHINE, *DERIVED, "options")
        and found.get(key, UNKNOWN) != chosen.get(key, UNKNOWN)
    ]
    if all(found.get(key, UNKNOWN) == UNKNOWN for key in keys):
        return "its training settings are unknown: give the run directory, not the result alone"
    said = ", ".join(f"{key} {found.get(key, 'unset')}, not {chosen.get(key, 'unset')}" for key in keys[:4])
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    apart = next((key for key in keys if key not in ("parameters", "test images", "lossy source")), None)
    hint = f"; {keeps_apart(apart)}" if apart is not None else ""
    return said + more + hint


def _majority(
    runs: Sequence[Run],
    key: Callable[[Run], Hashable],
    reason: Callable[[Run, Hashable], str],
    aside: list[SetAside],
) -> list[Run]:
    """Keep the runs that share the most frequent key; those without one (fresh networks) stay."""
    keyed = [run for run in runs if key(run) is not None]
    if not keyed:
        return list(runs)
    chosen = _chosen(keyed, key)
    for run in keyed:
        if key(run) != chosen:
            aside.append(SetAside(str(run.path), reason(run, chosen)))
    return [run for run in runs if key(run) in (None, chosen)]


def _chosen(runs: Sequence[Run], key: Callable[[Run], T]) -> T:
    """Return the most frequent key, the first of equals."""
    return Counter(key(run) for run in runs).most_common(1)[0][0]


def readable(value: Any) -> Any:
    """Return a hashable form of an option or setting that reads well."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={readable(part)}" for key, part in sorted(value.items())) or "defaults"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(str(part) for part in value) + "]"
    return value
