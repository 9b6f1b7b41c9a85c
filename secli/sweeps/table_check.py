"""Whether the tables of a sweep have runs to show: asked of its plan, hours before they are made."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from secli.config import among
from secli.datasets.protocols import DATASETS
from secli.errors import InputError, suggestion
from secli.tables.belonging import fact_name, fact_names, readable
from secli.tables.model_names import net, size, system

if TYPE_CHECKING:
    from secli.sweeps.plan import DatasetRequest, PlannedRun
    from secli.sweeps.spec import SweptTable

LATER = frozenset({"options", "parameters", "device", "devices"})
"""Facts that only the finished run has."""

Known = Mapping[str, tuple[Any, ...]]
"""What is known of a run before it is made: a fact to its value, or to both names of a dataset."""


def check_tables(
    tables: Sequence[SweptTable],
    runs: Sequence[PlannedRun],
    unnamed: Collection[DatasetRequest],
    overridden: Collection[str],
    where: str,
) -> None:
    """Refuse a table that names what no run of the sweep has.

    Parameters
    ----------
    tables : sequence
        From the sweep's file.
    runs : sequence
        All its runs.
    unnamed : collection of DatasetRequest
        Datasets whose images, and so their name, are not known yet.
    overridden : collection of str
        Training settings that are not the file's (``--set``): its tables may still ask for the file's own.
    where : str
        What the message begins with.

    Raises
    ------
    InputError
        Naming the table and the entry, with the near miss.
    """
    known = [_known(run, run.data in unnamed) for run in runs]
    open_facts = LATER | set(overridden)
    for table in tables:
        there = f"{where}: table '{table.title}'"
        for part in ("rows", "columns", "ablate", "only"):
            _check_names(getattr(table, part), known, f"{there}: {part}")
        choices = {fact_name(key): value for key, value in table.only.items()}
        asked = {key: value for key, value in choices.items() if key not in open_facts}
        for key, value in asked.items():
            _check_value(key, value, known, f"{there}: only")
        if not any(all(_has(run, key, value) for key, value in asked.items()) for run in known):
            raise InputError(f"{there}: only: no run matches all of {table.only}")


def _known(run: PlannedRun, unnamed: bool) -> Known:
    settings = run.resolved.training.model_dump(mode="json")
    options = run.resolved.options
    single = {
        **settings,
        **{f"model.{key}": value for key, value in options.items()},
        "model": run.model.name,
        "label": run.label,
        "tag": run.tag,
        "realisation": run.data.realisation,
        "system": system(run.model.name),
        "net": net(run.model.name),
        "size": size(run.model.name, options),
    }
    known = {key: (readable(value),) for key, value in single.items() if key not in LATER}
    if unnamed:
        return known
    spec = DATASETS[run.data.name]
    folder = spec.folder(spec.parameters(run.data.factors, run.data.sizes, run.data.image_size))
    return {**known, "dataset": (run.data.name, folder)}


def _has(run: Known, key: str, choices: Any) -> bool:
    """Say whether a run has a value; a dataset whose name is not known yet may have any."""
    if key == "dataset" and key not in run:
        return True
    return any(among(value, choices) for value in run.get(key, (None,)))


def _check_names(keys: Collection[str], known: Sequence[Known], where: str) -> None:
    names = {*fact_names(), *(name for run in known for name in run)}
    for key in keys:
        if fact_name(key) not in names:
            raise InputError(f"{where}: no run has '{key}'{suggestion(fact_name(key), names)}")


def _check_value(key: str, choices: Any, known: Sequence[Known], where: str) -> None:
    """Refuse a value, or one of a list, that no run has."""
    for choice in choices if isinstance(choices, list | tuple) else (choices,):
        if not any(_has(run, key, choice) for run in known):
            values = {str(value) for run in known for value in run.get(key, ())}
            raise InputError(f"{where}: no run has {key} {choice}{suggestion(str(choice), values)}")
