"""A network by what the user calls it: a run directory, or a name of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secli.catalogue import MODELS
from secli.errors import InputError, suggestion
from secli.models.building import build, count_parameters, resolve_options
from secli.models.contract import StagedModel
from secli.records import RECORD_FILE, ModelInfo, TrainingRecord
from secli.training.run import load_model as load_run


@dataclass(frozen=True)
class Subject:
    """A network and where it comes from.

    Attributes
    ----------
    model
        In eval mode.
    info
        What a record says about it.
    seed
        Seed of its run, or of its fresh weights.
    run, record
        The run directory and its record; None for freshly initialised weights.
    """

    model: StagedModel
    info: ModelInfo
    seed: int
    run: Path | None = None
    record: TrainingRecord | None = None


def load_subject(target: str, options: Mapping[str, Any] | None = None, seed: int = 0) -> Subject:
    """Load a trained network from its run directory, or build a registered one with fresh weights.

    Parameters
    ----------
    target : str
        A directory that ``secli train`` wrote, or a registry name.
    options : mapping, optional
        Model options, for a registry name only.
    seed : int
        Seed of fresh weights.

    Raises
    ------
    InputError
        When ``target`` is neither (the near miss is suggested), or the run is damaged or unfinished.
    """
    run = Path(target)
    if target in MODELS:
        model = build(target, options, seed).eval()
        resolved = resolve_options(MODELS[target], options)
        return Subject(
            model, ModelInfo(name=target, options=resolved, parameters=count_parameters(model)), seed
        )
    if not run.is_dir():
        near = suggestion(target, MODELS)
        raise InputError(f"'{target}' is neither a run directory nor a registered model{near}")
    if not (run / RECORD_FILE).exists():
        raise InputError(f"{run}: no {RECORD_FILE} in it; is this a run directory that 'secli train' wrote?")
    if options:
        raise InputError(f"{run}: the options of a trained network are those of its run; leave --set out")
    trained, record = load_run(run)
    return Subject(trained, record.model, int(record.training["seed"]), run, record)


def load_model(target: str | Path, *, options: Mapping[str, Any] | None = None, seed: int = 0) -> StagedModel:
    """Return a network in eval mode, from a run directory or by registry name.

    Parameters
    ----------
    target : str or Path
        A directory that ``secli train`` wrote, or a registry name.
    options : mapping, optional
        Model options, for a registry name only.
    seed : int
        Seed of fresh weights.

    Raises
    ------
    InputError
        When ``target`` is neither, or the run is damaged or unfinished.
    """
    return load_subject(str(target), options, seed).model
