"""From a sweep's file to its runs: every one resolved and checked before the first one starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from secli.catalogue import MODELS
from secli.config import MeasureSettings, ModelSettings, TrainingSettings, settings_hash, validated
from secli.datasets.protocols import DATASETS
from secli.errors import InputError
from secli.experiments.spec import Part, Sweep, SweptDataset, SweptModel
from secli.training.plan import Resolved, resolve

KEY_DIGITS = 12
UNKEYED = frozenset({"device", "devices"})
"""Training settings that say where a run is carried out, and not what it is."""


@dataclass(frozen=True)
class WantedDataset:
    """One realisation of a dataset that a run needs.

    Attributes
    ----------
    name
        Registry name of the protocol.
    realisation
        Realisation r.
    sizes, factors, image_size
        Parameters that differ from the protocol's.
    """

    name: str
    realisation: int
    sizes: tuple[int, int, int] | None = None
    factors: tuple[float, float] | None = None
    image_size: int | None = None


@dataclass(frozen=True)
class WantedMeasure:
    """What is measured of a trained network, and on which images."""

    on: WantedDataset
    settings: MeasureSettings


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, resolved.

    Attributes
    ----------
    label
        What the tables call its model.
    tag
        The block of the sweep that it comes from; None where there is one block.
    model
        Registry name and the options that were given.
    resolved
        All options and training settings, defaults filled in, the threads among them.
    data
        What it is trained on.
    measure
        What is measured of it; None: nothing.
    """

    label: str
    tag: str | None
    model: ModelSettings
    resolved: Resolved
    data: WantedDataset
    measure: WantedMeasure | None

    @property
    def seed(self) -> int:
        """Seed of weights, order, dropout and augmentation."""
        return self.resolved.training.seed

    @property
    def title(self) -> str:
        """The run in a few words."""
        changed = [f"{key}={value}" for key, value in self.model.options.items()]
        return " ".join(
            [self.model.name, *changed, f"{self.data.name} r{self.data.realisation} s{self.seed}"]
        )

    def facts(self) -> dict[str, Any]:
        """Return all that an exclusion or ``--only`` can match, by name."""
        settings = self.resolved.training.model_dump(mode="json")
        return {
            "model": self.model.name,
            "label": self.label,
            "dataset": self.data.name,
            "realisation": self.data.realisation,
            "seed": self.seed,
            **{f"model.{key}": value for key, value in self.resolved.options.items()},
            **{f"training.{key}": value for key, value in settings.items()},
        }

    def identity(self) -> dict[str, Any]:
        """Return what makes it this run: model, options, training (threads included), data; not the machine."""
        return {
            "model": self.model.name,
            "options": self.resolved.options,
            "training": self.resolved.training.model_dump(mode="json", exclude=set(UNKEYED)),
            "data": to_jsonable_python(self.data),
        }

    def key(self, digest: str) -> str:
        """Return the key of the run: a hash of its resolved settings and of the digest of its data."""
        return settings_hash({**self.identity(), "digest": digest}, KEY_DIGITS)


def plan(sweep: Sweep, threads: int = 1, overrides: Mapping[str, Any] | None = None) -> list[PlannedRun]:
    """List the runs of a sweep, in the order of its file.

    Parameters
    ----------
    sweep : Sweep
        The file.
    threads : int
        CPU threads of each run where the file does not say them; part of a run's key, since the last bits of
        a sum depend on them.
    overrides : mapping, optional
        Training settings that win over the file's (``--set training.epochs=5``).

    Raises
    ------
    InputError
        When a model cannot be built as asked, a setting is out of range, images and network do not fit, two runs
        are the same, or nothing is left.
    """
    runs: list[PlannedRun] = []
    for part in sweep.parts:
        runs.extend(
            run for run in _runs_of(part, threads, overrides or {}) if not _excluded(run, part.exclude)
        )
    if not runs:
        raise InputError(f"sweep {sweep.name}: no run is left; its exclusions match all of them")
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        identity = settings_hash(run.identity(), KEY_DIGITS)
        if identity in seen and seen[identity].measure == run.measure and seen[identity].tag == run.tag:
            raise InputError(f"sweep {sweep.name}: the run '{run.title}' is listed twice")
        seen.setdefault(identity, run)
    return runs


