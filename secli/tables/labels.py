"""Short names for results that tell them apart: the model, and only what else differs between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from secli.provenance import origin_of_weights
from secli.records.schema import EquivarianceRecord
from secli.tables.naming import called

# What can set two results of one model apart, from the most to the least telling.
# Each is told the record, and what each dataset is called among all of them.
Detail = Callable[[EquivarianceRecord, Mapping[str, str]], str]
_DETAILS: tuple[Detail, ...] = (
    lambda record, _: "" if record.trained else "untrained",
    lambda record, _: ", ".join(f"{key}={value}" for key, value in sorted(record.model.options.items())),
    lambda record, names: "" if record.trained_on is None else f"trained on {names[record.trained_on.name]}",
    lambda record, names: f"on {names[record.data.name]}",
    lambda record, _: "" if record.background == "empty" else "background kept",
    lambda record, _: "" if record.trained_on is None else f"r{record.trained_on.realisation}",
    lambda record, _: f"seed {record.seed}",
    lambda record, _: "" if record.run is None else Path(record.run).name,
)


def distinct_labels(records: Sequence[EquivarianceRecord]) -> list[str]:
    """Return one label per record: the model's name, then the details in which namesakes differ.

    Each says where its weights come from: an untrained curve must not pass for a trained one.
    """
    infos = [info for record in records for info in (record.data, record.trained_on) if info is not None]
    names = called(infos)
    labels = [_named(record) for record in records]
    details: list[list[str]] = [[] for _ in records]
    for detail in _DETAILS[1:]:
        current = _joined(labels, details)
        for label in set(current):
            group = [index for index, other in enumerate(current) if other == label]
            values = {index: _differing(detail, index, group, records, names) for index in group}
            if len(set(values.values())) > 1:
                for index in group:
                    if values[index]:
                        details[index].append(values[index])
    labels = [
        label if detail else _with_runs(label, record)
        for label, detail, record in zip(labels, details, records, strict=True)
    ]
    joined = _joined(labels, details)
    return [
        label if joined.count(label) == 1 else f"{label} #{joined[: index + 1].count(label)}"
        for index, label in enumerate(joined)
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


def _joined(labels: Sequence[str], details: Sequence[Sequence[str]]) -> list[str]:
    return [" ".join([label, *parts]) for label, parts in zip(labels, details, strict=True)]


def _differing(
    detail: Detail,
    index: int,
    group: Sequence[int],
    records: Sequence[EquivarianceRecord],
    names: Mapping[str, str],
) -> str:
    """Return the detail of one record, options reduced to those that differ within the group."""
    text = detail(records[index], names)
    if detail is not _DETAILS[1]:
        return text
    common = set.intersection(*(set(detail(records[other], names).split(", ")) for other in group))
    return ", ".join(part for part in text.split(", ") if part not in common)
