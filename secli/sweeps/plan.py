"""From a sweep's file to its runs: every one resolved and checked before the first one starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from secli.catalogue import MODELS
from secli.config import MeasureSettings, ModelSettings, TrainingSettings, among, settings_hash, validated
from secli.datasets.protocols import DATASETS, unscaled_twin
from secli.errors import InputError, suggestion
from secli.models.building import usual_options
from secli.sweeps.spec import Part, Sweep, SweptDataset, SweptModel
from secli.sweeps.table_check import check_tables
from secli.training.plan import Resolved, resolve

KEY_DIGITS = 12
UNKEYED = frozenset({"device"})
"""Training settings that say where a run is carried out, and not what it is."""
ALWAYS_KEYED = frozenset({"threads"})
"""Training settings that belong to the key even at their default."""


@dataclass(frozen=True)
class DatasetRequest:
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
class MeasurePlan:
    """What is measured of a trained network, and on which images."""

    on: DatasetRequest
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
    differing
        What sets it apart from its neighbours in the file: its model's own options and settings, its grid point.
    """

    label: str
    tag: str | None
    model: ModelSettings
    resolved: Resolved
    data: DatasetRequest
    measure: MeasurePlan | None
    differing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Seed of weights, order, dropout and augmentation."""
        return self.resolved.training.seed

    @property
    def title(self) -> str:
        """The run in a few words."""
        changed = [f"{key}={value}" for key, value in self.differing.items()]
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
        """Return what makes it this run: model, options, training (threads included), data; not the machine.

        What stands at its default is left out, so that an option that a later secli adds changes no key.
        """
        usual = usual_options(self.model.name)
        training = self.resolved.training.model_dump(mode="json", exclude=set(UNKEYED))
        return {
            "model": self.model.name,
            "options": _changes(self.resolved.options, usual, frozenset()),
            "training": _changes(training, TrainingSettings().model_dump(mode="json"), ALWAYS_KEYED),
            "data": _changes(to_jsonable_python(self.data), {}, frozenset()),
        }

    def key(self, digest: str) -> str:
        """Return the key of the run: a hash of its resolved settings and of the digest of its data."""
        return settings_hash({**self.identity(), "digest": digest}, KEY_DIGITS)


class Shape(NamedTuple):
    """What a network must fit: channels, side in pixels (height and width), classes of a dataset."""

    channels: int
    height: int
    width: int
    classes: int


SOURCE_SHAPES: Mapping[str, tuple[int, int, int]] = {
    "digits": (1, 8, 10),
    "mnist": (1, 28, 10),
    "fashion-mnist": (1, 28, 10),
    "cifar10": (3, 32, 10),
    "stl10": (3, 96, 10),
}
"""Channels, side and classes of the published sources; a folder of one's own shows its shape when it is read."""

ShapeOf = Callable[[DatasetRequest], "Shape | None"]


def known_shape(data: DatasetRequest) -> Shape | None:
    """Return the shape of a dataset that need not be there yet; None where the pictures decide.

    Examples
    --------
    >>> known_shape(DatasetRequest("cifar10", 0))
    Shape(channels=3, height=32, width=32, classes=10)
    """
    spec = DATASETS[data.name]
    if spec.source not in SOURCE_SHAPES:
        return None
    channels, own, classes = SOURCE_SHAPES[spec.source]
    side = data.image_size or spec.image_size or own
    return Shape(channels, side, side, classes)


