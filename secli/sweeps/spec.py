"""A sweep's YAML file: models, datasets, realisations, seeds, a grid of overrides, the measure, the tables."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from secli.catalogue import MODELS
from secli.config import (
    HIGHEST_FACTOR,
    LOWEST_FACTOR,
    MOST_SEED,
    FileName,
    MeasureSettings,
    Settings,
    TrainingSettings,
    check_factors,
    first_problem,
    merged,
    validated,
)
from secli.datasets.protocols import DATASETS, MAX_IMAGES, MAX_SIDE
from secli.errors import InputError, UnknownNameError
from secli.registry import Registry
from secli.tables.belonging import fact_names, known_fact
from secli.tables.quantities import quantity
from secli.yaml_files import read_yaml

SECTIONS = ("model", "training")
FACTS = ("model", "label", "dataset", "realisation", "seed")
"""What else than ``model.OPTION`` and ``training.SETTING`` an exclusion may name."""
MOST_NUMBERS = 10_000
"""Numbers that a list of seeds or realisations may hold."""
MOST_RUNS = 10_000
"""Runs that a sweep may have, before its exclusions; each of them is resolved before the first one starts."""
_NUMBER = re.compile(r"\d+(-\d+)?|\d*\.\d+")
_RANGE = re.compile(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?")
"""One number or two, of so few digits that ``len`` of the range is a machine word."""


def parse_numbers(value: Any) -> Any:
    """Read ``0-5``, ``0,2-3``, 4 or a list of integers as a tuple of integers.

    Examples
    --------
    >>> parse_numbers("0,2-4")
    (0, 2, 3, 4)
    """
    if isinstance(value, bool) or value is None:
        raise ValueError("write numbers as 0-5, 0,2 or [0, 2]")
    if isinstance(value, int):
        return (value,)
    if not isinstance(value, str):
        return value
    ranges = [_range(part) for part in value.split(",")]
    count = sum(len(each) for each in ranges)
    if count > MOST_NUMBERS:
        raise ValueError(f"{amount(count)} numbers, at most {MOST_NUMBERS}")
    return tuple(itertools.chain.from_iterable(ranges))


def _range(text: str) -> range:
    """Read ``3`` or ``2-5``; nothing is counted out."""
    found = _RANGE.fullmatch(text)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ValueError("write numbers as 0-5, 0,2 or [0, 2]")
    return range(int(found[1]), int(found[2] or found[1]) + 1)


def amount(count: int) -> str:
    """Write a count, however large.

    Examples
    --------
    >>> amount(12000), amount(10**40)
    ('12000', 'over a billion')
    """
    return str(count) if count <= 10**9 else "over a billion"


Numbers = Annotated[
    tuple[Annotated[int, Field(ge=0, le=MOST_SEED)], ...],
    BeforeValidator(parse_numbers),
    Field(min_length=1, max_length=MOST_NUMBERS),
]


Size = Annotated[int, Field(ge=0, le=MAX_IMAGES)]
Factor = Annotated[float, Field(ge=LOWEST_FACTOR, le=HIGHEST_FACTOR)]


class Registered(Settings):
    """Something of a registry and what of it differs in this sweep; its name alone stands for the rest."""

    registry: ClassVar[Registry[Any]]

    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return cls.registry.known(value)


class SweptModel(Registered):
    """One model of a sweep: its registry name, and what of it differs in this sweep."""

    registry = MODELS

    name: str = Field(description="registry name of the model")
    label: str | None = Field(None, description="what the tables call it; none: its name")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the model's builder")
    training: dict[str, Any] = Field(
        default_factory=dict, description="training settings of this model alone"
    )

    @field_validator("training")
    @classmethod
    def _settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _checked_training(value)


class SweptDataset(Registered):
    """One dataset of a sweep, made when it is not there."""

    registry = DATASETS

    name: str = Field(description="registry name of the dataset's protocol")
    realisations: Numbers = Field((0,), description="realisations: 0-5, 0,2 or a list")
    sizes: tuple[Size, Size, Size] | None = Field(
        None, description="images in train, val, test; none: the protocol's"
    )
    factors: tuple[Factor, Factor] | None = Field(
        None, description="lowest and highest factor; none: the protocol's"
    )
    image_size: int | None = Field(
        None, ge=1, le=MAX_SIDE, description="side in pixels; none: the protocol's"
    )


class SweptMeasure(Settings):
    """What is measured of each trained network, and on which images."""

    data: str | None = Field(
        None, description="dataset measured on; none: the unscaled twin of the run's own"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="MeasureSettings that differ from the default"
    )

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """Let the measure's settings stand beside ``data``, as in every other configuration file."""
        if not isinstance(value, Mapping) or "settings" in value:
            return value
        rest = {key: part for key, part in value.items() if key != "data"}
        return {"settings": rest, **({"data": value["data"]} if "data" in value else {})}

    @field_validator("data")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return None if value is None else DATASETS.known(value)

    def resolved(self) -> MeasureSettings:
        """Return the settings with every default filled in."""
        return MeasureSettings.model_validate(self.settings)

    @model_validator(mode="after")
    def _valid(self) -> SweptMeasure:
        validated(MeasureSettings, self.settings, "measure")
        return self


