"""A network by the user's target: a run directory, a name of the registry, or an external one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from secli.catalogue import MODELS
from secli.errors import InputError, suggestion
from secli.external.load import is_external, load_external, own_name, weights_record
from secli.external.weights import STATE_ALONE, load_foreign_weights
from secli.models.building import build, count_parameters, resolve_options
from secli.models.contract import Model
from secli.provenance import names_a_file, origin_of_weights, sha256_file
from secli.records.schema import RECORD_FILE, ModelInfo, TrainingRecord
from secli.storage.leftovers import tidy
from secli.training.checkpoint import WEIGHTS_FILE
from secli.training.run import load_run
from secli.weights.store import published_run


@dataclass(frozen=True)
class Foreign:
    """The user's description of a network outside the registry: arguments of :func:`secli.external.load.load_external`.

    Without ``taps`` they are the outermost feature maps; ``check_taps`` is not needed for a list of taps.
    """

    taps: Sequence[str] | None = None
    fields: Sequence[str] = ()
    input_shape: tuple[int, int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    weights: str | None = None
    state: str | None = None
    offline: bool = False
    check_taps: bool = True


_NOTHING = Foreign()

PUBLISHED = "published"
"""The weights of a registered network that somebody trained: those that come with secli, or were fetched."""


@dataclass(frozen=True)
class Subject:
    """A network in eval mode and its origin.

    Attributes
    ----------
    info
        Its entry in a record.
    seed
        Seed of its run, or of its fresh weights.
    run, record
        The run directory and its record; None for freshly initialised weights.
    foreign
        Whether it is none of the registry's.
    """

    model: Model
    info: ModelInfo
    seed: int
    run: Path | None = None
    record: TrainingRecord | None = None
    foreign: bool = False

    @property
    def fresh(self) -> bool:
        """Whether its weights are freshly drawn: neither of a run nor loaded."""
        return self.run is None and self.info.options.get("weights") is None

    @property
    def weights(self) -> str:
        """The origin of its weights, in words."""
        return origin_of_weights(self.info.options, self.seed, None if self.run is None else str(self.run))


def load_subject(
    target: str, options: Mapping[str, Any] | None = None, seed: int = 0, foreign: Foreign = _NOTHING
) -> Subject:
    """Load a trained network from its run directory, a registered one, or an external one.

    Parameters
    ----------
    target, options, seed
        As for :func:`load_model`.
    foreign : Foreign
        For a network outside the registry; its weights serve a registry name too.

    Raises
    ------
    InputError
        When ``target`` is none of these (the closest name is suggested), or the run is damaged or unfinished.
    """
    run = Path(target)
    if target in MODELS and foreign.weights == PUBLISHED:
        return _published(target, options, foreign)
    if target in MODELS:
        return _registered(target, options, seed, foreign)
    if is_external(target):
        if options:
            raise InputError(f"{target}: --set model.… is for networks of the registry")
        return _foreign(own_name(target), seed, foreign)
    tidy(run.parent)  # it may have been moved away by a process that was killed
    if not run.is_dir():
        if target.endswith(".py"):
            raise InputError(f"'{target}': name the function that builds the network, {target}:FUNCTION")
        near = suggestion(target, MODELS)
        raise InputError(f"'{target}' is neither a run directory nor a registered model{near}")
    if not (run / RECORD_FILE).exists():
        raise InputError(f"{run}: no {RECORD_FILE} in it; is this a run directory that 'secli train' wrote?")
    if foreign.weights is not None or foreign.state is not None:
        raise InputError(f"{run}: the weights of a trained network are those of its run; leave --weights out")
    if options:
        raise InputError(f"{run}: the options of a trained network are those of its run; leave --set out")
    trained, record = load_run(run)
    if record.status != "finished":
        raise InputError(
            f"{run}: this run is {record.status}, not finished; go on with 'secli train … --resume'"
        )
    return Subject(trained, record.model, int(record.training["seed"]), run, record)


def _registered(name: str, options: Mapping[str, Any] | None, seed: int, foreign: Foreign) -> Subject:
    network = build(name, options, seed).eval()
    resolved = resolve_options(MODELS[name], options)
    weights = foreign.weights
    if weights is not None:
        if not names_a_file(weights):
            raise InputError(
                f"--weights {weights}: no such file; a network of the registry takes a file, or 'published'"
            )
        origin = load_foreign_weights(cast("nn.Module", network), Path(weights), foreign.state)
        resolved = {**resolved, **weights_record(origin)}
    elif foreign.state is not None:
        raise InputError(STATE_ALONE.format(foreign.state))
    return Subject(
        network, ModelInfo(name=name, options=resolved, parameters=count_parameters(network)), seed
    )


def _published(name: str, options: Mapping[str, Any] | None, foreign: Foreign) -> Subject:
    """Load a trained network that is at hand, verified; it is no run of the user's, and nothing is written into it."""
    if options:
        raise InputError(
            f"--weights published: the options of {name} are those it was trained with; leave --set out"
        )
    if foreign.state is not None:
        raise InputError(STATE_ALONE.format(foreign.state))
    folder = published_run(name)
    trained, record = load_run(folder)
    origin = {"weights": f"{PUBLISHED} {folder.name}", "weights_sha256": sha256_file(folder / WEIGHTS_FILE)}
    info = record.model.model_copy(update={"options": {**record.model.options, **origin}})
    return Subject(trained, info, int(record.training["seed"]), record=record)


