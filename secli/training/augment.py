"""Scale augmentation, the published "+": each training image is rescaled by a random factor."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

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
