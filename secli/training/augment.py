"""Augmentations of training images: the published scale augmentation "+", and the one of STL-10.

An augmentation draws the random numbers of a whole epoch at once, one row for each place in the epoch's order, and
applies the rows of a batch to its images. What an image becomes therefore depends on the seed, the epoch and its
place alone: not on the step a run went on from, nor on how many devices share a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from secli.config import TrainingSettings
from secli.datasets import stl10

Draws = tuple[Tensor, ...]
"""Random numbers, each tensor with one row per image."""

LOWEST, HIGHEST = 0.5, 2.0


def draw_factors(count: int, generator: torch.Generator) -> Float[Tensor, "n"]:
    """Draw scale factors uniformly from [0.5, 2] (Sosnovik et al., ICLR 2020, section 6.1).

    Parameters
    ----------
    count : int
        How many.
    generator : torch.Generator
        A CPU generator; the factors therefore do not depend on the device that trains.
    """
    return torch.empty(count).uniform_(LOWEST, HIGHEST, generator=generator)


def rescale(images: Float[Tensor, "n c h w"], factors: Float[Tensor, "n"]) -> Float[Tensor, "n c h w"]:
    """Rescale each picture about its centre on an unchanged canvas: x ↦ f(x/s), bicubic, zeros outside.

    Parameters
    ----------
    images : Tensor
        Pixels in [0, 1], shape (N, C, H, W).
    factors : Tensor
        One factor s > 0 per image, shape (N,); s < 1 shrinks the picture.

    Returns
    -------
    Tensor
        Same shape; clamped to [0, 1], as the output of an 8-bit resampler would be.

    Notes
    -----
    No antialiasing: like the augmentation of Sosnovik et al. (ICLR 2020, section 6.1), this is the affine
    resampler of an image library, not the operator L_s that errors are measured with. The cubic kernel is
    Keys' with a = −3/4 (that of ``torch.nn.functional.grid_sample``).
    """
    inverse = factors.to(images.dtype).reciprocal()
    zero = torch.zeros_like(inverse)
    rows = (torch.stack([inverse, zero, zero], dim=1), torch.stack([zero, inverse, zero], dim=1))
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return moved.clamp_(0, 1)


class Augmentation(ABC):
    """What happens to training images, and to no others, before the network sees them."""

    def unfit(self, channels: int, height: int, width: int) -> str | None:
        """Say which images it needs instead of such; None when it takes these."""
        return None

    @abstractmethod
    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Draws:
        """Draw the random numbers for ``count`` images of this height and width, on the CPU generator's device."""

    @abstractmethod
    def apply(self, images: Float[Tensor, "n c h w"], draws: Draws) -> Float[Tensor, "n c h w"]:
        """Return the augmented images, pixels in [0, 1]; the draws lie on the images' device."""


class RandomScale(Augmentation):
    """``augment: scale``: rescale each image by a factor from U[0.5, 2] (Sosnovik et al., ICLR 2020)."""

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Draws:
        """Draw the factors."""
        return (draw_factors(count, generator),)

    def apply(self, images: Float[Tensor, "n c h w"], draws: Draws) -> Float[Tensor, "n c h w"]:
        """Rescale."""
        return rescale(images, *draws)


class CropFlipCutout(Augmentation):
    """``augment: stl10``: pad 12, crop, mirror half of them, cut out 32×32 (``secli.datasets.stl10``).

    Parameters
    ----------
    fill : "black" or "mean"
        What is padded.

    Notes
    -----
    Images may have any size from 32×32 on; the cutout, and ``mean``, are the mean colour of STL-10.
    """

    def __init__(self, fill: stl10.Pad) -> None:
        self.fill = fill

    def unfit(self, channels: int, height: int, width: int) -> str | None:
        """Ask for three channels, and room for the cutout."""
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
    "scale": lambda training: RandomScale(),
    "stl10": lambda training: CropFlipCutout(training.pad),
}
"""By the name that ``training.augment`` takes; a new one is a class here, a line here, a name in ``secli.config``."""


def augmentation_of(training: TrainingSettings) -> Augmentation | None:
    """Return the augmentation that the settings ask for; None for none."""
    return AUGMENTATIONS[training.augment](training)
