"""Short names for results that tell them apart: the model, and only what else differs between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from secli.errors import InputError
from secli.provenance import origin_of_weights
from secli.records.identity import DRAW, MACHINE
from secli.records.schema import EquivarianceRecord, read_training_record
from secli.tables.dataset_names import called


def distinct_labels(records: Sequence[EquivarianceRecord]) -> list[str]:
    """Return one label per record for tables: the model's name, then the details in which namesakes differ.

    Each tells where its weights come from: an untrained curve must not pass for a trained one.
    """
    return _numbered(_labels(records, _run_name, _with_run))


def legend_labels(
    records: Sequence[EquivarianceRecord], chosen: Mapping[str, str] | None = None
) -> list[str]:
    """Return one label per record for the legend of a figure, where no name of a run stands.

    Where only the training differs, the settings that do are told. ``chosen`` are labels by the name of a model or the
    path of a run, which win.
    """
    chosen = chosen or {}
    found = _labels(records, _trained_with, _with_count)
    labels = []
    for record, label in zip(records, found, strict=True):
        names = (record.run or "", *record.pooled, record.model.name)
        labels.append(next((chosen[name] for name in names if name in chosen), label))
    return _numbered(labels)


def _labels(
    records: Sequence[EquivarianceRecord],
    last: Callable[[EquivarianceRecord], list[str]],
    alone: Callable[[str, EquivarianceRecord], str],
) -> list[str]:
    """Return labels that may still coincide; ``last`` are the least telling details, ``alone`` what needs none says."""
    infos = [info for record in records for info in (record.data, record.trained_on) if info is not None]
    details = [[*_details(record, called(infos)), last(record)] for record in records]
    labels = list(map(_named, records))
    told: list[list[str]] = [[] for _ in records]
    for kind in range(len(details[0]) if details else 0):
        current = _joined(labels, told)
        for label in set(current):
            namesakes = [index for index, other in enumerate(current) if other == label]
            common = set.intersection(*(set(details[index][kind]) for index in namesakes))
            for index in namesakes:
                differing = ", ".join(part for part in details[index][kind] if part not in common)
                told[index] += [differing] if differing else []
    labels = [
        label if own else alone(label, record)
        for label, own, record in zip(labels, told, records, strict=True)
    ]
    return _joined(labels, told)


def _numbered(labels: Sequence[str]) -> list[str]:
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[: index + 1].count(label)}"
        for index, label in enumerate(labels)
    ]


def _details(record: EquivarianceRecord, names: Mapping[str, str]) -> list[list[str]]:
    """Return what can set two results of one model apart, from the most to the least telling kind."""
    trained_on = record.trained_on
    return [
        [f"{key}={value}" for key, value in sorted(record.model.options.items())],
        [] if trained_on is None else [f"trained on {names[trained_on.name]}"],
        [f"on {names[record.data.name]}"],
        [] if record.background == "empty" else ["background kept"],
        [] if trained_on is None else [f"r{trained_on.realisation}"],
        [f"seed {record.seed}"],
    ]


def _run_name(record: EquivarianceRecord) -> list[str]:
    return [] if record.run is None else [Path(record.run).name]


def _trained_with(record: EquivarianceRecord) -> list[str]:
    """Return the training settings of a record's run, where it still stands there."""
    if record.run is None:
        return []
    try:
        training = read_training_record(Path(record.run)).training
    except (OSError, InputError):
        return []
    return [f"{key}={value}" for key, value in training.items() if key not in (*DRAW, *MACHINE)]


def _named(record: EquivarianceRecord) -> str:
    """Return the name of a network, with its weights where they are of no run."""
    if record.trained and record.model.options.get("weights") is None:
        return record.model.name
    if not record.trained and record.pooled:
        return f"{record.model.name} (untrained, {len(record.pooled)} seeds)"
    weights = record.weights or origin_of_weights(record.model.options, record.seed)
    return f"{record.model.name} ({weights})"


def _with_run(label: str, record: EquivarianceRecord) -> str:
    """Return a label with the run that the weights are of; of several, how many."""
    if record.trained and record.run is not None:
        return f"{label} (run {Path(record.run).name})"
    return _with_count(label, record)


def _with_count(label: str, record: EquivarianceRecord) -> str:
    """Return a label with how many runs the weights are of, if several."""
    return f"{label} ({len(record.pooled)} runs)" if record.trained and record.pooled else label


def _joined(labels: Sequence[str], told: Sequence[Sequence[str]]) -> list[str]:
    return [" ".join([label, *parts]) for label, parts in zip(labels, told, strict=True)]
