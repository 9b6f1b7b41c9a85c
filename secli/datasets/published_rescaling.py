"""The published rescaling of a picture on its canvas, bit for bit (not L_s: that is ``secli.action.images``)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image


def rescale_as_published(
    images: UInt8[np.ndarray, "n h w *c"], factors: Float64[np.ndarray, "n"]
) -> UInt8[np.ndarray, "n h w *c"]:
    """Shrink or enlarge each picture on an unchanged canvas, black beyond its edges.

    Output pixel (x, y) reads input (x/s + c − c/s, likewise y) by Pillow's affine transform with its bicubic
    filter, without antialiasing; c = n/2 + ½ in Pillow's convention, in which pixel 0 covers [0, 1): half a
    pixel beyond the true centre, as published (Sosnovik, Szmaja, Smeulders, ICLR 2020, after torchvision's
    affine transform of its time). The coefficients are computed in the order of the published code, because
    the last bit of a double can turn a pixel.
    """
    height, width = images.shape[1:3]
    mode = "RGB" if images.ndim == 4 else "L"
    rescaled = np.empty_like(images, order="C")
    flat = rescaled.reshape(len(images), -1)
    centre_x, centre_y = width * 0.5 + 0.5, height * 0.5 + 0.5
    for index, factor in enumerate(factors.tolist()):
        inverse = 1.0 / factor
        coefficients = (
            inverse,
            0.0,
            inverse * -centre_x + inverse * 0.0 * -centre_y + centre_x,
            0.0,
            inverse,
            inverse * 0.0 * -centre_x + inverse * -centre_y + centre_y,
        )
        picture = Image.frombytes(mode, (width, height), images[index].tobytes()).transform(
            (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
        )
        flat[index] = np.frombuffer(picture.tobytes(), dtype=np.uint8)
    return rescaled
