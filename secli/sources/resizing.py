"""Pictures of any size, brought to one square canvas."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps


def resize_picture(image: Image.Image, size: int) -> Image.Image:
    """Bring a picture to size × size pixels with Pillow's cubic filter.

    The largest centred square is resampled, so that shapes keep their proportions; shrinking is antialiased.
    """
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)


def resize_all(images: np.ndarray, size: int) -> np.ndarray:
    """Bring every picture of a uint8 array (N, H, W) or (N, H, W, 3) to size × size pixels."""
    if images.shape[1:3] == (size, size):
        return images
    resized = np.empty((len(images), size, size, *images.shape[3:]), dtype=np.uint8)
    for index, image in enumerate(images):
        resized[index] = np.asarray(resize_picture(Image.fromarray(image), size))
    return resized
