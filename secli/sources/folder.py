"""A directory of class folders of pictures, or one with ``train``, ``val`` and ``test`` above them."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from secli.errors import InputError, one_line
from secli.sources.contract import PartName, RawImages, Request, SourceInfo
from secli.sources.folder_layout import (
    FolderLayout,
    class_folders,
    no_pictures,
    pictures_below,
    pictures_in,
    read_layout,
)
from secli.sources.resizing import resize_picture

LOSSY_FORMATS = frozenset(("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF"))
GREY_MODES = frozenset(("1", "L", "LA", "La"))
DEEP_MODES = frozenset(("I", "F", "I;16", "I;16B", "I;16L", "I;16N"))


@dataclass(frozen=True)
class _Picture:
    path: Path
    label: int


def read(request: Request) -> RawImages:
    """Read a directory of class folders; classes and pictures are taken in the order of their names.

    Where the directory holds splits (see :func:`secli.sources.folder_layout.read_layout`), these are the source's
    parts. Grey pictures stay one channel; one colour picture makes all of them colour.

    Raises
    ------
    InputError
        When no directory is given, it or a class folder is empty, its splits have different classes or none is for
        training, a picture is damaged or deeper than 8 bits, or sizes differ without an ``image_size``.
    """
    directory = request.directory
    if directory is None:
        raise InputError(
            "--source is missing: a folder dataset is made from --source DIR, a directory of class folders"
        )
    if not directory.is_dir():
        raise InputError(f"--source {directory}: no such directory")
    layout = read_layout(directory, "--source")
    if not layout.classes:
        if (folders := class_folders(directory)) and not pictures_in(directory):
            raise no_pictures(folders[0])
        raise InputError(f"--source {directory}: no class folders in it; expected DIR/<class>/<picture>")
    if not {"train", "all"} & layout.splits.keys():
        raise InputError(f"--source {directory}: has no train split; add one, from which others may be drawn")
    remarks = list(layout.remarks)
    pictures: dict[PartName, list[_Picture]] = {}
    _check_classes(layout)
    for part, root in layout.splits.items():
        pictures[part], found = _pictures(root, layout.classes)
        remarks += found
    ordered = [picture for part in pictures for picture in pictures[part]]
    images, digest, lossy = _decode_all(directory, ordered, request.image_size)
    return RawImages(
        images=images,
        labels=np.array([picture.label for picture in ordered], dtype=np.int64),
        classes=layout.classes,
        parts=tuple((part, len(found)) for part, found in pictures.items()),
        lossy=lossy,
        info=SourceInfo(
            name="folder",
            digests={"folder": digest},
            verified=False,
            remark="one's own pictures: no published checksum",
        ),
        remarks=tuple(remarks),
    )


def _check_classes(layout: FolderLayout) -> None:
    """Refuse splits of different classes."""
    names = {root: {folder.name for folder in class_folders(root)} for root in layout.splits.values()}
    for root, own in names.items():
        for missing in sorted(set(layout.classes) - own):
            other = next(each for each, classes in names.items() if missing in classes)
            raise InputError(f"--source {root}: class folder '{missing}' is not in both {other} and {root}")


def _pictures(root: Path, classes: Sequence[str]) -> tuple[list[_Picture], list[str]]:
    """Return the pictures of all classes, and which links were not followed."""
    pictures, remarks = [], []
    for label, name in enumerate(classes):
        listing = pictures_below(root / name)
        remarks += listing.remarks
        if not listing.files:
            raise no_pictures(root / name)
        pictures += [_Picture(path, label) for path in listing.files]
    return pictures, remarks


def _decode_all(
    directory: Path, pictures: Sequence[_Picture], size: int | None
) -> tuple[np.ndarray, str, bool]:
    """Return all pictures as one array, the digest of their files and names, and whether any is lossy."""
    digest = hashlib.sha256()
    lossy = False
    arrays: list[np.ndarray] = []
    for picture in pictures:
        image, file_digest, format_name = open_picture(picture.path)
        array = np.asarray(image if size is None else resize_picture(image, size))
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            raise InputError(
                f"{picture.path}: {_size(array)} pixels, but {pictures[0].path} has {_size(arrays[0])}; "
                "give --image-size PX to bring all pictures to one size"
            )
        digest.update(f"{picture.path.relative_to(directory).as_posix()} {file_digest}\n".encode())
        lossy |= format_name in LOSSY_FORMATS
        arrays.append(array)
    if any(array.ndim == 3 for array in arrays):
        arrays = [array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2) for array in arrays]
    return np.stack(arrays), digest.hexdigest(), lossy


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}×{array.shape[0]}"


def open_picture(path: Path) -> tuple[Image.Image, str, str | None]:
    """Return one picture, grey or RGB, the sha256 of its file, and its format.

    Of an animation or a file with several pages the first picture is taken. A photograph is turned by its EXIF
    orientation; CMYK and palettes become RGB, and what is transparent becomes black.

    Raises
    ------
    InputError
        When it is damaged, too large for Pillow, or deeper than 8 bits.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not content:
        raise InputError(f"{path}: not a whole picture: the file is empty; replace it or remove it")
    try:
        # Pillow warns of pictures that are large, of palettes and of damaged EXIF data: none of it changes pixels
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as opened:
                format_name = opened.format
                deep = _deep(opened)
                image = None if deep else _flat(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: larger than Pillow opens ({_pixels(error)}); shrink it first") from None
    except MemoryError:
        raise
    except Exception as error:  # a decoder fails in many ways on damaged data: struct.error, IndexError, ...
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no picture format that Pillow knows" if unknown else one_line(error)
        raise InputError(f"{path}: not a whole picture: {reason}; replace it or remove it") from None
    if image is None:
        raise InputError(f"{path}: more than 8 bits per channel ({deep}); convert it to 8 bits")
    return image, hashlib.sha256(content).hexdigest(), format_name


def _deep(opened: Image.Image) -> str | None:
    """Describe a picture stored with more than 8 bits per channel, else None; Pillow drops the lower bits of
    16-bit RGB.
    """
    if opened.mode in DEEP_MODES:
        return f"mode {opened.mode}"
    for tile in getattr(opened, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        stored = next((part for part in arguments if isinstance(part, str)), "")
        if ";16" in stored:
            return f"stored as {stored}"
        if tile[0].startswith("ppm") and isinstance(arguments[-1], int) and arguments[-1] > 255:
            return f"its largest value is {arguments[-1]}"
    return None


def _pixels(error: Exception) -> str:
    """Return the pixels that a picture has and may have, from Pillow's message."""
    numbers = re.findall(r"\d+", str(error))
    if len(numbers) != 2:
        return str(error)
    pixels, most = (f"{int(number):,}".replace(",", " ") for number in numbers)
    return f"{pixels} pixels, at most {most}"


def _flat(image: Image.Image) -> Image.Image:
    """Bring a picture to grey or RGB; what is transparent becomes black, as beyond the picture's edge."""
    grey = image.mode in GREY_MODES
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), layers)
    return image.convert("L" if grey else "RGB")
