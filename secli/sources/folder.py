"""A directory of class folders of pictures, or one with ``train``, ``test`` and perhaps ``val`` above them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from secli.errors import InputError
from secli.sources.contract import PartName, RawImages, Request, SourceInfo
from secli.sources.resizing import resize

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
)
LOSSY_FORMATS = frozenset(("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF"))
GREY_MODES = frozenset(("1", "L", "LA", "La"))
DEEP_MODES = frozenset(("I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
PARTS: tuple[PartName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class _Picture:
    path: Path
    label: int


def read(request: Request) -> RawImages:
    """Read a directory of class folders; classes and pictures are taken in the order of their names.

    Where the directory holds ``train`` and ``test`` (and perhaps ``val``) with the class folders inside, these
    are the source's parts. Grey pictures stay one channel; one colour picture makes all of them colour.

    Raises
    ------
    InputError
        When no directory is given, it or a class folder is empty, a picture is damaged or deeper than 8 bits,
        or the pictures differ in size and no ``image_size`` is asked for.
    """
    directory = request.directory
    if directory is None:
        raise InputError(
            "--source is missing: a folder dataset is made from --source DIR, a directory of class folders"
        )
    if not directory.is_dir():
        raise InputError(f"--source {directory}: no such directory")
    roots = _parts(directory)
    classes = _classes(roots)
    pictures = {part: _pictures(root, classes) for part, root in roots.items()}
    ordered = [picture for part in roots for picture in pictures[part]]
    images, digest, lossy = _decode(directory, ordered, request.image_size)
    return RawImages(
        images=images,
        labels=np.array([picture.label for picture in ordered], dtype=np.int64),
        classes=classes,
        parts=tuple((part, len(pictures[part])) for part in roots),
        lossy=lossy,
        info=SourceInfo(
            name="folder",
            digests={"folder": digest},
            verified=False,
            remark="one's own pictures: no published checksum",
        ),
    )


def _parts(directory: Path) -> dict[PartName, Path]:
    """Return the directories that hold class folders: one, or one per part."""
    found = {part: directory / part for part in PARTS if _folders(directory / part)}
    return found if "train" in found and "test" in found else {"all": directory}


def _folders(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes(roots: dict[PartName, Path]) -> tuple[str, ...]:
    """Return the class names, which must be the same in every part."""
    names = {root: tuple(folder.name for folder in _folders(root)) for root in roots.values()}
    first, classes = next(iter(names.items()))
    if not classes:
        raise InputError(f"--source {first}: no class folders in it; expected DIR/<class>/<picture>")
    for root, other in names.items():
        if different := sorted(set(other) ^ set(classes)):
            raise InputError(
                f"--source {root}: class folder '{different[0]}' is not in both {first} and {root}"
            )
    return classes


def _pictures(root: Path, classes: Sequence[str]) -> list[_Picture]:
    pictures = []
    for label, name in enumerate(classes):
        paths = sorted(
            path for path in (root / name).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        if not paths:
            raise InputError(
                f"{root / name}: no pictures in this class folder ({', '.join(sorted(SUFFIXES))})"
            )
        pictures += [_Picture(path, label) for path in paths]
    return pictures


def _decode(directory: Path, pictures: Sequence[_Picture], size: int | None) -> tuple[np.ndarray, str, bool]:
    """Return all pictures as one array, the digest of their files and names, and whether any is lossy."""
    digest = hashlib.sha256()
    lossy = False
    arrays: list[np.ndarray] = []
    for picture in pictures:
        array, file_digest, format_name = _open(picture.path, size)
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


def _open(path: Path, size: int | None) -> tuple[np.ndarray, str, str | None]:
    """Return one picture as uint8, (H, W) or (H, W, 3), the sha256 of its file, and its format."""
    image, digest, format_name = open_picture(path)
    if size is not None:
        image = resize(image, size)
    return np.asarray(image), digest, format_name


def open_picture(path: Path) -> tuple[Image.Image, str, str | None]:
    """Return one picture, grey or RGB, the sha256 of its file, and its format.

    Raises
    ------
    InputError
        When it is damaged, or deeper than 8 bits.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            format_name = opened.format
            if opened.mode in DEEP_MODES:
                raise InputError(
                    f"{path}: more than 8 bits per channel (mode {opened.mode}); convert it to 8 bits"
                )
            image = _flat(ImageOps.exif_transpose(opened))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        raise InputError(
            f"{path}: not a whole picture that Pillow can read; replace it or remove it"
        ) from None
    return image, hashlib.sha256(content).hexdigest(), format_name


def _flat(image: Image.Image) -> Image.Image:
    """Bring a picture to grey or RGB; what is transparent becomes black, as beyond the picture's edge."""
    grey = image.mode in GREY_MODES
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), layers)
    return image.convert("L" if grey else "RGB")
