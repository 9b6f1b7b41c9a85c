"""The manifest of a dataset directory: which images, made how, from what, with the sha256 of every file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from secli.config import FileName, first_problem
from secli.datasets.protocols import DATASETS
from secli.errors import InputError, printable
from secli.records.schema import DataParameters, RecordPart, read_json
from secli.sources.contract import SourceInfo

MANIFEST_FILE = "manifest.json"
MANIFEST_VERSION: Literal[1] = 1

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
ARRAYS = ("images", "labels", "factors")
MAX_REALISATION = 2**32 - 1  # what NumPy's generator takes as a seed
MOST_PIXELS = 2**16  # of a side
LONGEST_CLASS = 255

Side = Annotated[int, Field(ge=1, le=MOST_PIXELS)]


def _class_name(text: str) -> str:
    """Return a class's name, which becomes the name of a folder when pictures are exported."""
    if not text.strip(". ") or len(text) > LONGEST_CLASS or printable(text) != text:
        raise ValueError(f"a class name is up to {LONGEST_CLASS} printable characters")
    return text


class Manifest(RecordPart):
    """What ``manifest.json`` holds."""

    schema_version: Literal[1] = Field(default=MANIFEST_VERSION, description="version of this schema")
    kind: Literal["dataset"] = Field(default="dataset", description="what this file describes")
    name: FileName = Field(
        description="dataset name, with its parameters' hash where they are not the standard ones"
    )
    protocol: Annotated[str, AfterValidator(DATASETS.known)] = Field(
        description="registry name of the protocol"
    )
    realisation: int = Field(
        ge=0, le=MAX_REALISATION, description="realisation r (the seed of the split and of the factors)"
    )
    parameters: DataParameters = Field(description="the protocol's parameters, resolved")
    scaled: bool = Field(description="whether each image was rescaled by a random factor")
    lossy: bool = Field(description="whether the source was lossy (JPEG), so not the canonical images")
    classes: tuple[Annotated[str, AfterValidator(_class_name)], ...] = Field(
        min_length=1, description="class names; a label is an index into them"
    )
    channels: int = Field(ge=1, le=1024, description="1 for grey images, 3 for colour")
    image_size: tuple[Side, Side] = Field(description="height and width in pixels")
    sizes: dict[SplitName, Annotated[int, Field(ge=0)]] = Field(description="images per split")
    source: SourceInfo = Field(description="the raw pictures")
    files: dict[str, str] = Field(description="sha256 of each file of the directory")
    libraries: dict[str, str] = Field(description="versions of the libraries that made it")

    @property
    def digest(self) -> str:
        """The sha256 over the digests of all data files: equal exactly when the data are equal."""
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def array_file(split: SplitName, array: str) -> str:
    """Return the name of the file that holds one array of a split.

    Examples
    --------
    >>> array_file("val", "labels")
    'val-labels.npy'
    """
    return f"{split}-{array}.npy"


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a dataset directory.

    Raises
    ------
    InputError
        When the directory or its manifest is missing, damaged or of a newer version.
    """
    path = directory / MANIFEST_FILE
    if not directory.is_dir():
        raise InputError(f"{directory}: no such dataset directory; 'secli make-data' writes one")
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: missing; is {directory} a directory that 'secli make-data' wrote?"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); remove its folder and make it again") from None
    if not isinstance(content, dict) or type(content.get("schema_version")) is not int:
        raise InputError(f"{path}: not the manifest of a dataset of secli")
    if content["schema_version"] > MANIFEST_VERSION:
        raise InputError(
            f"{path}: version {content['schema_version']} is newer than this secli; upgrade secli"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: damaged ({first_problem(error, Manifest)})") from None
    expected = {array_file(split, array) for split in SPLITS for array in ARRAYS}
    if set(manifest.files) != expected or set(manifest.sizes) != set(SPLITS):
        raise InputError(f"{path}: damaged (it does not list the nine files of a dataset)")
    return manifest
