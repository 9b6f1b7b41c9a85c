"""YAML and flags become validated, frozen settings; an unknown key is an error that suggests the near miss."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from secli.errors import InputError, shortened, shown, suggestion
from secli.metrics import METRICS
from secli.yaml_files import parse_yaml, read_yaml

# not WithJsonSchema: pydantic 2.7 writes a field's default into its dictionary, which all fields share
MetricName = Annotated[
    str, AfterValidator(METRICS.known), Field(json_schema_extra={"enum": list(METRICS.own)})
]
Background = Literal["empty", "none"]
Surround = Literal["black", "photo"]
Precision = Literal["32", "tf32", "bf16", "16"]
Augmentation = Literal["none", "scale", "stl10"]
Centre = Literal["pixel", "corner"]

LONGEST_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def file_name(text: str) -> str:
    """Return a name read from a file that becomes the name of a file or directory, or raise ``ValueError``.

    Examples
    --------
    >>> file_name("digits-scale-1a2b")
    'digits-scale-1a2b'
    """
    if len(text) > LONGEST_NAME or _NAME.fullmatch(text) is None:
        raise ValueError(
            f"a name is up to {LONGEST_NAME} letters, digits, '.', '_' and '-', the first a letter or a digit"
        )
    return text


FileName = Annotated[str, AfterValidator(file_name)]
"""A name that becomes part of a path: it names one entry of the directory that it is put into, and no other."""


MOST = 1_000_000
"""The most images, epochs or pixels that a setting may ask for: far beyond use, and still counted at once."""
MOST_THREADS = 1024
MOST_SEED = 2**32 - 1  # what NumPy's global generator takes; torch's takes more
LOWEST_FACTOR, HIGHEST_FACTOR = 1 / 64, 64.0
"""Between these lie scale factors: beyond, nothing is left of a picture, and operators grow with 1/s."""
MOST_FACTORS = 1000


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown keys, and truth values for numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``images: on``, which YAML reads as true and pydantic as 1."""
        assert info.field_name is not None
        if _numeric(cls.model_fields[info.field_name].annotation) and _holds_truth(value):
            raise ValueError(
                "a number is needed; YAML reads on, yes and true (off, no, false) as truth values"
            )
        return value


def _numeric(annotation: Any) -> bool:
    """Say whether a type holds numbers and no truth values."""
    inner = get_args(annotation)
    if not inner or annotation is bool:
        return annotation in (int, float)
    return bool not in inner and any(_numeric(each) for each in inner)


def _holds_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_truth, value)))


class ModelSettings(Settings):
    """Which network: its registry name and the options that differ from the catalogue's defaults."""

    name: str = Field(description="registry name of the model")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the model's builder")


