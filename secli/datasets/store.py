"""A dataset directory on disk: written whole, verified when opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from secli.config import validated
from secli.datasets.manifest import (
    ARRAYS,
    MANIFEST_FILE,
    SPLITS,
    Manifest,
    SplitName,
    array_file,
    read_manifest,
)
from secli.errors import InputError
from secli.provenance import sha256_file
from secli.records.schema import DataInfo
from secli.storage.writing import atomic_directory, write_text

_DTYPES = {"images": np.dtype(np.uint8), "labels": np.dtype(np.int64), "factors": np.dtype(np.float32)}


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a dataset, in memory.

    Attributes
    ----------
    images
        Pixels 0 to 255, shape (N, H, W) for grey images, (N, H, W, C) for colour; N may be 0.
    labels
        Class indices.
    factors
        The scale factor s of each image, 1 where the images are untouched.
    """

    images: UInt8[np.ndarray, "n h w *c"]
    labels: Int64[np.ndarray, "n"]
    factors: Float32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ScaleDataset:
    """One realisation of a dataset on disk, whose files were verified when it was opened.

    Attributes
    ----------
    name
        Dataset name, with its parameters' hash where they are not the standard ones.
    realisation
        r: the seed of the split and of the factors.
    channels
        1 for grey images, 3 for colour.
    image_size
        Height and width in pixels.
    digest
        sha256 over the digests of all data files.
    lossy
        Whether the source was lossy (JPEG), so not the canonical images.
    scaled
        Whether each image was rescaled by a random factor.
    """

    path: Path
    name: str
    realisation: int
    classes: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]
    digest: str
    lossy: bool
    scaled: bool
    manifest: Manifest

    def split(self, name: SplitName) -> Split:
        """Read one split into memory.

        Raises
        ------
        InputError
            When the split has no such name, or a file has vanished or changed since the dataset was opened.
        """
        if name not in SPLITS:
            raise InputError(f"{self.path}: no split '{name}'; known: {', '.join(SPLITS)}")
        arrays = {array: _read_array(self.path / array_file(name, array), array) for array in ARRAYS}
        count = self.manifest.sizes[name]
        colour = (self.channels,) if self.channels > 1 else ()
        shapes = {"images": (count, *self.image_size, *colour), "labels": (count,), "factors": (count,)}
        for array, shape in shapes.items():
            if arrays[array].shape != shape:
                file = self.path / array_file(name, array)
                raise InputError(f"{file}: shape {arrays[array].shape}, but the manifest says {shape}")
        labels, factors = arrays["labels"], arrays["factors"]
        if count and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise InputError(
                f"{self.path / array_file(name, 'labels')}: labels from {labels.min()} to {labels.max()}, "
                f"but the manifest names {len(self.classes)} classes"
            )
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise InputError(
                f"{self.path / array_file(name, 'factors')}: a scale factor is not a number above 0"
            )
        return Split(**arrays)

    def info(self) -> DataInfo:
        """Return the entry of these images in a record."""
        return DataInfo(
            name=self.name,
            realisation=self.realisation,
            digest=self.digest,
            path=str(self.path),
            lossy=self.lossy,
            parameters={
                **self.manifest.parameters,
                "sizes": [self.manifest.sizes[split] for split in SPLITS],
            },
        )


def open_dataset(path: Path) -> ScaleDataset:
    """Open a dataset directory and verify the sha256 of every file against its manifest.

    Raises
    ------
    InputError
        When the directory, its manifest or one of its files is missing or damaged; the message names it.
    """
    manifest = read_manifest(path)
    for name, digest in sorted(manifest.files.items()):
        file = path / name
        if not file.is_file():
            raise InputError(f"{file}: missing; remove its folder and make it again with 'secli make-data'")
        if sha256_file(file) != digest:
            raise InputError(
                f"{file}: damaged (its sha256 is not the one in {MANIFEST_FILE}); "
                f"remove its folder and make it again with 'secli make-data'"
            )
    return ScaleDataset(
        path=path,
        name=manifest.name,
        realisation=manifest.realisation,
        classes=manifest.classes,
        channels=manifest.channels,
        image_size=manifest.image_size,
        digest=manifest.digest,
        lossy=manifest.lossy,
        scaled=manifest.scaled,
        manifest=manifest,
    )


def write_dataset(path: Path, splits: Mapping[SplitName, Split], description: Mapping[str, Any]) -> Manifest:
    """Write a dataset directory atomically: it appears under its name only when it is whole.

    ``description`` holds the fields of the manifest that do not follow from the splits; a split may be empty.

    Raises
    ------
    InputError
        When ``path`` exists.
    """
    needs = sum(getattr(splits[name], array).nbytes for name in SPLITS for array in ARRAYS)
    with atomic_directory(path, needs) as temporary:
        files = {}
        for name in SPLITS:
            for array in ARRAYS:
                file = temporary / array_file(name, array)
                with file.open("wb") as opened:
                    np.save(_Plain(opened), np.ascontiguousarray(getattr(splits[name], array)))
                files[file.name] = sha256_file(file)
        sizes = {name: len(splits[name]) for name in SPLITS}
        manifest = validated(Manifest, {**description, "sizes": sizes, "files": files}, str(path))
        write_text(temporary / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
    return manifest


class _Plain:
    """A file of which numpy sees only ``write``: into a real one it writes past Python, and its errors give
    no reason.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def _read_array(file: Path, array: str) -> np.ndarray:
    try:
        with file.open("rb") as opened:
            content: np.ndarray = np.lib.format.read_array(opened, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{file}: missing; make the dataset again with 'secli make-data'") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None
    except Exception:  # the header of a damaged file can fail in any way, or ask for any amount of memory
        raise InputError(f"{file}: damaged (not a whole .npy file)") from None
    if content.dtype != _DTYPES[array]:
        raise InputError(f"{file}: holds {content.dtype}, expected {_DTYPES[array]}")
    return content