def plan(
    sweep: Sweep,
    threads: int = 1,
    overrides: Mapping[str, Any] | None = None,
    shape_of: ShapeOf = known_shape,
) -> list[PlannedRun]:
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
    shape_of : callable, optional
        Gives the shape of a dataset; None: not known before it is there.

    Raises
    ------
    InputError
        When a model cannot be built as asked, a setting is out of range, images and network do not fit, an exclusion
        or a table names what no run has, two runs are the same, or nothing is left.
    """
    if "seed" in (overrides or {}):
        raise InputError(
            "--set training.seed: the sweep's file says the seeds; --only seed=0 takes one of them"
        )
    runs: list[PlannedRun] = []
    # an entry at the top of the file holds for every block, and has to match in one of them
    unused = [entry for part in sweep.parts for entry in part.exclude]
    for part in sweep.parts:
        block = list(_runs_of(part, threads, overrides or {}))
        for run in block:
            check_options(run, shape_of(run.data))
        _check_exclusions(sweep, part, block)
        unused = [entry for entry in unused if not any(matches(run, entry) for run in block)]
        runs.extend(run for run in block if not _excluded(run, part.exclude))
    if unused:
        raise InputError(f"sweep {sweep.name}: exclude: {unused[0]} matches no run; is a name misspelled?")
    if not runs:
        raise InputError(f"sweep {sweep.name}: no run is left; its exclusions match all of them")
    _check_distinct(sweep, runs)
    unnamed = {run.data for run in runs if shape_of(run.data) is None}
    check_tables(sweep.tables, runs, unnamed, overrides or {}, f"sweep {sweep.name}")
    return runs


def _changes(
    values: Mapping[str, Any], defaults: Mapping[str, Any], always: frozenset[str]
) -> dict[str, Any]:
    """Return the values that differ from their defaults; a value without a default differs from None."""
    return {key: value for key, value in values.items() if key in always or value != defaults.get(key)}


def _check_exclusions(sweep: Sweep, part: Part, block: Sequence[PlannedRun]) -> None:
    """Refuse an exclusion whose key no run of its block has: it would leave out nothing, in silence."""
    known = {name for run in block for name in run.facts()}
    for key in (key for entry in part.exclude for key in entry):
        if key not in known:
            raise InputError(f"sweep {sweep.name}: exclude: no run has '{key}'{suggestion(key, known)}")


def _check_distinct(sweep: Sweep, runs: Sequence[PlannedRun]) -> None:
    """Refuse a run that is listed twice; two blocks may share it where they measure the same of it."""
    seen: dict[str, list[PlannedRun]] = {}
    for run in runs:
        same = seen.setdefault(settings_hash(run.identity(), KEY_DIGITS), [])
        if any(other.tag == run.tag for other in same):
            raise InputError(f"sweep {sweep.name}: the run '{run.title}' is listed twice")
        for other in same:
            if None not in (other.measure, run.measure) and other.measure != run.measure:
                raise InputError(
                    f"sweep {sweep.name}: the run '{run.title}' is in the blocks '{other.tag}' and '{run.tag}', "
                    "which measure it in different ways; let them measure the same"
                )
        same.append(run)


def matches(run: PlannedRun, entry: Mapping[str, Any]) -> bool:
    """Say whether a run matches every key of an entry; a value may be a pattern, or a list of them."""
    facts = run.facts()
    return all(key in facts and among(facts[key], choice) for key, choice in entry.items())


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
    measure = None
    if part.measure is not None:
        measure = MeasurePlan(_measured_on(part.measure.data, data), part.measure.resolved())
    differing = {
        **model.options,
        **model.training,
        **{key.removeprefix("model.").removeprefix("training."): value for key, value in point.items()},
    }
    return PlannedRun(model.label or model.name, part.tag, settings, resolved, data, measure, differing)


def _section(point: Mapping[str, Any], section: str) -> dict[str, Any]:
    prefix = f"{section}."
    return {key.removeprefix(prefix): value for key, value in point.items() if key.startswith(prefix)}


def _wanted(dataset: SweptDataset, realisation: int) -> DatasetRequest:
    spec = DATASETS[dataset.name]
    spec.parameters(dataset.factors, dataset.sizes, dataset.image_size)
    return DatasetRequest(dataset.name, realisation, dataset.sizes, dataset.factors, dataset.image_size)


def _measured_on(name: str | None, data: DatasetRequest) -> DatasetRequest:
    """Return the images to measure on: those named, or the unscaled twin, in the same sizes and realisation.

    Raises
    ------
    InputError
        When the dataset has no unscaled twin.
    """
    name = name or unscaled_twin(data.name)
    if name is None:
        raise InputError(f"measure: {data.name} has no unscaled twin; say measure.data")
    same_source = DATASETS[name].source == DATASETS[data.name].source
    sizes, image_size = (data.sizes, data.image_size) if same_source else (None, None)
    return DatasetRequest(name, data.realisation, sizes, None, image_size)


def check_options(run: PlannedRun, shape: Shape | None) -> None:
    """Check that a model's options say the channels, the size and the classes of its images.

    Raises
    ------
    InputError
        When they do not; the message says which option to set.
    """
    if shape is None:
        return
    needed = {"in_channels": shape.channels, "classes": shape.classes}
    if shape.height == shape.width:
        needed["image_size"] = shape.height
    for option, right in needed.items():
        taken = run.resolved.options.get(option)
        if isinstance(taken, int) and taken != right:
            raise InputError(
                f"model {run.model.name}: its option {option} is {taken}, but {run.data.name} needs {right}; "
                f"set the option {option}: {right}, or take another model or image_size"
            )


def run_folder(run: PlannedRun, digest: str) -> Path:
    """Return where a run lies below the sweep's directory: ``<model>/<dataset>-r<k>-s<seed>-<key>``."""
    name = f"{run.data.name}-r{run.data.realisation}-s{run.seed}-{run.key(digest)}"
    return Path(run.model.name) / name