def matches(run: PlannedRun, entry: Mapping[str, Any]) -> bool:
    """Say whether a run matches every key of an entry; a value may be a pattern, or a list of them.

    Raises
    ------
    InputError
        When no run could have such a key.
    """
    facts = run.facts()
    for key, wanted in entry.items():
        if key not in facts:
            return False
        choices = (
            wanted if isinstance(wanted, list | tuple) and not isinstance(facts[key], list) else [wanted]
        )
        if not any(_equal(facts[key], choice) for choice in choices):
            return False
    return True


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) and isinstance(value, str):
        return fnmatchcase(value, wanted)
    return bool(value == wanted and isinstance(value, bool) == isinstance(wanted, bool))


def _excluded(run: PlannedRun, entries: Sequence[Mapping[str, Any]]) -> bool:
    return any(matches(run, entry) for entry in entries)


def _runs_of(part: Part, threads: int, overrides: Mapping[str, Any]) -> Iterator[PlannedRun]:
    """Give the runs of one block: models, then datasets, grid, realisations, seeds, the last running fastest."""
    points = [dict(zip(part.grid, values, strict=True)) for values in itertools.product(*part.grid.values())]
    for model, dataset, point in itertools.product(part.models, part.datasets, points):
        for realisation, seed in itertools.product(dataset.realisations, part.seeds):
            yield _run(part, model, dataset, point, realisation, seed, threads, overrides)


def _run(
    part: Part,
    model: SweptModel,
    dataset: SweptDataset,
    point: Mapping[str, Any],
    realisation: int,
    seed: int,
    threads: int,
    overrides: Mapping[str, Any],
) -> PlannedRun:
    chosen = {section: _section(point, section) for section in ("model", "training")}
    settings = ModelSettings(name=model.name, options={**part.options, **model.options, **chosen["model"]})
    merged = {"threads": threads, **MODELS[model.name].training, **part.training, **model.training}
    merged |= {**chosen["training"], **overrides, "seed": seed}
    training = validated(TrainingSettings, merged, f"model {model.name}: training")
    try:
        resolved = resolve(settings, training)
    except InputError as error:
        raise InputError(f"{error} (in the sweep's models or grid)") from None
    data = _wanted(dataset, realisation)
    _check_fit(settings.name, resolved, data)
    measure = None
    if part.measure is not None:
        measure = WantedMeasure(_measured_on(part.measure.data, data), part.measure.resolved())
    return PlannedRun(model.label or model.name, part.tag, settings, resolved, data, measure)


def _section(point: Mapping[str, Any], section: str) -> dict[str, Any]:
    prefix = f"{section}."
    return {key.removeprefix(prefix): value for key, value in point.items() if key.startswith(prefix)}


def _wanted(dataset: SweptDataset, realisation: int) -> WantedDataset:
    spec = DATASETS[dataset.name]
    spec.parameters(dataset.factors, dataset.sizes, dataset.image_size)
    return WantedDataset(dataset.name, realisation, dataset.sizes, dataset.factors, dataset.image_size)


def _measured_on(name: str | None, data: WantedDataset) -> WantedDataset:
    """Return the images to measure on: those named, or the unscaled twin, in the same sizes and realisation.

    Raises
    ------
    InputError
        When the dataset has no unscaled twin.
    """
    spec = DATASETS[data.name]
    if name is None:
        twins = [
            each.name for each in DATASETS.values() if each.source == spec.source and each.factors is None
        ]
        if not twins:
            raise InputError(f"measure: {data.name} has no unscaled twin; say measure.data")
        name = twins[0]
    same_source = DATASETS[name].source == spec.source
    sizes, image_size = (data.sizes, data.image_size) if same_source else (None, None)
    return WantedDataset(name, data.realisation, sizes, None, image_size)


def _check_fit(model: str, resolved: Resolved, data: WantedDataset) -> None:
    """Check the image size before anything is made, where the protocol or the sweep says it."""
    side = data.image_size or DATASETS[data.name].image_size
    taken = resolved.options.get("image_size")
    if side is not None and isinstance(taken, int) and side != taken:
        raise InputError(
            f"model {model} takes images of {taken}×{taken} pixels, {data.name} has {side}×{side}; "
            f"set the option image_size: {side}"
        )


def run_folder(run: PlannedRun, digest: str) -> Path:
    """Return where a run lies below the sweep's directory: ``<model>/<dataset>-r<k>-s<seed>-<key>``."""
    name = f"{run.data.name}-r{run.data.realisation}-s{run.seed}-{run.key(digest)}"
    return Path(run.model.name) / name
