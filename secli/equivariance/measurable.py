"""At which factors a tap can be measured, told from its map's size and receptive field before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from secli.equivariance.cell_error import SMALLEST_SHARE

Around = Literal["black", "frame", "photo"]
"""What is around a picture that shrinks: the black that it has itself, a frame, or more of the photograph."""


def measurable_factors(
    plane: tuple[int, int],
    radius: float,
    image: tuple[int, int],
    factors: Sequence[float],
    around: Around,
    border: float | None = None,
    smallest_plane: float = 4.0,
) -> list[float]:
    """Return the factors at which a feature map has enough cells, and enough of them outside of every border.

    The map must have ``smallest_plane`` cells under the picture, and a tenth of it must be compared: on each axis
    min(s, 1)·n − 2b of n pixels, b the border, which is by default the radius where pictures get a frame, else 0.

    Parameters
    ----------
    plane : tuple
        Rows and columns of the map.
    radius : float
        Of the receptive field, in pixels.
    image : tuple
        Height and width of the pictures.
    border : float, optional
        In pixels, where it is chosen.

    Examples
    --------
    >>> measurable_factors((6, 6), 30.0, (96, 96), (1, 0.8, 0.5), "photo")
    [1, 0.8]
    >>> measurable_factors((6, 6), 30.0, (96, 96), (1, 0.8, 0.5), "frame")
    [1]
    """
    chosen = border if border is not None else radius if around == "frame" else 0.0
    found = []
    for factor in factors:
        least = min(1.0, factor)
        if min(plane) * least < smallest_plane - 1e-9:
            continue
        if around == "photo":  # the border shrinks with the window
            sides = [least * max(0.0, side - 2 * chosen) / side for side in image]
        else:
            sides = [max(0.0, least * side - 2 * chosen) / side for side in image]
        if sides[0] * sides[1] >= SMALLEST_SHARE:
            found.append(factor)
    return found
