"""The random numbers of an epoch that do not depend on the network: the order of the images, and their augmentation."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from secli.training.augment import Augmentation, Draws
from secli.training.determinism import Draw, generator_of


def image_order(count: int, seed: int, epoch: int) -> Int64[Tensor, "n"]:
    """Return the order in which an epoch takes its images, on the CPU."""
    return torch.randperm(count, generator=generator_of(Draw.ORDER, seed, epoch))


def augmentation_draws(
    augmentation: Augmentation | None, count: int, size: tuple[int, int], seed: int, epoch: int
) -> Draws:
    """Return the random numbers of an epoch's augmentation, in the order of its images, on the CPU."""
    if augmentation is None:
        return ()
    return augmentation.draw(count, size, generator_of(Draw.AUGMENT, seed, epoch))
