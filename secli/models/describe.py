"""The description of a registered model: its real parameter count, taps with their shapes, options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.models.building import build, builder_of, count_parameters, options_schema, resolve_options
from secli.models.contract import StagedModel
from secli.models.flops import traced
from secli.models.meta_device import outline

PIXELS = 28
"""Side of the images for the description of a model of any input size."""


@dataclass(frozen=True)
class TapInfo:
    """One tap: its name, how scale acts on it, and its shape without the batch axis."""

    name: str
    field: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class OptionInfo:
    """One option of a model's builder: ``--set model.NAME=VALUE``, default, type and range in words, and
    description.
    """

    name: str
    default: Any
    allowed: str
    description: str


@dataclass(frozen=True)
class Description:
    """A model with its default options, described from the built network.

    ``flops`` are multiply–adds × 2 of the forward pass of one picture (``secli.models.flops``).
    """

    name: str
    family: str
    paper: str
    parameters: int
    flops: int
    input: tuple[int, int, int]
    taps: tuple[TapInfo, ...]
    options: tuple[OptionInfo, ...]


def describe(name: str) -> Description:
    """Describe a model with its default options; none of its weights are drawn unless its builder reads some.

    Raises
    ------
    UnknownNameError
        When no model has this name.
    """
    spec = MODELS[name]
    options = resolve_options(spec)
    try:
        model: StagedModel = outline(name).eval()
    except (NotImplementedError, RuntimeError):  # a builder of another package may read values
        model = build(name).eval()
    side = options.get("image_size", PIXELS)
    images = (options.get("in_channels", 1), side, side)
    features, flops = traced(model, images)
    taps = []
    for tap, field in model.taps.items():
        tensor = features[tap]
        # a pyramid is described by its finest level
        shape = tensor[0].shape if isinstance(tensor, list) else tensor.shape
        taps.append(TapInfo(tap, field.reads_as(), tuple(shape[1:])))
    return Description(
        name=name,
        family=spec.family,
        paper=spec.paper,
        parameters=count_parameters(model),
        flops=flops,
        input=images,
        taps=tuple(taps),
        options=describe_options(name),
    )


def describe_options(name: str) -> tuple[OptionInfo, ...]:
    """Return the options of a model, in the order of its builder's signature."""
    schema = options_schema(MODELS[name])
    defaults = resolve_options(MODELS[name])
    properties = schema.model_json_schema()["properties"]
    return tuple(
        OptionInfo(key, default, allowed_values(properties[key]), properties[key].get("description", ""))
        for key, default in defaults.items()
    )


def describe_training(name: str) -> tuple[OptionInfo, ...]:
    """Return the training settings of a model, as in its paper."""
    settings: BaseModel = TrainingSettings(**MODELS[name].training)
    properties = TrainingSettings.model_json_schema()["properties"]
    return tuple(
        OptionInfo(key, default, allowed_values(properties[key]), properties[key].get("description", ""))
        for key, default in settings.model_dump(mode="python").items()
    )


def summary(name: str) -> str:
    """Return the first paragraph of the builder's documentation, in one line."""
    documentation = inspect.getdoc(builder_of(MODELS[name])) or ""
    text = " ".join(documentation.split("\n\n")[0].split())
    return text.removeprefix("Return ")


def allowed_values(schema: dict[str, Any]) -> str:
    """Describe in words which values a JSON schema allows.

    Examples
    --------
    >>> allowed_values({"type": "integer", "minimum": 1, "maximum": 8})
    'integer, 1 to 8'
    >>> allowed_values({"enum": ["max", "mean"], "type": "string"})
    'max, mean'
    >>> allowed_values({"type": "number", "exclusiveMinimum": 1, "maximum": 8})
    'number, > 1, ≤ 8'
    """
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(allowed_values(part) for part in schema["anyOf"])
    kind = str(schema.get("type", "any"))
    if kind == "boolean":
        return "true, false"
    if kind == "array":
        return f"list of {allowed_values(schema.get('items', {}))}"
    if "minimum" in schema and "maximum" in schema:
        return f"{kind}, {schema['minimum']:g} to {schema['maximum']:g}"
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    return ", ".join([kind, *(f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)])