class TrainingSettings(Settings):
    """How a network is trained; each model's catalogue entry sets its published values."""

    epochs: int = Field(60, ge=1, le=MOST, description="passes over the training images")
    batch: int = Field(128, ge=1, le=MOST, description="images per optimiser step, over all devices")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="Adam, or SGD with momentum")
    lr: float = Field(0.01, gt=0, le=1e30, description="initial learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD (Adam ignores it)")
    nesterov: bool = Field(False, description="Nesterov's momentum (SGD only)")
    weight_decay: float = Field(0.0, ge=0, le=1000, description="L2 penalty on all parameters")
    milestones: tuple[Annotated[int, Field(ge=1, le=MOST)], ...] = Field(
        (20, 40), description="epochs after which the rate is multiplied by gamma"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor of the learning rate at each milestone")
    augment: Augmentation = Field(
        "none",
        description="'scale': the published '+', factor U[0.5, 2]; 'stl10': pad 12, crop, flip, cut out 32×32",
    )
    centre: Centre = Field(
        "pixel",
        description="what augment=scale rescales about: pixel (14.5 of 28, as mnist-scale is made) or corner (14.0)",
    )
    pad: Literal["black", "mean"] = Field(
        "black", description="what augment=stl10 pads with: black (as published) or the mean colour"
    )
    seed: int = Field(
        0,
        ge=0,
        le=MOST_SEED,
        description="seed of the initial weights, the order of images, dropout, augmentation",
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=MOST,
        description="parts in which a batch is passed through, their gradients added; batch norms see the parts",
    )
    checkpoint_activations: bool = Field(
        False,
        description="compute activations again in the backward pass instead of keeping them: less memory",
    )
    compile: bool = Field(
        False, description="compile the network for the steps; on CUDA with CUDA graphs, for small networks"
    )
    precision: Precision = Field("32", description="arithmetic of the forward and backward pass")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where the work runs")
    devices: int = Field(1, ge=1, le=MOST_THREADS, description="number of devices that share each batch")
    threads: int = Field(
        0, ge=0, le=MOST_THREADS, description="CPU threads; 0 takes one per core; recorded as resolved"
    )

    @field_validator("milestones")
    @classmethod
    def _increasing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("milestones must be positive epochs in increasing order")
        return value


class MeasureSettings(Settings):
    """How an equivariance curve is measured."""

    factors: tuple[float, ...] | None = Field(
        None,
        description="scale factors s; none: nine from 1/3 to 1, their inverses up to 1.5, the model's lattice",
    )
    taps: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None, description="taps to measure; none: all that the model declares"
    )
    metric: MetricName = Field(
        "squared", description="squared (the equivariance error Δ), relative, or absolute"
    )
    background: Background = Field(
        "empty", description="'empty' compares Φ(f) − Φ(0); 'none' is the bare formula"
    )
    protocol: Literal["default", "downscale-2020"] = Field(
        "default", description="a named list of factors; downscale-2020: 1, 1/1.1, 1/1.5, 1/2, 1/2.5, 1/3"
    )
    border: float | None = Field(
        None,
        ge=0,
        le=MOST,
        description="pixels left out along the edges of picture and canvas; none: 0 for pictures on black, "
        "the tap's receptive-field radius for others",
    )
    surround: Surround | None = Field(
        None,
        description="what is around a picture: 'black', or the 'photo' that it is a window of; none: photo for "
        "photographs that are large enough, else black",
    )
    margin: Annotated[float, Field(ge=0, le=MOST)] | Literal["auto"] | None = Field(
        None,
        description="empty pixels around pictures on black; 'auto': the widest receptive-field radius, at most the "
        "picture's side",
    )
    smallest_plane: float = Field(
        4.0,
        ge=1,
        le=MOST,
        description="cells that the picture must cover; a map of fewer has no scale to compare",
    )
    per: tuple[Literal["level", "channel"], ...] = Field(
        (), description="also each scale level, each channel by itself"
    )
    images: int = Field(1000, ge=1, le=MOST, description="images of the test split, from its start")
    batch: int | None = Field(
        None, ge=1, le=MOST, description="images per forward pass; none: as many as measured memory allows"
    )

    @field_validator("factors")
    @classmethod
    def _factors(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if value is None else merged(check_factors(value))

    @field_validator("taps", "per")
    @classmethod
    def _once(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if value is None else merged(value)

    @model_validator(mode="after")
    def _one_surrounding(self) -> MeasureSettings:
        if self.margin is not None and self.border is not None:
            raise ValueError("margin and border exclude each other: with a margin no picture has an edge")
        if self.margin is not None and self.surround == "photo":
            raise ValueError(
                "margin and surround photo exclude each other: photographs have surroundings of their own"
            )
        return self

    @model_validator(mode="after")
    def _one_list_of_factors(self) -> MeasureSettings:
        if self.factors is not None and self.protocol != "default":
            raise ValueError(f"factors and the protocol {self.protocol} exclude each other")
        return self


class Config(Settings):
    """One YAML file: ``model``, ``data``, ``training``, ``measure``, each optional."""

    model: ModelSettings | None = None
    data: str | None = Field(None, description="dataset directory, as make-data writes it")
    training: dict[str, Any] = Field(
        default_factory=dict, description="TrainingSettings that differ from the model's"
    )
    measure: dict[str, Any] = Field(
        default_factory=dict, description="MeasureSettings that differ from the default"
    )


S = TypeVar("S", bound=BaseModel)


def validated(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Validate a mapping as settings of one kind, or raise one line that names the key.

    Parameters
    ----------
    kind : type
        The settings class.
    values : mapping
        Keys and values as read from YAML, flags or ``--set``.
    where : str
        What the user knows this group by: a file, or an option's prefix.

    Raises
    ------
    InputError
        On an unknown key (with the near miss) or a value out of range.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error, kind)}") from None


def first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """Say the first problem of a validation error in one line."""
    problem = error.errors()[0]
    path = ".".join(shortened(str(part)) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key '{path}'{suggestion(path.rsplit('.', 1)[-1], kind.model_fields)}"
    if problem["type"] == "missing":
        return f"key '{path}' is missing"
    message = shortened(problem["msg"], 200).removeprefix("Value error, ").replace("a valid tuple", "a list")
    if not path:
        return message
    return f"{path} = {shown(problem['input'])}: {message[0].lower()}{message[1:]}"


def check_factors(factors: Sequence[float]) -> tuple[float, ...]:
    """Return the scale factors as floats, or raise ``ValueError`` on one that is not between 1/64 and 64."""
    if not factors:
        raise ValueError("at least one scale factor is needed")
    if len(factors) > MOST_FACTORS:
        raise ValueError(f"{len(factors)} scale factors; at most {MOST_FACTORS} are measured")
    for factor in factors:
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"a scale factor must be finite and greater than 0, not {factor:g}")
        if not LOWEST_FACTOR <= factor <= HIGHEST_FACTOR:
            raise ValueError(f"a scale factor must be between 1/64 and 64, not {factor:g}")
    return tuple(float(factor) for factor in factors)


H = TypeVar("H", bound=Hashable)


def merged(values: Sequence[H]) -> tuple[H, ...]:
    """Return the values, each once, in the order of their first appearance."""
    return tuple(dict.fromkeys(values))


def repeated(values: Sequence[H]) -> tuple[H, ...]:
    """Return those of the values that come more than once."""
    return tuple(value for value in merged(values) if list(values).count(value) > 1)


def parse_factors(text: str) -> tuple[float, ...]:
    """Read scale factors: a list ``1,0.9,0.5`` or a geometric range ``LOW:HIGH:COUNT``.

    Raises
    ------
    InputError
        When the text has neither form, or a factor is not between 1/64 and 64.

    Examples
    --------
    >>> parse_factors("1,0.5")
    (1.0, 0.5)
    >>> parse_factors("0.25:1:3")
    (0.25, 0.5, 1.0)
    """
    try:
        if ":" in text:
            low_text, high_text, count_text = text.split(":")
            low, high = check_factors([float(low_text), float(high_text)])
            count = int(count_text)
            if low >= high or not 2 <= count <= MOST_FACTORS:
                raise ValueError(f"a range needs LOW < HIGH and at least 2 factors, at most {MOST_FACTORS}")
            ratio = (high / low) ** (1 / (count - 1))
            return (*(low * ratio**i for i in range(count - 1)), high)
        return check_factors([float(part) for part in text.split(",")])
    except ValueError as error:
        detail = str(error)
        if detail.startswith(
            ("could not convert", "invalid literal", "not enough values", "too many values")
        ):
            detail = "write a list like 1,0.9,0.5 or a range like 0.33:1:9"
        raise InputError(f"--factors {shortened(text)}: {detail}") from None


def parse_assignments(texts: Sequence[str], sections: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read ``--set SECTION.KEY=VALUE`` flags; the value is read as YAML.

    Examples
    --------
    >>> parse_assignments(["model.base=1.5", "training.milestones=[5, 8]"], ["model", "training"])
    {'model': {'base': 1.5}, 'training': {'milestones': [5, 8]}}
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for text in texts:
        path, equals, raw = text.partition("=")
        section, dot, key = path.partition(".")
        if not (equals and dot and key):
            raise InputError(
                f"--set {shortened(text)}: write SECTION.KEY=VALUE, for example {_example(sections)}"
            )
        if section not in values:
            raise InputError(
                f"--set {shortened(text)}: unknown section '{shortened(section)}'{suggestion(section, sections)}"
            )
        try:
            values[section][key] = parse_yaml(raw)
        except ValueError as error:
            raise InputError(f"--set {shortened(text)}: {error}") from None
    return values


def _example(sections: Sequence[str]) -> str:
    examples = {"model": "model.channels=32", "training": "training.lr=0.1", "measure": "measure.images=100"}
    return next((examples[section] for section in sections if section in examples), "section.key=1")


def read_config(path: Path) -> Config:
    """Read a YAML configuration file; an unknown key is an error.

    Raises
    ------
    InputError
        When the file is missing, is not YAML, or holds an unknown key or a wrong value.
    """
    content = read_yaml(path, f"--config {path}")
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: expected keys at the top level (model, data, training, measure)")
    return validated(Config, content, f"--config {path}")


def among(value: Any, allowed: Any) -> bool:
    """Say whether a value is the allowed one, or one of them where it is a list; texts are shell patterns.

    Examples
    --------
    >>> among("dss_v1", "dss_*"), among(3, [1, 2]), among([20, 40], [20, 40]), among(True, 1)
    (True, False, True, False)
    """
    return _equal(value, allowed) or (
        isinstance(allowed, list | tuple) and any(_equal(value, each) for each in allowed)
    )


def _equal(value: Any, choice: Any) -> bool:
    if isinstance(choice, str) and isinstance(value, str):
        return fnmatchcase(value, choice)
    if isinstance(choice, tuple):
        choice = list(choice)
    return bool(value == choice and isinstance(value, bool) == isinstance(choice, bool))


def settings_hash(values: Mapping[str, Any], digits: int = 8) -> str:
    """Return a short, stable hash of JSON-like settings, in hexadecimal digits."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:digits]
