"""The manifest of a dataset directory: which images, made how, from what, with the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from secli.config import first_problem
from secli.errors import InputError
from secli.records import Part
from secli.sources.contract import SourceInfo

MANIFEST_FILE = "manifest.json"
MANIFEST_VERSION: Literal[1] = 1

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
ARRAYS = ("images", "labels", "factors")


class Manifest(Part):
    """What ``manifest.json`` holds."""

    schema_version: Literal[1] = Field(default=MANIFEST_VERSION, description="version of this schema")
    kind: Literal["dataset"] = Field(default="dataset", description="what this file describes")
    name: str = Field(
        description="dataset name, with its parameters' hash where they are not the standard ones"
    )
    protocol: str = Field(description="registry name of the protocol")
    realisation: int = Field(ge=0, description="realisation r (the seed of the split and of the factors)")
    parameters: dict[str, Any] = Field(description="the protocol's parameters, resolved")
    scaled: bool = Field(description="whether each image was rescaled by a random factor")
    lossy: bool = Field(description="whether the source was lossy (JPEG), so not the canonical images")
    classes: tuple[str, ...] = Field(min_length=1, description="class names; a label is an index into them")
    channels: int = Field(ge=1, description="1 for grey images, 3 for colour")
    image_size: tuple[int, int] = Field(description="height and width in pixels")
    sizes: dict[SplitName, int] = Field(description="images per split")
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
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: missing; is {directory} a directory that 'secli make-data' wrote?"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: damaged (not JSON); remove {directory} and make it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("schema_version"), int):
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
