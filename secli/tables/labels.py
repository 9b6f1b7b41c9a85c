"""Short names for results that tell them apart: the model, and only what else differs between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from secli.records import DataInfo, EquivarianceRecord
from secli.tables.naming import called

# What can set two results of one model apart, from the most to the least telling.
_DETAILS: tuple[Callable[[EquivarianceRecord], str], ...] = (
    lambda record: "" if record.trained else "untrained",
    lambda record: ", ".join(f"{key}={value}" for key, value in sorted(record.model.options.items())),
    lambda record: "" if record.trained_on is None else f"trained on {_called(record.trained_on)}",
    lambda record: f"on {_called(record.data)}",
    lambda record: "" if record.background == "empty" else "background kept",
    lambda record: "" if record.trained_on is None else f"r{record.trained_on.realisation}",
    lambda record: f"seed {record.seed}",
    lambda record: "" if record.run is None else Path(record.run).name,
)


def _called(info: DataInfo) -> str:
    return called([info])[info.name]


def distinct_labels(records: Sequence[EquivarianceRecord]) -> list[str]:
    """Return one label per record: the model's name, then the details in which namesakes differ.

    Untrained networks always say so: an untrained curve must not pass for a trained one.
    """
    labels = [record.model.name + ("" if record.trained else " (untrained)") for record in records]
    details: list[list[str]] = [[] for _ in records]
    for detail in _DETAILS[1:]:
        current = _joined(labels, details)
        for label in set(current):
            group = [index for index, other in enumerate(current) if other == label]
            values = {index: _differing(detail, index, group, records) for index in group}
            if len(set(values.values())) > 1:
                for index in group:
                    if values[index]:
                        details[index].append(values[index])
    joined = _joined(labels, details)
    return [
        label if joined.count(label) == 1 else f"{label} #{joined[: index + 1].count(label)}"
        for index, label in enumerate(joined)
    ]


def _joined(labels: Sequence[str], details: Sequence[Sequence[str]]) -> list[str]:
    return [" ".join([label, *parts]) for label, parts in zip(labels, details, strict=True)]


def _differing(
    detail: Callable[[EquivarianceRecord], str],
    index: int,
    group: Sequence[int],
    records: Sequence[EquivarianceRecord],
) -> str:
    """Return the detail of one record, options reduced to those that differ within the group."""
    text = detail(records[index])
    if detail is not _DETAILS[1]:
        return text
    common = set.intersection(*(set(detail(records[other]).split(", ")) for other in group))
    return ", ".join(part for part in text.split(", ") if part not in common)
