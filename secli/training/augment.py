"""Augmentations of training images: the published scale augmentation "+", and the one of STL-10.

An augmentation draws the random numbers of a whole epoch at once, one row for each position in the epoch's order, and
applies the rows of a batch to its images. The augmented image therefore depends on the seed, the epoch and its
position alone: not on the step from which a run was resumed, nor on how many devices share a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from secli.config import Centre, TrainingSettings
from secli.datasets import stl10

Draws = tuple[Tensor, ...]
"""Random numbers, each tensor with one row per image."""

LOWEST, HIGHEST = 0.5, 2.0


def draw_scale_factors(count: int, generator: torch.Generator) -> Float[Tensor, "n"]:
    """Draw scale factors uniformly from [0.5, 2] (Sosnovik et al., ICLR 2020, section 6.1).

    From a CPU generator, so that the factors do not depend on the device that trains.
    """
    return torch.empty(count).uniform_(LOWEST, HIGHEST, generator=generator)


def rescale_bicubic(
    images: Float[Tensor, "n c h w"], factors: Float[Tensor, "n"], centre: Centre = "pixel"
) -> Float[Tensor, "n c h w"]:
    """Rescale each picture on an unchanged canvas like Pillow's bicubic affine transform, zeros outside.

    Output pixel i reads the input at u = (i + ½ − c)/s + c, pixel 0 covering [0, 1), along rows and columns alike::

        y(i) = Σ_j k(u − ½ − j) x(j) for 0 ≤ u < n, else 0

    with Keys' kernel k, a = −1, the edge pixels repeated. Pixels are in [0, 1], and clamped to it, as by an 8-bit
    resampler, but not rounded to 256 steps. No antialiasing: like the augmentation of Sosnovik et al. (ICLR 2020,
    section 6.1), this is the affine resampler of an image library, not the operator L_s of the errors.

    Parameters
    ----------
    factors : Tensor
        s > 0 per image; s < 1 shrinks the picture.
    centre : "pixel" or "corner"
        c = (n + 1)/2 (14.5 on 28 pixels), half a pixel beyond the picture's centre, as in the recipe of mnist-scale
        (``secli.datasets.published_rescaling``); or its centre, c = n/2.
    """
    inverse = factors.to(images.dtype).reciprocal()
    rows, columns = (_cubic_reading(size, inverse, centre) for size in images.shape[2:])
    return (rows.unsqueeze(1) @ images @ columns.unsqueeze(1).mT).clamp_(0, 1)


def _cubic_reading(size: int, inverse: Float[Tensor, "n"], centre: Centre) -> Float[Tensor, "n i j"]:
    """Return, per image, the matrix that reads a row of pixels at the positions of a rescaled one."""
    pixels = torch.arange(size, device=inverse.device, dtype=inverse.dtype)
    about = (size + 1) / 2 if centre == "pixel" else size / 2
    positions = (pixels + 0.5 - about) * inverse[:, None] + about
    inside = (positions >= 0) & (positions < size)
    # the edge pixel is repeated outside: two more columns on either side, their weights added to its own
    around = torch.arange(-2, size + 2, device=inverse.device, dtype=inverse.dtype)
    weights = _keys((positions - 0.5).unsqueeze(2) - around)
    weights[..., 2] += weights[..., 0] + weights[..., 1]
    weights[..., -3] += weights[..., -1] + weights[..., -2]
    return weights[..., 2:-2] * inside.unsqueeze(2)


def _keys(distance: Tensor) -> Tensor:
    """Return Keys' cubic convolution kernel (IEEE Transactions on ASSP 29, 1981) with a = −1.

    That is the one of Pillow's transforms (its ``Geometry.c``); Pillow's ``resize`` has a = −½.
    """
    d = distance.abs()
    near = (d - 2) * d * d + 1
    far = ((5 - d) * d - 8) * d + 4
    return torch.where(d < 1, near, torch.where(d < 2, far, 0.0))


class Augmentation(ABC):
    """A random change of training images, and of no others, before the network."""

    def unfit(self, channels: int, height: int, width: int) -> str | None:
        """Return the images that it needs instead of such; None when it takes these."""
        return None

    @abstractmethod
    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Draws:
        """Draw the random numbers for ``count`` images of this height and width, on the CPU generator's device."""

    @abstractmethod
    def apply(self, images: Float[Tensor, "n c h w"], draws: Draws) -> Float[Tensor, "n c h w"]:
        """Return the augmented images, pixels in [0, 1]; the draws are on the images' device."""


class RandomScale(Augmentation):
    """``augment: scale``: rescale each image by a factor from U[0.5, 2] (Sosnovik et al., ICLR 2020).

    See :func:`rescale_bicubic` for ``centre``.
    """

    def __init__(self, centre: Centre = "pixel") -> None:
        self.centre = centre

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Draws:
        """Draw the factors."""
        return (draw_scale_factors(count, generator),)

    def apply(self, images: Float[Tensor, "n c h w"], draws: Draws) -> Float[Tensor, "n c h w"]:
        """Rescale."""
        return rescale_bicubic(images, draws[0], self.centre)


class CropFlipCutout(Augmentation):
    """``augment: stl10``: pad 12, crop, mirror half of them, cut out 32×32 (``secli.datasets.stl10``).

    Images may have any size from 32×32 on; the padding is black or mean, and the cutout, and ``mean``, are the mean
    colour of STL-10.
    """

    def __init__(self, fill: stl10.Pad) -> None:
        self.fill = fill

    def unfit(self, channels: int, height: int, width: int) -> str | None:
        """Require three channels, and room for the cutout."""
        if channels == 3 and min(height, width) >= stl10.CUTOUT:
            return None
        return f"needs colour images of at least {stl10.CUTOUT}×{stl10.CUTOUT} pixels"

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Draws:
        """Draw where the crop begins, whether to mirror, and the centre of the cutout."""
        draws = stl10.draw(count, size, generator)
        return draws.offsets, draws.flips, draws.centres

    def apply(self, images: Float[Tensor, "n 3 h w"], draws: Draws) -> Float[Tensor, "n 3 h w"]:
        """Pad, crop, mirror and cut out, in this order."""
        return stl10.stages(images, stl10.Draws(*draws), self.fill)["cut out"]


AUGMENTATIONS: dict[str, Callable[[TrainingSettings], Augmentation | None]] = {
    "none": lambda training: None,
    "scale": lambda training: RandomScale(training.centre),
    "stl10": lambda training: CropFlipCutout(training.pad),
}
"""By the name in ``training.augment``; a new one is a class here, an entry here, a name in ``secli.config``."""


def augmentation_of(training: TrainingSettings) -> Augmentation | None:
    """Return the augmentation in the settings; None for none."""
    return AUGMENTATIONS[training.augment](training)
