"""What makes two runs the same, what may be averaged, and what a table must keep apart: decided here and nowhere else.

Resuming asks it, and sweeps, pooling, comparisons and reports do. What a record leaves open because it is older than
an option or a setting is taken as the default does it. Nothing here asks a builder for its defaults, which needs
torch: a record says which of its options differ from the registry's, and so tells the defaults of all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from secli.catalogue import MODELS
from secli.config import MeasureSettings, TrainingSettings, settings_hash
from secli.records.schema import DataInfo, EquivarianceRecord, ModelInfo, TrainingRecord

DRAW = ("seed", "realisation")
"""What differs between runs that are averaged: the random draw."""

MACHINE = ("device", "devices", "threads")
"""What did the work: runs of one row may differ in it."""

OPEN = ("auto", 0)
"""Values of a machine's settings that leave the choice open."""

BEFORE = "before this setting"
"""What stands for a setting whose older meaning none of its values has."""

Defaults = Mapping[str, Mapping[str, Any]]
"""Of options, by model and option."""


class Difference(NamedTuple):
    """One setting in which a run differs from what is asked for."""

    name: str
    asked: Any
    recorded: Any


def told_defaults(models: Iterable[ModelInfo]) -> Defaults:
    """Return the defaults that some records tell of the options of registered models."""
    defaults: dict[str, dict[str, Any]] = {}
    for model in models:
        if model.name in MODELS.own and "changed" in model.model_fields_set:
            known = defaults.setdefault(model.name, {})
            for key, value in model.options.items():
                known.setdefault(key, model.changed.get(key, value))
    return defaults


def completed(model: ModelInfo, defaults: Defaults) -> ModelInfo:
    """Return a record's model with the options that are newer than it."""
    known = defaults.get(model.name, {})
    if not known.keys() - model.options.keys():
        return model
    return model.model_copy(update={"options": {**known, **model.options}})


def settings_of(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded training settings, with those that are newer than the record."""
    settings = {**_usual_training(), **recorded}
    if outdated(recorded):
        settings["centre"] = BEFORE
    return settings


def measured_as(record: EquivarianceRecord) -> dict[str, Any]:
    """Return how curves were measured; how many images went through at once says nothing about it."""
    measure = {**_usual_measure(), **record.measure, "metric": record.metric, "background": record.background}
    measure["surround"] = measure["surround"] or "black"  # in records older than the setting
    del measure["batch"]
    return measure


def reading_facts(record: EquivarianceRecord) -> tuple[tuple[str, Any], ...]:
    """Return all that must agree before two readings of Δ may be averaged or compared in a table, as (name, value)."""
    images = max([row.n for row in record.rows] + [row.n for row in record.accuracy], default=0)
    size = "as stored" if record.data.resized is None else "×".join(map(str, record.data.resized))
    how = measured_as(record)
    return (
        ("metric", record.metric),
        ("background", record.background),
        ("data", record.data.name),
        ("images", images),
        ("size", size),
        *((name, how[name]) for name in ("border", "surround", "margin", "smallest_plane")),
    )


@cache
def _usual_training() -> Mapping[str, Any]:
    """Return the defaults of all settings; tables ask for them with every fact of every run."""
    return TrainingSettings().model_dump(mode="json")


@cache
def _usual_measure() -> Mapping[str, Any]:
    return MeasureSettings().model_dump(mode="json")


def outdated(training: Mapping[str, Any]) -> str | None:
    """Say what of recorded settings means something else today; None: nothing.

    ``augment: scale`` rescaled about the picture's centre, with the cubic kernel of a = −3/4, before ``centre`` was a
    setting.
    """
    if training.get("augment") == "scale" and "centre" not in training:
        return "the scale augmentation of an older secli, whose kernel and centre were others"
    return None


def network_facts(
    model: ModelInfo, training: TrainingRecord | None, trained_on: DataInfo | None
) -> dict[str, Any]:
    """Return all that sets a network apart from others, whatever drew it and wherever it was made.

    Runs whose facts are equal are runs of one network: their values may be averaged. A fact is named as ``--by`` has
    it: ``dataset``, ``model.base``, ``lr``.
    """
    facts: dict[str, Any] = {
        "model": model.name,
        "dataset": trained_on.name if trained_on is not None else None,
    }
    facts |= {"options": model.options, "parameters": model.parameters}
    facts |= {f"model.{key}": value for key, value in model.options.items()}
    if training is not None:
        settings = settings_of(training.training)
        facts |= {key: value for key, value in settings.items() if key not in (*DRAW, *MACHINE)}
        facts["lossy source"] = training.data.lossy
        if training.results is not None:
            facts["test images"] = training.results.test_images
    return facts


def pooling_key(
    record: EquivarianceRecord, training: TrainingRecord | None, defaults: Defaults | None = None
) -> str:
    """Return a key that curves share which may be averaged: of one network, measured alike on the same kind of images.

    Parameters
    ----------
    record : EquivarianceRecord
        What was measured.
    training : TrainingRecord, optional
        The run that the weights come from.
    defaults : mapping, optional
        Of options that are newer than some of the records.
    """
    trained_on = training.data if training is not None else None
    network = network_facts(completed(record.model, defaults or {}), training, trained_on)
    return settings_hash({"network": network, "measure": measured_as(record), "images": record.data.name})


def training_differences(
    model: str,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    record: TrainingRecord,
    defaults: Mapping[str, Any],
) -> list[Difference]:
    """Return in what a recorded run differs from what is asked for; none: going on with it gives what is asked for.

    Parameters
    ----------
    model : str
        Its registry name.
    options, settings : mapping
        Of the model and of its training, resolved. A setting of the machine that is left out or open does not differ.
    record : TrainingRecord
        Of the run.
    defaults : mapping
        The registry's of the model's options, for those that are newer than the record.
    """
    if record.model.name != model:
        return [Difference("model", model, record.model.name)]
    found = settings_of(record.training)
    ignored = {key for key in MACHINE if settings.get(key, "auto") in OPEN}
    pairs = {
        f"model.{key}": pair for key, pair in _pairs(options, {**defaults, **record.model.options}).items()
    }
    pairs |= {f"training.{key}": pair for key, pair in _pairs(settings, found).items() if key not in ignored}
    return [Difference(name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]


def _pairs(asked: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (asked.get(key), recorded.get(key)) for key in sorted(asked.keys() | recorded.keys())}


def measured_like(record: EquivarianceRecord, settings: MeasureSettings, images: str | None) -> bool:
    """Say whether curves were measured as some settings ask, on images of this digest (None: on any)."""
    found, asked = measured_as(record), settings.model_dump(mode="json", exclude={"batch"})
    asked["surround"] = asked["surround"] or found["surround"]  # left open, the pictures decide
    return found == asked and images in (None, record.data.digest)