class Part(Settings):
    """A block of runs: every model × dataset × realisation × seed × point of the grid, less what is excluded."""

    models: tuple[SweptModel, ...] = Field(min_length=1, description="registry names, or names with options")
    datasets: tuple[SweptDataset, ...] = Field(min_length=1, description="what the models are trained on")
    seeds: Numbers = Field((0,), description="seeds: 0-2, 0,5 or a list")
    options: dict[str, Any] = Field(default_factory=dict, description="options of all models' builders")
    training: dict[str, Any] = Field(
        default_factory=dict,
        description="training settings of all models; they win over the models' published ones",
    )
    grid: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="model.OPTION or training.SETTING to the values that are crossed"
    )
    exclude: tuple[dict[str, Any], ...] = Field(
        (), description="runs left out: those that match all keys of one entry (patterns as mnist_ses_*p)"
    )
    measure: SweptMeasure | None = Field(None, description="what is measured of each trained network")
    tag: str | None = Field(
        None, description="what the tables call this block; none where there is one block"
    )

    def count(self) -> int:
        """Return how many runs these are, those that are excluded among them."""
        points = math.prod(len(values) for values in self.grid.values())
        realisations = sum(len(dataset.realisations) for dataset in self.datasets)
        return len(self.models) * realisations * points * len(self.seeds)

    @field_validator("grid", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("write model.OPTION: [values] or training.SETTING: [values]")
        for key, values in value.items():
            section, dot, name = str(key).partition(".")
            if section not in SECTIONS or not dot or not name:
                raise ValueError(f"'{key}' is neither model.OPTION nor training.SETTING")
            if section == "training":
                _check_setting(name)
            if not isinstance(values, list | tuple) or not values:
                raise ValueError(f"'{key}' needs a list of values, at least one")
        return value

    @field_validator("exclude")
    @classmethod
    def _matchable(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for entry in value:
            for key in entry:
                section, dot, name = str(key).partition(".")
                if key not in FACTS and not (dot and section in SECTIONS):
                    raise ValueError(str(UnknownNameError("key of an exclusion", str(key), FACTS)))
                if section == "training" and name not in TrainingSettings.model_fields:
                    raise ValueError(
                        str(UnknownNameError("training setting", name, TrainingSettings.model_fields))
                    )
            if not entry:
                raise ValueError("an empty entry would leave out every run")
        return value

    @field_validator("training")
    @classmethod
    def _settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _checked_training(value)


class SweptTable(Settings):
    """One table that the sweep ends in, as ``secli compare`` would print it."""

    title: str = Field(description="its caption")
    rows: tuple[str, ...] = Field(("model",), min_length=1, description="facts of runs that make a row")
    columns: tuple[str, ...] = Field(
        (), description="facts that make a column; none: one column per quantity"
    )
    values: tuple[str, ...] = Field(
        ("test_error",), min_length=1, description="quantities: test_error, delta, delta_0.5, accuracy, ..."
    )
    tap: str | None = Field(None, description="tap at which Δ is read, or 'deepest': each network's own")
    depth: float | None = Field(
        None,
        gt=0,
        le=1,
        description="relative depth at which Δ is read; none: that which all networks have a value at",
    )
    factors: tuple[float, ...] | None = Field(None, description="scale factors of Δ and accuracy")
    published: bool = Field(False, description="published figures beside the measured ones")
    ranks: bool = Field(False, description="also the mean rank over the columns")
    test: Literal["t", "wilcoxon"] = Field("t", description="paired test that tells the best from its equals")
    curves: bool = Field(False, description="accuracy and Δ at every factor, a column each")
    ablate: tuple[str, ...] = Field(
        (), description="parameters: one table for each, all else at the base configuration"
    )
    only: dict[str, Any] = Field(default_factory=dict, description="runs that enter, as in an exclusion")

    @field_validator("rows", "columns", "ablate")
    @classmethod
    def _facts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_fact(key) for key in value)

    @field_validator("only")
    @classmethod
    def _matchable(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            _fact(key)
        return value

    @field_validator("values")
    @classmethod
    def _quantities(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for key in value:
                quantity(key, "quantity")
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("factors")
    @classmethod
    def _factors(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if value is None else merged(check_factors(value))

    @model_validator(mode="after")
    def _one_kind(self) -> SweptTable:
        both = set(self.rows) & set(self.columns)
        if both:
            raise ValueError(f"table '{self.title}': {min(both)} is both row and column")
        if self.tap is not None and self.depth is not None:
            raise ValueError(f"table '{self.title}': tap and depth exclude each other")
        if (self.curves and self.ablate) or ((self.curves or self.ablate) and self.columns):
            raise ValueError(f"table '{self.title}': columns, curves and ablate exclude each other")
        return self


def _fact(key: str) -> str:
    """Return a fact of runs that a table may name, or raise ``ValueError`` with the near miss."""
    if not known_fact(key):
        raise ValueError(str(UnknownNameError("fact", key, fact_names())))
    return key


class Sweep(Settings):
    """A sweep's file, checked.

    Keys of a block that stand at the top level hold for every block of ``parts``; a file without ``parts`` is one
    block.
    """

    name: FileName = Field(description="name of the sweep and of its directory")
    about: str = Field(description="what it is and which table it makes, in a sentence")
    cost: str = Field("", description="what it costs, in words")
    parts: tuple[Part, ...] = Field(min_length=1, description="the blocks of runs")
    tables: tuple[SweptTable, ...] = Field((), description="the tables that it ends in")
    results: tuple[Path, ...] = Field(
        (), description="directories of finished records that count as done, from the file's own directory"
    )

    @field_validator("results", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _inherited(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        shared = {key: part for key, part in value.items() if key in Part.model_fields}
        own = {key: part for key, part in value.items() if key not in Part.model_fields}
        blocks = own.get("parts", [{}])
        if not isinstance(blocks, list | tuple) or not all(isinstance(block, Mapping) for block in blocks):
            return value
        return {**own, "parts": [_over(shared, block) for block in blocks]}

    @model_validator(mode="after")
    def _few_enough(self) -> Sweep:
        """Refuse more runs than can be planned, before they are listed."""
        count = sum(part.count() for part in self.parts)
        if count > MOST_RUNS:
            raise ValueError(
                f"{amount(count)} runs before exclusions, at most {MOST_RUNS}; "
                "take fewer values, seeds or realisations, or several files"
            )
        return self


def _over(shared: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block with the shared keys; training settings and grids are merged, all else is replaced."""
    merged = {**shared, **block}
    for key in ("training", "options", "grid"):
        if isinstance(shared.get(key), Mapping) and isinstance(block.get(key), Mapping):
            merged[key] = {**shared[key], **block[key]}
    return merged


def _check_setting(name: str) -> None:
    """Refuse what is no training setting, or has a key of its own in a sweep."""
    if name not in TrainingSettings.model_fields:
        raise ValueError(str(UnknownNameError("training setting", name, TrainingSettings.model_fields)))
    if name == "seed":
        raise ValueError("write seeds beside it: seeds: [0, 1]")


def _checked_training(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        _check_setting(name)
    validated(TrainingSettings, values, "training")
    return values


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's file.

    Raises
    ------
    InputError
        When the file is missing, is not YAML, or holds an unknown key or a wrong value.
    """
    content = _yaml(path)
    try:
        sweep = Sweep.model_validate(content)
        return sweep.model_copy(update={"results": tuple(path.parent / each for each in sweep.results)})
    except InputError as error:  # of a group of settings within
        raise InputError(f"{path}: {error}") from None
    except ValidationError as error:
        # the block's number helps only where there are several
        kind = _kind_at(error.errors()[0]["loc"])
        problem = first_problem(error, kind).replace("'parts.0.", "'").removeprefix("parts.0.")
        raise InputError(f"{path}: {problem}") from None


class _Whole(Part, Sweep):
    """All keys that may stand at the top of a file: those of the sweep, and of a block that is not written apart."""


def _kind_at(position: Sequence[int | str]) -> type[Settings]:
    """Return whose keys may stand at a position of the file."""
    kinds: dict[int | str, type[Settings]] = {
        "models": SweptModel,
        "datasets": SweptDataset,
        "tables": SweptTable,
    }
    return next((kinds[part] for part in position if part in kinds), _Whole)


def _yaml(path: Path) -> dict[str, Any]:
    content = read_yaml(path, str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected keys at the top level (name, about, models, datasets, ...)")
    if "models" not in content and "parts" not in content:
        raise InputError(f"{path}: not a sweep's file: neither 'models' nor 'parts'")
    torn = _torn_value(content)
    if torn is not None:
        raise InputError(f"{path}: {torn}")
    return content


def _torn_value(content: Any) -> str | None:
    """Say where ``{realisations: 0,2}`` stands: YAML ends the value at the comma and takes 2 for the next key."""
    if isinstance(content, list):
        return next((told for part in content if (told := _torn_value(part))), None)
    if not isinstance(content, Mapping):
        return None
    entries = list(content.items())
    for index, (key, value) in enumerate(entries):
        alone = itertools.takewhile(lambda entry: entry[1] is None, entries[index + 1 :])
        more = list(itertools.takewhile(_NUMBER.fullmatch, (str(name) for name, _ in alone)))
        if more and _NUMBER.fullmatch(str(value)):
            parts = [str(value), *more]
            ranges = any("-" in part for part in parts)
            right = f'"{",".join(parts)}"' if ranges else f"[{', '.join(parts)}]"
            return (
                f"'{key}: {','.join(parts)}': YAML reads {more[0]} as a key of its own; write {key}: {right}"
            )
        told = _torn_value(value)
        if told:
            return told
    return None
