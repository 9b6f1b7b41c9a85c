"""Records: schema version 2 with a sentence per field, written whole, and migrated on read.

"Not measurable" is null with a reason, never 0. Errors and accuracies are fractions.
"""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from secli.config import MetricName, TrainingSettings, file_name, first_problem
from secli.errors import InputError, shortened
from secli.records.notes import Note
from secli.records.older import MIGRATIONS
from secli.storage.writing import write_text
from secli.yaml_files import check_depth

SCHEMA_VERSION: Final = 2
MOST_BYTES = 256 << 20
"""Bytes of a JSON file; that of the largest measurement, each channel by itself, has some tens of millions."""
LARGEST_INTEGER = 2**64 - 1
RECORD_FILE = "record.json"
CURVES_FILE = "equivariance.json"
SWEEP_FILE = "sweep.json"
DAMAGED = ".damaged"
"""Ending of the name under which what could not be read is kept, when it has been made again."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Signed = Annotated[float, Field(ge=-1, le=1)]
Measured = Annotated[float, Field(ge=-1e100, le=1e100)]
"""A number of which averages and variances are finite."""
Factor = Annotated[float, Field(gt=0, le=1e6)]
Count = Annotated[int, Field(ge=0)]

Status = Literal["running", "finished", "failed", "interrupted"]


class RecordPart(BaseModel):
    """A part of a record; frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Parameters(BaseModel):
    """What tables and resuming read of a dataset's parameters; there may be others."""

    sizes: tuple[int, int, int] | None = None
    factors: tuple[float, float] | None = None
    image_size: int | None = None


class _Table(BaseModel):
    """What is read of a table that a sweep ends in; there may be more."""

    title: str
    rows: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    values: tuple[str, ...] | None = None
    tap: str | None = None
    factors: tuple[float, ...] | None = None
    published: bool | None = None
    ranks: bool | None = None
    test: Literal["t", "wilcoxon"] | None = None
    curves: bool | None = None
    ablate: tuple[str, ...] | None = None
    only: dict[str, Any] | None = None


