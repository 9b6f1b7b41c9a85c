"""The index of a place that holds trained networks: names, what each was trained on, size and sha256 of every file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from secli.config import first_problem
from secli.errors import InputError, suggestion
from secli.records.epochs import METRICS_FILE
from secli.records.kept import CONFIG_FILE
from secli.records.schema import CURVES_FILE, RECORD_FILE
from secli.storage.writing import write_text
from secli.yaml_files import check_depth

INDEX_FILE = "index.json"
CARD_FILE = "README.md"
WEIGHTS_FILE = "model.safetensors"
FILES = (WEIGHTS_FILE, CONFIG_FILE, RECORD_FILE, METRICS_FILE, CURVES_FILE, CARD_FILE)
"""All that the folder of a network may hold; weights are safetensors, so nothing in it is ever executed."""
NEEDED = frozenset(FILES) - {CURVES_FILE}
MOST_INDEX_BYTES = 1 << 20
MOST_FILE_BYTES = 4 << 30

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def plain_name(text: str) -> str:
    """Return a name of letters, digits and ``._-`` that begins with a letter or digit, or raise ``ValueError``."""
    if not _NAME.fullmatch(text):
        raise ValueError("a name is of letters, digits, '.', '_' and '-', and begins with a letter or digit")
    return text


PlainName = Annotated[str, AfterValidator(plain_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IndexedFile(_Strict):
    """One file of a network."""

    sha256: Sha256 = Field(description="sha256 of its content")
    size: int = Field(ge=0, le=MOST_FILE_BYTES, description="bytes")


class TrainedNetwork(_Strict):
    """One trained network."""

    name: PlainName = Field(description="name of its folder")
    model: PlainName = Field(description="registry name")
    dataset: PlainName = Field(description="what it was trained on")
    realisation: int = Field(ge=0, description="realisation of the data")
    seed: int = Field(ge=0, description="seed of the training")
    test_error: float | None = Field(ge=0, le=1, description="fraction of test images misclassified")
    files: Mapping[str, IndexedFile] = Field(description="its files")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def sha256(self) -> str:
        """Digest of the weights."""
        return self.files[WEIGHTS_FILE].sha256


class Index(_Strict):
    """What a place holds."""

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    networks: tuple[TrainedNetwork, ...] = Field(default=(), description="its networks")

    def __getitem__(self, name: str) -> TrainedNetwork:
        """Return the network of a name; InputError where there is none."""
        for network in self.networks:
            if network.name == name:
                return network
        known = suggestion(name, [network.name for network in self.networks]) or "; it holds none"
        raise InputError(f"no network '{name}' there{known}")

    def with_network(self, network: TrainedNetwork) -> Index:
        """Return the index with a network, in the place of one of its name; sorted by name."""
        others = [other for other in self.networks if other.name != network.name]
        return Index(networks=tuple(sorted([*others, network], key=lambda one: one.name)))


def parse_index(content: bytes, where: str) -> Index:
    """Read an index and check all that it says.

    Raises
    ------
    InputError
        When it is damaged, too large, names a file that no network has, or a network twice; one line.
    """
    if len(content) > MOST_INDEX_BYTES:
        raise InputError(f"{where}: larger than {MOST_INDEX_BYTES >> 20} MiB: no index")
    try:
        values = json.loads(content)
        check_depth(values)
        index = Index.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error, Index)}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{where}: damaged: not an index of networks") from None
    names = [network.name for network in index.networks]
    for network in index.networks:
        odd = sorted(set(network.files) ^ set(FILES))
        odd = [file for file in odd if file in network.files or file in NEEDED]
        if odd:
            verb = "has a file" if odd[0] in network.files else "lacks"
            raise InputError(f"{where}: {network.name} {verb} {odd[0]!a}")
        if names.count(network.name) > 1:
            raise InputError(f"{where}: {network.name} stands twice")
    return index


def read_index(folder: Path) -> Index:
    """Read the index of a folder; where there is none, no network is there.

    Raises
    ------
    InputError
        As :func:`parse_index`.
    """
    file = folder / INDEX_FILE
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_INDEX_BYTES + 1)
    except FileNotFoundError:
        return Index()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    return parse_index(content, str(file))


def write_index(folder: Path, index: Index) -> str:
    """Write the index of a folder and return its sha256, by which others pin all that it names."""
    text = json.dumps(index.model_dump(mode="json"), indent=1) + "\n"
    write_text(folder / INDEX_FILE, text)
    return hashlib.sha256(text.encode()).hexdigest()
