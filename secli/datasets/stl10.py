"""The augmentation of the STL-10 protocol: pad, crop, flip, cut out.

Pixels are in [0, 1]; the normalisation, published between the flip and the cutout, is inside the model, so the
cutout's "zero after normalisation" is the mean colour here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

PADDING = 12
CUTOUT = 32
FLIP_PROBABILITY = 0.5
MEAN = (0.4467, 0.4398, 0.4066)
STD = (0.2603, 0.2566, 0.2713)

Pad = Literal["black", "mean"]


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of one batch.

    Attributes
    ----------
    offsets
        Row and column at which the crop begins in the padded picture, 0 to 2·padding, shape (N, 2).
    flips
        Whether each picture is mirrored left to right, shape (N,).
    centres
        Row and column of the centre of the cutout, anywhere in the picture, shape (N, 2).
    """

    offsets: Int64[Tensor, "n 2"]
    flips: Bool[Tensor, "n"]
    centres: Int64[Tensor, "n 2"]


def draw(count: int, size: tuple[int, int], generator: torch.Generator) -> Draws:
    """Draw the random numbers for ``count`` pictures of the given height and width, on the generator's device."""
    device = generator.device
    offsets = torch.randint(0, 2 * PADDING + 1, (count, 2), generator=generator, device=device)
    flips = torch.rand(count, generator=generator, device=device) < FLIP_PROBABILITY
    rows = torch.randint(0, size[0], (count,), generator=generator, device=device)
    columns = torch.randint(0, size[1], (count,), generator=generator, device=device)
    return Draws(offsets, flips, torch.stack([rows, columns], dim=1))


def pad(images: Float[Tensor, "n 3 h w"], fill: Pad = "black") -> Float[Tensor, "n 3 h2 w2"]:
    """Surround the pictures with 12 pixels: black, as published, or the mean colour, as in the reproduction."""
    padded = torch.nn.functional.pad(images, [PADDING] * 4)
    if fill == "mean":
        frame = torch.nn.functional.pad(torch.zeros_like(images[:1, :1]), [PADDING] * 4, value=1.0)
        padded = padded + frame * _mean(images)
    return padded


def crop(padded: Float[Tensor, "n 3 h2 w2"], offsets: Int64[Tensor, "n 2"]) -> Float[Tensor, "n 3 h w"]:
    """Cut a window of the original size out of each padded picture, beginning at its offset."""
    count, _, height, width = padded.shape
    rows = offsets[:, :1] + torch.arange(height - 2 * PADDING, device=padded.device)
    columns = offsets[:, 1:] + torch.arange(width - 2 * PADDING, device=padded.device)
    picture = torch.arange(count, device=padded.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip(images: Float[Tensor, "n 3 h w"], flips: Bool[Tensor, "n"]) -> Float[Tensor, "n 3 h w"]:
    """Mirror the chosen pictures left to right."""
    return torch.where(flips[:, None, None, None], images.flip(-1), images)


def cutout(images: Float[Tensor, "n 3 h w"], centres: Int64[Tensor, "n 2"]) -> Float[Tensor, "n 3 h w"]:
    """Set one 32×32 square per picture to the mean colour (DeVries and Taylor 2017).

    The square covers rows c − 16 … c + 15 about its centre c, likewise columns, and is clipped at the edges.
    """
    rows = torch.arange(images.shape[2], device=images.device) - centres[:, :1]
    columns = torch.arange(images.shape[3], device=images.device) - centres[:, 1:]
    half = CUTOUT // 2
    inside_rows = (rows >= -half) & (rows < half)
    inside_columns = (columns >= -half) & (columns < half)
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(inside, _mean(images), images)


def stages(
    images: Float[Tensor, "n 3 h w"], draws: Draws, fill: Pad = "black"
) -> dict[str, Float[Tensor, "n 3 _ _"]]:
    """Return the pictures after each step: original, padded, cropped, flipped, cut out."""
    padded = pad(images, fill)
    cropped = crop(padded, draws.offsets)
    flipped = flip(cropped, draws.flips)
    return {
        "original": images,
        "padded": padded,
        "cropped": cropped,
        "flipped": flipped,
        "cut out": cutout(flipped, draws.centres),
    }


def augment(
    images: Float[Tensor, "n 3 h w"], generator: torch.Generator, fill: Pad = "black"
) -> Float[Tensor, "n 3 h w"]:
    """Return the augmented pictures, pixels in [0, 1]; the random numbers come from ``generator``."""
    draws = draw(len(images), (images.shape[2], images.shape[3]), generator)
    return stages(images, draws, fill)["cut out"]


def _mean(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "1 3 1 1"]:
    # filled where the pictures are: to copy three numbers to an accelerator would be to wait for it
    return torch.stack([images.new_full((), value) for value in MEAN]).view(1, 3, 1, 1)
