"""Short names for results that tell them apart: the model, and only what else differs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from secli.provenance import origin_of_weights
from secli.records.schema import EquivarianceRecord
from secli.tables.dataset_names import called


def distinct_labels(records: Sequence[EquivarianceRecord]) -> list[str]:
    """Return one label per record: the model's name, then the details in which namesakes differ.

    Each tells where its weights come from: an untrained curve must not pass for a trained one.
    """
    infos = [info for record in records for info in (record.data, record.trained_on) if info is not None]
    details = [_details(record, called(infos)) for record in records]
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
        label if own else _with_runs(label, record)
        for label, own, record in zip(labels, told, records, strict=True)
    ]
    joined = _joined(labels, told)
    return [
        label if joined.count(label) == 1 else f"{label} #{joined[: index + 1].count(label)}"
        for index, label in enumerate(joined)
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
        [] if record.run is None else [Path(record.run).name],
    ]


def _named(record: EquivarianceRecord) -> str:
    """Return the name of a network, with its weights where they are of no run."""
    if record.trained and record.model.options.get("weights") is None:
        return record.model.name
    if not record.trained and record.pooled:
        return f"{record.model.name} (untrained, {len(record.pooled)} seeds)"
    weights = record.weights or origin_of_weights(record.model.options, record.seed)
    return f"{record.model.name} ({weights})"


def _with_runs(label: str, record: EquivarianceRecord) -> str:
    """Return a label with the run that the weights are of; of several, how many."""
    if record.trained and record.run is not None:
        return f"{label} (run {Path(record.run).name})"
    return f"{label} ({len(record.pooled)} runs)" if record.trained and record.pooled else label


def _joined(labels: Sequence[str], told: Sequence[Sequence[str]]) -> list[str]:
    return [" ".join([label, *parts]) for label, parts in zip(labels, told, strict=True)]