def _as(kind: type[BaseModel]) -> AfterValidator:
    """Return a check that the keys of a mapping which a schema knows fit it; the mapping stays as it is."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        try:
            kind.model_validate({key: part for key, part in value.items() if key in kind.model_fields})
        except ValidationError as error:
            raise ValueError(first_problem(error, kind)) from None
        return value

    return AfterValidator(check)


DataParameters = Annotated[dict[str, Any], _as(_Parameters)]


def _below(text: str) -> str:
    """Return where a run lies below its sweep, ``<model>/<run>``, or raise ``ValueError``."""
    parts = PurePath(text).parts
    if len(parts) != 2:
        raise ValueError("a run lies two levels below its sweep: <model>/<run>")
    for part in parts:
        file_name(part)
    return text


class Provenance(RecordPart):
    """Where a number comes from."""

    secli: str = Field(description="version of secli")
    commit: str | None = Field(
        description="git commit of the secli checkout, '+' when it had changes; null if none"
    )
    python: str = Field(description="version of Python")
    libraries: dict[str, str] = Field(description="versions of the libraries that the numbers depend on")
    platform: str = Field(description="operating system and processor")
    device: str = Field(description="the device that did the work, by its own name")
    threads: int = Field(description="CPU threads used")
    command: str = Field(description="the command line, as given")
    created: str = Field(description="time of writing, ISO 8601, UTC")


class DataInfo(RecordPart):
    """Which images, as their manifest says."""

    name: str = Field(
        description="dataset name, with its parameters' hash where they are not the standard ones"
    )
    realisation: int = Field(description="realisation r (the seed of the split and of the factors)")
    digest: str = Field(description="sha256 over the digests of all files of the dataset directory")
    path: str = Field(description="directory as given")
    order: str | None = Field(
        default=None, description="the order in which the images were taken; null in training"
    )
    resized: tuple[int, int] | None = Field(
        default=None,
        description="height and width in pixels that the images were brought to; null where they were taken as they "
        "are, and in older records",
    )
    lossy: bool = Field(
        default=False, description="whether the source was lossy (JPEG), so not the canonical images"
    )
    parameters: DataParameters = Field(
        default={},
        description="the protocol's parameters, resolved: sizes (images in train, val, test), factors, image_size; "
        "empty in older records and of a plain folder",
    )


class ModelInfo(RecordPart):
    """Which network."""

    name: str = Field(description="registry name")
    options: dict[str, Any] = Field(description="all options of the builder, resolved")
    parameters: Count = Field(description="number of learned parameters")
    changed: dict[str, Any] = Field(
        default={}, description="the options that differ from the registry's, with the registry's value"
    )


class TrainingResults(RecordPart):
    """What training came to."""

    test_error: Fraction | None = Field(
        description="fraction of test images misclassified by the kept weights"
    )
    test_images: Count = Field(description="number of test images")
    validation_error: Fraction | None = Field(
        description="validation error of the kept epoch; null without such a split"
    )
    best_epoch: Count = Field(description="epoch whose weights were kept, from 1")
    epochs: Count = Field(description="epochs trained")
    train_seconds: Measured = Field(description="wall time of the training epochs, summed over resumptions")
    images_per_second: Measured | None = Field(description="training images per second, median over epochs")


class TrainingRecord(RecordPart):
    """One run of ``secli train``."""

    schema_version: Literal[2] = Field(default=SCHEMA_VERSION, description="version of this schema")
    kind: Literal["training"] = Field(default="training", description="what this record is")
    status: Status = Field(description="running, finished, failed or interrupted")
    reason: Note | None = Field(default=None, description="why a run failed or stopped; null otherwise")
    model: ModelInfo = Field(description="which network")
    data: DataInfo = Field(description="which images")
    training: Annotated[dict[str, Any], _as(TrainingSettings)] = Field(
        description="all training settings, resolved"
    )
    results: TrainingResults | None = Field(
        default=None, description="results of a finished run; null otherwise"
    )
    provenance: Provenance = Field(description="where the numbers come from")


class CurveRow(RecordPart):
    """The equivariance error at one tap and one factor."""

    tap: str = Field(description="the tap's name")
    field: str = Field(description="how the scale action moves this tap, in words")
    factor: Factor = Field(description="scale factor s; below 1 the picture shrinks")
    mean: Measured | None = Field(
        description="mean over images of the metric; null when it cannot be measured"
    )
    low: Measured | None = Field(description="lower end of the 95 % bootstrap interval of the mean")
    high: Measured | None = Field(description="upper end of the 95 % bootstrap interval of the mean")
    median: Measured | None = Field(description="median over images")
    floor: Measured | None = Field(
        description="the error of composing two half-steps of the spatial action, same metric, on the first 200 images"
    )
    n: Count = Field(description="images measured")
    runs: Count = Field(
        default=1, description="runs averaged; the interval is over them when there are several"
    )
    dropped: Count = Field(
        default=0, description="images left out because their features vanish or are not finite"
    )
    levels_used: int | None = Field(default=None, description="scale levels compared; null off a scale axis")
    levels_total: int | None = Field(default=None, description="scale levels in all; null off a scale axis")
    on_lattice: bool | None = Field(
        default=None, description="whether s maps levels onto levels; null off a scale axis"
    )
    level: int | None = Field(default=None, description="the one scale level measured; null when all are")
    channel: int | None = Field(default=None, description="the one channel measured; null when all are")
    compared: Measured | None = Field(
        default=None, description="share of the tap's cells that are compared, 0 to 1"
    )
    border: Measured = Field(default=0.0, description="pixels left out along the edges of picture and canvas")
    warnings: tuple[Note, ...] = Field(default=(), description="what a reader of this number must know")
    reason: Note | None = Field(default=None, description="why the value is null")


class LieRow(RecordPart):
    """The Lie derivative at one tap: the equivariance error per squared logarithm of the factor, at factor 1."""

    tap: str = Field(description="the tap's name")
    field: str = Field(description="how the scale action moves this tap, in words")
    mean: Measured | None = Field(
        description="mean over images of ‖d/dt L_{e^-t} Φ(L_{e^t} f)‖² / ‖Φ(f)‖² at t = 0"
    )
    low: Measured | None = Field(description="lower end of the 95 % bootstrap interval of the mean")
    high: Measured | None = Field(description="upper end of the 95 % bootstrap interval of the mean")
    n: Count = Field(description="images measured")
    dropped: Count = Field(
        default=0, description="images left out because their features vanish or are not finite"
    )
    reason: Note | None = Field(default=None, description="why the value is null")


class LocalRow(RecordPart):
    """What one part of the network adds alone, fed with exactly rescaled features."""

    part: str = Field(description="the stage's tap, or the name of a layer inside the network")
    kind: str = Field(description="'stage', or the kind of layer: conv, pool, norm, activation, pointwise")
    factor: Factor = Field(description="scale factor s")
    mean: Measured | None = Field(description="mean over images of the part's own equivariance error")
    low: Measured | None = Field(description="lower end of the 95 % bootstrap interval of the mean")
    high: Measured | None = Field(description="upper end of the 95 % bootstrap interval of the mean")
    n: Count = Field(description="images measured")
    compared: Measured | None = Field(
        default=None, description="share of the part's output cells that are compared"
    )
    reason: Note | None = Field(default=None, description="why the value is null")


class ExplainRow(RecordPart):
    """Where the error at one tap and factor comes from: readings of the same pictures under other circumstances.

    Each cost is a difference of two readings; they need not add up.
    """

    tap: str = Field(description="the tap's name")
    factor: Factor = Field(description="scale factor s")
    error: Measured | None = Field(description="Δ as it stands")
    with_margin: Measured | None = Field(
        description="Δ with an empty margin around the pictures, as wide as the taps see"
    )
    lattice_factors: tuple[Factor, Factor] | None = Field(
        default=None,
        description="the nearest factors on either side that map levels onto levels; null on one or without levels",
    )
    on_lattice: Measured | None = Field(
        default=None, description="Δ at these, with the margin, brought to this factor linearly in log s"
    )
    enlarged: Measured | None = Field(
        description="Δ of the pictures enlarged twice, with a margin: the same filters on a finer grid"
    )
    n: Count = Field(description="pictures read")
    reason: Note | None = Field(default=None, description="why a value is null")

    @property
    def canvas(self) -> float | None:
        """What the canvas costs: Δ less that with a margin."""
        return _less(self.error, self.with_margin)

    @property
    def levels(self) -> float | None:
        """What lies between levels costs: Δ less that of the factors on the lattice, all with a margin."""
        return _less(self.with_margin, self.on_lattice)

    @property
    def grid(self) -> float | None:
        """What the grid of pixels costs: Δ less that of enlarged pictures, both with a margin."""
        return _less(self.with_margin, self.enlarged)


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


class AccuracyRow(RecordPart):
    """How the network classifies rescaled images."""

    factor: Factor = Field(description="scale factor s")
    accuracy: Fraction | None = Field(description="fraction of rescaled images classified rightly")
    agreement: Fraction | None = Field(description="fraction whose prediction equals that at s = 1")
    consistency: Fraction | None = Field(
        default=None,
        description="fraction whose prediction equals that at the next measured factor towards 1, 1 included; null at "
        "s = 1, and in older records",
    )
    probability_drop: Signed | None = Field(
        default=None,
        description="mean over images of the true class's probability at s = 1 less that at s; null without labels, "
        "and in older records",
    )
    cosine: Signed | None = Field(
        default=None,
        description="mean over images of the cosine between the embedding at s and that at s = 1; null where the "
        "network has none or it vanishes, and in older records",
    )
    n: Count = Field(description="images classified")
    reason: Note | None = Field(default=None, description="why the values are null")


class Surroundings(RecordPart):
    """What was around the pictures that were measured."""

    kind: Literal["photo", "margin"] = Field(
        description="photo: windows of photographs; margin: empty pixels around pictures on black"
    )
    window: tuple[int, int] = Field(description="height and width in pixels of what the network takes")
    wanted: Count = Field(
        description="pixels on every side by which windows should be enlarged: the widest receptive-field radius of "
        "the taps and what the spline reads beyond, as a multiple of their strides"
    )
    enlarged: tuple[Count, ...] = Field(description="pixels by which they were, by group of pictures")
    pictures: tuple[Count, ...] = Field(description="pictures in each group")
    left_out: Count = Field(default=0, description="photographs that were too small")
    taps: tuple[str, ...] = Field(
        description="taps that saw the enlarged pictures; the others saw the window"
    )


class EquivarianceRecord(RecordPart):
    """One result of ``secli equivariance``."""

    schema_version: Literal[2] = Field(default=SCHEMA_VERSION, description="version of this schema")
    kind: Literal["equivariance"] = Field(default="equivariance", description="what this record is")
    model: ModelInfo = Field(description="which network")
    trained: bool = Field(description="whether the weights come from a run, a file, or were published")
    weights: str | None = Field(
        default=None,
        description="where the weights come from, in words: a run, a file, published weights, or a seed; null in older "
        "records",
    )
    run: str | None = Field(default=None, description="the run directory, where there is one")
    seed: int = Field(description="seed of the run, or of the fresh weights")
    trained_on: DataInfo | None = Field(default=None, description="what a trained network saw")
    data: DataInfo = Field(description="which images were measured on")
    metric: MetricName = Field(description="the error's formula")
    background: Literal["empty", "none"] = Field(description="whether Φ(0) was subtracted")
    measure: dict[str, Any] = Field(default={}, description="all settings of the measure, resolved")
    surroundings: Surroundings | None = Field(
        default=None, description="what was around the pictures; null: black, and in older records"
    )
    rows: list[CurveRow] = Field(description="one row per tap and factor")
    accuracy: list[AccuracyRow] = Field(description="one row per factor")
    embedding: str | None = Field(
        default=None,
        description="where the embedding was read: 'input of' the linear layer that makes the logits, or 'mean over "
        "the plane of' the deepest tap but the logits; null where there is neither, and in older records",
    )
    lie: list[LieRow] = Field(default=[], description="one row per tap, where asked for")
    local: list[LocalRow] = Field(default=[], description="one row per part and factor, where asked for")
    explained: list[ExplainRow] = Field(
        default=[], description="where the error comes from, by tap and factor, where asked for"
    )
    pooled: tuple[str, ...] = Field(
        default=(), description="the run directories averaged; empty for one network"
    )
    control: str | None = Field(
        default=None, description="which control this is; null for a network of its own"
    )
    controls: list[EquivarianceRecord] = Field(default=[], description="controls measured beside it, if any")
    provenance: Provenance = Field(description="where the numbers come from")


class SweptRun(RecordPart):
    """One run of a sweep, as its tables name it."""

    key: str = Field(description="hash of the run's resolved settings and of its data")
    run: Annotated[str, AfterValidator(_below)] = Field(
        description="the run directory, below the sweep's own"
    )
    model: str = Field(description="registry name of the model")
    label: str = Field(description="what the tables call the model")
    tag: str | None = Field(default=None, description="the block of the sweep; null where there is one")
    options: dict[str, Any] = Field(default={}, description="all options of the builder, resolved")
    training: dict[str, Any] = Field(
        default={}, description="training settings that differ from their defaults, and the threads"
    )
    dataset: str | None = Field(
        default=None, description="dataset name, as in the records of its runs; null in older sweeps"
    )
    realisation: int | None = Field(default=None, description="realisation r; null in older sweeps")
    seed: int | None = Field(default=None, description="seed of the run; null in older sweeps")


class SweepRecord(RecordPart):
    """Which runs a sweep holds, and which tables it ends in."""

    schema_version: Literal[2] = Field(default=SCHEMA_VERSION, description="version of this schema")
    kind: Literal["sweep"] = Field(default="sweep", description="what this record is")
    name: str = Field(description="the sweep's name")
    about: str = Field(description="what it is and which table it makes")
    command: str = Field(description="the command line, as given")
    secli: str = Field(description="version of secli")
    runs: list[SweptRun] = Field(description="its runs, in the order of its file")
    tables: list[Annotated[dict[str, Any], _as(_Table)]] = Field(
        default=[], description="the tables that it ends in"
    )


Record = Annotated[TrainingRecord | EquivarianceRecord, Field(discriminator="kind")]
_RECORD: TypeAdapter[TrainingRecord | EquivarianceRecord] = TypeAdapter(Record)


def read_record(path: Path) -> TrainingRecord | EquivarianceRecord:
    """Read one record file and bring it to the present schema version.

    Raises
    ------
    InputError
        When the file is missing, damaged, of a newer version, or no record.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such record; is this a run directory that 'secli train' wrote?"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: damaged record ({error})") from None
    try:
        return _RECORD.validate_python(_migrated(path, content))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(shortened(str(part)) for part in problem["loc"])
        raise InputError(f"{path}: damaged record ({key}: {shortened(problem['msg'], 120)})") from None


