"""Pictures to measure on: the test split of a built dataset, or a folder of anybody's pictures."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from secli.datasets.manifest import MANIFEST_FILE
from secli.datasets.photographs import Photographs, WindowRequest, grouped, scaled_photograph
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
    photographs
        What the images are windows of, in the same order; None where they are whole pictures.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"] | None
    classes: tuple[str, ...]
    info: DataInfo
    on_black: bool
    scaled: bool
    order: str = STORED
    remarks: tuple[str, ...] = ()
    photographs: Photographs | None = None


def open_pictures(
    path: Path,
    *,
    input_shape: Shape | None = None,
    images: int = 1000,
    windows: WindowRequest | None = None,
) -> Pictures:
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
    windows : WindowRequest, optional
        Keep the photographs, and make the images windows of them; ``input_shape`` then gives the channels alone.

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
        return _from_dataset(path, input_shape, images, windows)
    return _from_folder(path, input_shape, images, windows)


def are_large_enough(path: Path, windows: WindowRequest, images: int) -> bool:
    """Return whether every picture that :func:`open_pictures` would take leaves room for the windows.

    Of files the headers alone are read.
    """
    if (path / MANIFEST_FILE).exists():
        side = min(open_dataset(path).split("test").images.shape[1:3], default=0)
        return side > max(windows.size) and windows.possible((side, side)) is not None
    try:
        _, chosen = _chosen(path, images)
    except InputError:  # opening them tells
        return False
    for file, _ in chosen:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(file) as opened:
                    side = min(opened.size)
        except Exception:  # a decoder fails in many ways on damaged data; reading the picture tells
            return False
        # the shorter side, whichever way the picture is turned
        if side <= max(windows.size) or windows.possible((side, side)) is None:
            return False
    return True


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


def _from_dataset(path: Path, shape: Shape | None, images: int, windows: WindowRequest | None) -> Pictures:
    dataset = open_dataset(path)
    split = dataset.split("test")
    if len(split) == 0:
        raise InputError(f"--data {path}: its test split is empty")
    chosen, order = np.arange(len(split)), STORED
    if images < len(split) and len(dataset.classes) > 1 and (np.diff(split.labels) >= 0).all():
        chosen, order = stratified_order(split.labels), SHUFFLED
    chosen = chosen[:images]
    taken = (Image.fromarray(array) for array in split.images[chosen])
    read = _Reader(shape, windows, f"--data {path}")
    for index, image in enumerate(taken):
        read.add(image, index)
    pixels, photographs, kept = read.pictures()
    protocol = dataset.manifest.protocol
    size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    resized = None if shape is None or size == split.images.shape[1:3] else size
    return Pictures(
        images=pixels,
        labels=torch.from_numpy(split.labels[chosen[kept]]),
        classes=dataset.classes,
        info=dataset.info().model_copy(update={"resized": resized}),
        on_black=protocol in DATASETS and DATASETS[protocol].on_black,
        scaled=dataset.scaled,
        order=order,
        remarks=read.remarks,
        photographs=photographs,
    )


def _chosen(path: Path, images: int) -> tuple[FolderChoice, list[tuple[Path, int]]]:
    """Return what of a folder is measured: the files in their order, with their classes (−1 without)."""
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
    shuffled = SHUFFLED if classes else f"shuffled, seed {ORDER_SEED}"
    text = shuffled if split == "all" else f"{shuffled}, of {root.name}"
    return FolderChoice(root, classes, text, tuple(remarks)), [found[k] for k in order[:images]]


class FolderChoice(NamedTuple):
    """What of a folder is measured: the split's folder, its classes, the order in words, remarks on how it was read."""

    root: Path
    classes: tuple[str, ...]
    order: str
    remarks: tuple[str, ...]


def _from_folder(path: Path, shape: Shape | None, images: int, windows: WindowRequest | None) -> Pictures:
    choice, chosen = _chosen(path, images)
    read = _Reader(shape, windows, f"--data {path}")
    info = _read(choice.root, [file for file, _ in chosen], read)
    pixels, photographs, kept = read.pictures()
    labels = torch.tensor([chosen[k][1] for k in kept]) if choice.classes else None
    return Pictures(
        images=pixels,
        labels=labels,
        classes=choice.classes,
        info=DataInfo(name=path.resolve().name, realisation=0, path=str(path), **info),
        on_black=False,
        scaled=False,
        order=choice.order,
        remarks=(*choice.remarks, *read.remarks),
        photographs=photographs,
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


def _read(root: Path, files: Sequence[Path], read: _Reader) -> dict[str, Any]:
    """Read pictures; return of ``DataInfo`` the sha256 over their names and digests, ``lossy`` and ``resized``."""
    digest = hashlib.sha256()
    lossy = resized = False
    first: tuple[Path, np.ndarray] | None = None
    for index, file in enumerate(files):
        image, file_digest, format_name = open_picture(file)
        digest.update(f"{file.relative_to(root).as_posix()} {file_digest}\n".encode())
        lossy |= format_name in LOSSY_FORMATS
        array = read.add(image, index)
        if array is None or read.windows is not None:
            continue
        if first is not None and array.shape[:2] != first[1].shape[:2]:
            raise InputError(
                f"{file}: {_size(array)} pixels, but {first[0]} has {_size(first[1])}; "
                "give --input CxHxW, for example 3x224x224, to bring all pictures to one size"
            )
        resized |= image.size != array.shape[1::-1]
        first = first or (file, array)
    size = first[1].shape[:2] if resized and first is not None else None
    if read.windows is not None:
        size = read.windows.size
    return {"digest": digest.hexdigest(), "lossy": lossy, "resized": size}


class _Reader:
    """Brings pictures to one shape, or keeps what the windows of photographs need of them."""

    def __init__(self, shape: Shape | None, windows: WindowRequest | None, what: str) -> None:
        self.shape, self.windows, self.what = shape, windows, what
        self._whole: list[np.ndarray] = []
        self._photographs: list[tuple[Tensor, int]] = []
        self._kept: list[int] = []
        self._left_out = 0

    def add(self, image: Image.Image, index: int) -> np.ndarray | None:
        """Take the picture of an index; return its pixels, None where it was too small."""
        if self.windows is None:
            array = _shaped(image, self.shape)
            self._whole.append(array)
            self._kept.append(index)
            return array
        if self.shape is not None:
            image = image.convert("L" if self.shape[0] == 1 else "RGB")
        kept = scaled_photograph(image, self.windows)
        if kept is None:
            self._left_out += 1
            return None
        array, enlarged = kept
        self._photographs.append((_stacked([array])[0], enlarged))
        self._kept.append(index)
        return array

    def pictures(self) -> tuple[UInt8[Tensor, "n c h w"], Photographs | None, list[int]]:
        """Return the pictures, what they are windows of, and their indices in the order in which they now stand."""
        if self.windows is None:
            return _stacked(self._whole), None, self._kept
        photographs, order = grouped(self._photographs, self.windows, self._left_out, self.what)
        return photographs.windows, photographs, [self._kept[k] for k in order]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know of pictures that were left out."""
        if not self._left_out or self.windows is None:
            return ()
        height, width = self.windows.needed(0)
        return (f"{self._left_out} photographs smaller than {width}×{height} pixels are left out",)


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
