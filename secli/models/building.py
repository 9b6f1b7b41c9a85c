"""From a registry name and options to a network with its weights drawn from a seed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, create_model
from pydantic_core import to_jsonable_python
from torch import nn

from secli.catalogue.models import MODELS, ModelSpec
from secli.config import Settings, validated
from secli.errors import InputError, SecliError
from secli.models.contract import Model, StagedModel

Builder = Callable[..., StagedModel]


def builder_of(spec: ModelSpec) -> Builder:
    """Import the builder that a specification names (``"module:function"``)."""
    module, _, function = spec.builder.partition(":")
    try:
        builder: Builder = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SecliError(f"model {spec.name}: its builder {spec.builder} cannot be loaded: {error}") from None
    return builder


class _Options(Settings):
    """Options of a model: its defaults are checked like the user's values."""

    model_config = ConfigDict(validate_default=True)


def options_schema(spec: ModelSpec) -> type[BaseModel]:
    """Return the pydantic schema of a model's options, read from its builder's signature and cached."""
    known = _SCHEMAS.get(spec.name)
    if known is None or known[0] is not spec:
        known = _SCHEMAS[spec.name] = spec, _schema(spec)
    return known[1]


_SCHEMAS: dict[str, tuple[ModelSpec, type[BaseModel]]] = {}
"""By the model's name, with the specification: another one of the same name has another schema."""


def _schema(spec: ModelSpec) -> type[BaseModel]:
    builder = builder_of(spec)
    hints = get_type_hints(builder, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(builder).parameters.items():
        default = spec.options.get(name, parameter.default)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        fields[name] = (hints.get(name, Any), ... if default is inspect.Parameter.empty else default)
    return create_model(f"{spec.name}_options", __base__=_Options, **fields)


def resolve_options(spec: ModelSpec, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all options of a model: the builder's defaults, the catalogue's, then the user's.

    Raises
    ------
    InputError
        On an unknown option (with the closest name) or a value out of range.
    """
    settings = validated(options_schema(spec), overrides or {}, f"model {spec.name}")
    return settings.model_dump(mode="python")


@cache
def usual_options(model: str) -> Mapping[str, Any]:
    """Return a model's options as its catalogue entry has them, as JSON has them; not to be changed."""
    usual: dict[str, Any] = to_jsonable_python(resolve_options(MODELS[model]))
    return usual


def build(name: str, options: Mapping[str, Any] | None = None, seed: int = 0) -> StagedModel:
    """Build a registered model in training mode, on the CPU, in float32, its weights drawn from ``seed``.

    The caller's random state is restored.

    Raises
    ------
    UnknownNameError
        When no model has this name.
    InputError
        When an option is unknown or out of range, or two options contradict each other.
    SecliError
        When the builder, of another package, cannot be loaded or returns no network of the contract.
    """
    spec = MODELS[name]
    resolved = resolve_options(spec, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: object = builder_of(spec)(**resolved)
        except ValueError as error:
            raise InputError(f"model {name}: {error}") from None
    if not isinstance(model, nn.Module) or not isinstance(model, Model):
        raise SecliError(
            f"model {name}: its builder returned {type(model).__name__}, not a network with taps, stages and features"
        )
    return cast("StagedModel", model)


def count_parameters(model: nn.Module) -> int:
    """Return the number of learned parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
