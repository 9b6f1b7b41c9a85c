"""The ruler's work done as a script would do it: picture by picture, channel by channel, with ``scipy.ndimage``.

Only to say what two cached matrices save; nothing is measured with it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from secli.action.images import SAMPLING_BLUR, blur_variance


def zoomed(plane: Float[np.ndarray, "h w"], factor: float, blur: float) -> Float[np.ndarray, "h w"]:
    """Return a plane rescaled about its centre on an unchanged canvas, zeros outside.

    A Gaussian filter against aliasing when it shrinks, then scipy's cubic ``zoom``, whose result is of the size
    round(n·s): it is put into the middle of the canvas, or its middle is taken.

    Parameters
    ----------
    plane : array (H, W)
        One channel.
    factor : float
        Scale factor s.
    blur : float
        The blur σ that a shrunk plane keeps, in cells.
    """
    variance = blur_variance(factor, blur)
    smooth = ndimage.gaussian_filter(plane, variance**0.5, mode="constant") if variance else plane
    small = ndimage.zoom(smooth, factor, order=3, mode="grid-constant", grid_mode=True)
    canvas = np.zeros_like(plane)
    targets, sources = [], []
    for n, m in zip(plane.shape, small.shape, strict=True):
        size, over = min(n, m), abs(n - m) // 2
        targets.append(slice(over, over + size) if m < n else slice(0, size))
        sources.append(slice(0, size) if m < n else slice(over, over + size))
    canvas[tuple(targets)] = small[tuple(sources)]
    return canvas


def looped_error(
    before: Float[np.ndarray, "c h w"], after: Float[np.ndarray, "c h w"], factor: float, stride: float = 1.0
) -> float:
    """Return ‖L_s F − G‖² / ‖L_s F‖² of one picture's planes, each rescaled by itself.

    Parameters
    ----------
    before, after : array (C, H, W)
        F = Φ(f) and G = Φ(L_s f), background taken away; levels and channels on the first axis.
    factor : float
        Scale factor s.
    stride : float
        Image pixels per cell.
    """
    difference = size = 0.0
    for plane, other in zip(before, after, strict=True):
        moved = zoomed(plane, factor, SAMPLING_BLUR / stride)
        difference += float(((moved - other).astype(np.float64) ** 2).sum())
        size += float((moved.astype(np.float64) ** 2).sum())
    return difference / size if size else float("nan")
