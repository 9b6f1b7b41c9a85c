"""Pictures as PNG files."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def png_files(images: UInt8[np.ndarray, "n h w *c"]) -> list[bytes]:
    """Return each picture, grey or RGB, as a PNG file that is compressed for speed."""
    files = [io.BytesIO() for _ in images]
    for image, file in zip(images, files, strict=True):
        Image.fromarray(image).save(file, format="PNG", compress_level=1)
    return [file.getvalue() for file in files]