def _migrated(path: Path, content: Any) -> dict[str, Any]:
    """Return the content of a record file in the present schema version, or raise ``InputError``."""
    if not is_versioned(content):
        raise InputError(f"{path}: not a record of secli")
    if content["schema_version"] > SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {content['schema_version']} is newer than this secli; upgrade secli"
        )
    migrated: dict[str, Any] = content
    while migrated["schema_version"] < SCHEMA_VERSION:
        migrate = MIGRATIONS.get(migrated["schema_version"])
        if migrate is None:
            raise InputError(f"{path}: schema version {migrated['schema_version']} has never existed")
        migrated = migrate(migrated)
    return migrated


def read_json(path: Path) -> Any:
    """Read a JSON file of bounded size and depth.

    Raises
    ------
    FileNotFoundError
        When it is missing.
    ValueError
        When it cannot be read for whatever other reason, in a few words.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise ValueError("a directory" if path.is_dir() else "not a regular file")
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
        content = json.loads(
            text.decode("utf-8"), parse_int=_integer, parse_float=_finite, parse_constant=_finite
        )
        check_depth(content)
        return content
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError("not text in UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError:
        raise ValueError("not JSON") from None


def _integer(digits: str) -> int:
    if len(digits) > len(str(LARGEST_INTEGER)) + 1 or abs(int(digits)) > LARGEST_INTEGER:
        raise ValueError(f"the number {shortened(digits, 20)} is too large")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{shortened(digits, 20)} is not a finite number")
    return value


def is_versioned(content: Any) -> bool:
    """Say whether a file's content has a schema version; ``true`` is none, though Python takes it for 1."""
    return isinstance(content, dict) and type(content.get("schema_version")) is int