def _foreign(target: str, seed: int, foreign: Foreign) -> Subject:
    network = load_external(
        target,
        taps=foreign.taps,
        fields=foreign.fields,
        input_shape=foreign.input_shape,
        mean=foreign.mean,
        std=foreign.std,
        weights=foreign.weights,
        state=foreign.state,
        offline=foreign.offline,
        seed=seed,
        check_taps=foreign.check_taps,
    )
    info = ModelInfo(name=target, options=network.description, parameters=network.parameters_learned)
    return Subject(network, info, seed, foreign=True)


def load_model(
    target: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    taps: Sequence[str] | None = None,
    fields: Sequence[str] | Mapping[str, str] = (),
    input_shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    weights: str | Path | None = None,
    state: str | None = None,
    offline: bool = False,
) -> Model:
    """Return a network in eval mode, by the targets of ``secli equivariance``.

    Parameters
    ----------
    target : str or Path
        A directory that ``secli train`` wrote, a registry name, ``torchvision:NAME``, ``timm:NAME``,
        ``package.module:factory`` or ``file.py:factory``.
    options : mapping, optional
        Model options, for a registry name only.
    seed : int
        Seed of fresh weights.
    taps : sequence of str, optional
        Of a network outside the registry: module names or shell globs; default: the outermost feature maps.
    fields : sequence or mapping
        How scale acts at taps: ``"PATTERN=FIELD"``, or pattern to field.
    input_shape : tuple, optional
        Channels, height and width of the images; default: those that the network's usual weights were made for.
    mean, std : sequence of float, optional
        Normalisation; default: that of the published weights, else none.
    weights : str or Path, optional
        A file, or the name of published weights; of a registry name ``published``: a trained network at hand.
    state : str, optional
        Which state dict, where the file holds several that fit.
    offline : bool
        Never download.

    Raises
    ------
    InputError
        When ``target`` is none of these, the run is damaged or unfinished, or something else does not fit.

    Examples
    --------
    >>> import secli
    >>> model = secli.load_model("torchvision:squeezenet1_1", input_shape=(3, 64, 64), taps=["features.0"])
    >>> list(model.taps)
    ['features.0']
    """
    texts = (
        [f"{pattern}={field}" for pattern, field in fields.items()] if isinstance(fields, Mapping) else fields
    )
    file = None if weights is None else str(weights)
    foreign = Foreign(taps, tuple(texts), input_shape, mean, std, file, state, offline)
    return load_subject(str(target), options, seed, foreign).model
