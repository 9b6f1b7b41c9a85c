"""Pictures to measure on: the test split of a built dataset, or a folder of anybody's pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from secli.datasets.manifest import MANIFEST_FILE
from secli.datasets.protocols import DATASETS
from secli.datasets.store import open_dataset
from secli.errors import InputError
from secli.records.schema import DataInfo
from secli.sources.contract import PartName
from secli.sources.folder import LOSSY_FORMATS, open_picture
from secli.sources.folder_layout import SUFFIXES, pictures_below, pictures_in, read_layout

Shape = tuple[int, int, int]
ORDER_SEED = 0
STORED = "as stored"
SHUFFLED = f"stratified by class, seed {ORDER_SEED}"
MEASURED: tuple[PartName, ...] = ("test", "val", "train", "all")
"""The split of a folder that is measured: the first of these that exists."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures to measure on, and what a record and the measure must know of them.

    Attributes
    ----------
    images
        Pixels 0 to 255, shape (N, C, H, W).
    labels
        Class indices, shape (N,); None where the pictures have no classes.
    on_black
        Whether the background is black (digits), so that no frame appears when the pictures shrink.
    scaled
        Whether each picture was rescaled by a random factor already.
    order
        How they were chosen: as stored, or shuffled so that the first ones are of all classes.
    remarks
        What a reader of the numbers must know of how the folder was read, one line each.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"] | None
    classes: tuple[str, ...]
    info: DataInfo
    on_black: bool
    scaled: bool
    order: str = STORED
    remarks: tuple[str, ...] = ()


def open_pictures(path: Path, *, input_shape: Shape | None = None, images: int = 1000) -> Pictures:
    """Open pictures to measure on; no more of them are read than requested.

    Parameters
    ----------
    path : Path
        A directory that ``secli make-data`` wrote (its test split), a folder of class folders of pictures (of its
        test split where it holds splits, else of val, else of train), or a folder of pictures (without labels).
    input_shape : tuple, optional
        Channels (1 or 3), height and width to bring the pictures to: the largest centred part of that shape is
        resampled with Pillow's antialiased cubic filter, grey is repeated, colour becomes luminance. Default: as they
        are; pictures of a folder must then be of one size.
    images : int
        How many. Pictures stored class by class are taken in a stratified order of fixed seed, others from the first.

    Raises
    ------
    InputError
        When there is no such directory, it holds no picture, one is damaged, or sizes differ without ``input_shape``.
    """
    if images < 1:
        raise InputError(f"--images {images}: at least 1 is needed")
    if input_shape is not None and (input_shape[0] not in (1, 3) or min(input_shape) < 1):
        raise InputError(
            f"--input {'x'.join(map(str, input_shape))}: pictures have 1 or 3 channels and a positive size"
        )
    if not path.is_dir():
        raise InputError(f"--data {path}: no such directory")
    if (path / MANIFEST_FILE).exists():
        return _from_dataset(path, input_shape, images)
    return _from_folder(path, input_shape, images)


