"""What a record leaves open because it is older than an option or a setting: it did as the default does.

Nothing here asks a builder for its defaults, which needs torch: a record says which of its options differ from the
registry's, and so tells the defaults of all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from secli.catalogue.models import MODELS
from secli.config import TrainingSettings
from secli.records.schema import ModelInfo

BEFORE = "before this setting"
"""What stands for a setting whose older meaning none of its values has."""

Defaults = Mapping[str, Mapping[str, Any]]
"""Of options, by model and option."""


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
    settings = {**_usual(), **recorded}
    if outdated(recorded):
        settings["centre"] = BEFORE
    return settings


@cache
def _usual() -> Mapping[str, Any]:
    """Return the defaults of all settings; tables ask for them with every fact of every run."""
    return TrainingSettings().model_dump(mode="json")


def outdated(training: Mapping[str, Any]) -> str | None:
    """Say what of recorded settings means something else today; None: nothing.

    ``augment: scale`` rescaled about the picture's centre, with the cubic kernel of a = −3/4, before ``centre`` was a
    setting.
    """
    if training.get("augment") == "scale" and "centre" not in training:
        return "the scale augmentation of an older secli, whose kernel and centre were others"
    return None