def read_sweep_record(directory: Path) -> SweepRecord | None:
    """Read which runs the sweep in a directory holds; None where there is no sweep.

    Raises
    ------
    InputError
        When the record is damaged.
    """
    file = directory / SWEEP_FILE
    try:
        content = read_json(file)
        if not is_versioned(content):
            raise ValueError("not a record of secli")
        return SweepRecord.model_validate(_migrated(file, content))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InputError(f"{file}: damaged record ({first_problem(error, SweepRecord)})") from None
    except ValueError as error:
        raise InputError(f"{file}: damaged record ({error})") from None


def read_training_record(run: Path) -> TrainingRecord:
    """Read the record of a run directory.

    Raises
    ------
    InputError
        When the directory or its record is missing or damaged.
    """
    try:
        there = run.is_dir()
    except OSError as error:  # a name that is too long, a directory that may not be entered
        raise InputError(f"{run}: cannot be read: {error.strerror or error}") from None
    if not there:
        raise InputError(f"{run}: no such run directory")
    record = read_record(run / RECORD_FILE)
    if not isinstance(record, TrainingRecord):
        raise InputError(f"{run / RECORD_FILE}: a record of kind '{record.kind}', not of a training run")
    return record


def write_record(path: Path, record: TrainingRecord | EquivarianceRecord | SweepRecord) -> None:
    """Write a record atomically."""
    write_text(path, json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")