def stratified_order(labels: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Return an order of fixed seed in which every beginning holds the classes in their proportions.

    The k-th of the n_c shuffled pictures of class c comes at (k + u)/n_c of the way, u uniform, one per class.
    """
    generator = np.random.default_rng(ORDER_SEED)
    positions = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        positions[members] = (np.arange(len(members)) + generator.uniform()) / len(members)
    return np.argsort(positions, kind="stable").astype(np.int64)


def _from_dataset(path: Path, shape: Shape | None, images: int) -> Pictures:
    dataset = open_dataset(path)
    split = dataset.split("test")
    if len(split) == 0:
        raise InputError(f"--data {path}: its test split is empty")
    chosen, order = np.arange(len(split)), STORED
    if images < len(split) and len(dataset.classes) > 1 and (np.diff(split.labels) >= 0).all():
        chosen, order = stratified_order(split.labels), SHUFFLED
    chosen = chosen[:images]
    arrays = [_shaped(Image.fromarray(array), shape) for array in split.images[chosen]]
    protocol = dataset.manifest.protocol
    resized = None if shape is None or shape[1:] == split.images.shape[1:3] else shape[1:]
    return Pictures(
        images=_stacked(arrays),
        labels=torch.from_numpy(split.labels[chosen]),
        classes=dataset.classes,
        info=dataset.info().model_copy(update={"resized": resized}),
        on_black=protocol in DATASETS and DATASETS[protocol].on_black,
        scaled=dataset.scaled,
        order=order,
    )


def _from_folder(path: Path, shape: Shape | None, images: int) -> Pictures:
    layout = read_layout(path, "--data")
    split = next(name for name in MEASURED if name in layout.splits)
    root, classes = layout.splits[split], layout.classes
    remarks = [*layout.remarks, *_split_remarks(split, root)]
    found: list[tuple[Path, int]]
    if classes:
        found = []
        for label, name in enumerate(classes):  # a class without pictures in this split keeps its index
            if (root / name).is_dir():
                listing = pictures_below(root / name)
                found += [(file, label) for file in listing.files]
                remarks += listing.remarks
        order = stratified_order(np.array([label for _, label in found], dtype=np.int64)) if found else ()
    else:
        found = [(file, -1) for file in pictures_in(root)]
        order = np.random.default_rng(ORDER_SEED).permutation(len(found))
    if not found:
        raise InputError(
            f"--data {root}: neither a dataset ({MANIFEST_FILE}) nor pictures ({', '.join(sorted(SUFFIXES))})"
        )
    chosen = [found[k] for k in order[:images]]
    arrays, info = _read(root, [file for file, _ in chosen], shape)
    shuffled = SHUFFLED if classes else f"shuffled, seed {ORDER_SEED}"
    return Pictures(
        images=_stacked(arrays),
        labels=torch.tensor([label for _, label in chosen]) if classes else None,
        classes=classes,
        info=DataInfo(name=path.resolve().name, realisation=0, path=str(path), **info),
        on_black=False,
        scaled=False,
        order=shuffled if split == "all" else f"{shuffled}, of {root.name}",
        remarks=tuple(remarks),
    )


def _split_remarks(split: PartName, root: Path) -> list[str]:
    """Report that a folder without a test split is measured on another."""
    if split == "val":
        return [f"{root.parent} has no test split: measured on {root.name}"]
    if split == "train":
        return [
            f"{root.parent} has neither test nor val: measured on {root.name}, which networks may have been trained on"
        ]
    return []


def _read(root: Path, files: Sequence[Path], shape: Shape | None) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Return the pictures, and of ``DataInfo`` the sha256 over their names and digests, ``lossy`` and ``resized``."""
    digest = hashlib.sha256()
    lossy = resized = False
    arrays: list[np.ndarray] = []
    for file in files:
        image, file_digest, format_name = open_picture(file)
        array = _shaped(image, shape)
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            raise InputError(
                f"{file}: {_size(array)} pixels, but {files[0]} has {_size(arrays[0])}; "
                "give --input CxHxW, for example 3x224x224, to bring all pictures to one size"
            )
        digest.update(f"{file.relative_to(root).as_posix()} {file_digest}\n".encode())
        lossy |= format_name in LOSSY_FORMATS
        resized |= image.size != array.shape[1::-1]
        arrays.append(array)
    size = arrays[0].shape[:2] if resized else None
    return arrays, {"digest": digest.hexdigest(), "lossy": lossy, "resized": size}


def _shaped(image: Image.Image, shape: Shape | None) -> np.ndarray:
    """Return a picture as (H, W) or (H, W, 3), resampled to a shape where one is given."""
    if shape is not None:
        channels, height, width = shape
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
    return np.array(image)


def _stacked(arrays: Sequence[np.ndarray]) -> UInt8[Tensor, "n c h w"]:
    """Return pictures as one tensor; one in colour makes all of them colour."""
    colour = any(array.ndim == 3 for array in arrays)
    planes = [array if array.ndim == 3 else array[..., None] for array in arrays]
    if colour:
        planes = [np.broadcast_to(plane, (*plane.shape[:2], 3)) for plane in planes]
    return torch.from_numpy(np.stack(planes)).permute(0, 3, 1, 2).contiguous()


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}×{array.shape[0]}"
