"""Photographs larger than a network's input, of which windows are measured: their size, and what is kept of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from secli.action.images import centre_crop
from secli.errors import InputError

SIZES = 8
"""About so many sizes of windows, at most."""

Size = tuple[int, int]


@dataclass(frozen=True)
class WindowRequest:
    """The windows that are wanted of photographs.

    Attributes
    ----------
    size
        Height and width of a network's input.
    smallest
        The smallest scale factor: so much more of the world is needed.
    enlarged
        Pixels on every side by which windows should be enlarged.
    step
        A window is enlarged by multiples of it.
    """

    size: Size
    smallest: float = 1.0
    enlarged: int = 0
    step: int = 1

    def needed(self, enlarged: int) -> Size:
        """Return the height and width of a photograph whose windows can be enlarged by so many pixels."""
        factor = min(self.smallest, 1.0)
        return (
            math.ceil((self.size[0] + 2 * enlarged) / factor - 1e-6),
            math.ceil((self.size[1] + 2 * enlarged) / factor - 1e-6),
        )

    def possible(self, photograph: Size) -> int | None:
        """Return by how much a photograph's windows can be enlarged; None when it is too small for any window."""
        spare = min(
            (side * min(self.smallest, 1.0) - n) / 2 for side, n in zip(photograph, self.size, strict=True)
        )
        if spare < -1e-6:
            return None
        if spare >= self.enlarged:
            return self.enlarged
        # a few sizes only: each is measured by itself
        step = self.step * max(1, self.enlarged // (SIZES * self.step))
        return min(self.enlarged, int((spare + 1e-6) // step) * step)


class PhotographGroup(NamedTuple):
    """Photographs of one size, whose windows are enlarged by so many pixels; uint8, or float in [0, 1]."""

    enlarged: int
    images: Tensor


@dataclass(frozen=True, eq=False)
class Photographs:
    """Photographs that windows of a size are taken of, those with the same surroundings together.

    Attributes
    ----------
    request
        The windows.
    groups
        The photographs, those with the widest surroundings first.
    left_out
        How many were too small.
    """

    request: WindowRequest
    groups: tuple[PhotographGroup, ...]
    left_out: int = 0

    def __len__(self) -> int:
        return sum(len(group.images) for group in self.groups)

    @property
    def windows(self) -> UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]:
        """The windows at s = 1, as the network takes them, group after group."""
        return torch.cat([centre_crop(group.images, self.request.size) for group in self.groups])


def scaled_photograph(image: Image.Image, request: WindowRequest) -> tuple[np.ndarray, int] | None:
    """Return what is kept of a photograph, (H, W) or (H, W, 3), and by how much its windows can be enlarged.

    It is scaled down, never up, until the windows just fit at the smallest factor (antialiased cubic filter), and
    cut about its centre to what they need; None when it is too small for any.
    """
    width, height = image.size
    enlarged = request.possible((height, width))
    if enlarged is None:
        return None
    needed = request.needed(enlarged)
    scale = max(needed[0] / height, needed[1] / width)
    # one that is too small for the surroundings asked for stays as it is
    if enlarged == request.enlarged and scale < 1:
        size = (max(round(width * scale), needed[1]), max(round(height * scale), needed[0]))
        image = image.resize(size, Image.Resampling.BICUBIC)
    array = np.array(image)
    rows, columns = _kept((array.shape[0], array.shape[1]), needed, request.size)
    return array[rows, columns], enlarged


def _kept(size: Size, needed: Size, window: Size) -> tuple[slice, slice]:
    """Return the rows and columns about a picture's centre that are needed, even or odd as the window's sides are."""
    slices = []
    for pixels, least, n in zip(size, needed, window, strict=True):
        kept = least + (least - n) % 2
        if kept > pixels:
            kept -= 2  # by one pixel too narrow: the photograph's edge goes on
        start = (pixels - kept) // 2
        slices.append(slice(start, start + kept))
    return slices[0], slices[1]


def grouped(
    pictures: Sequence[tuple[Tensor, int]], request: WindowRequest, left_out: int, what: str
) -> tuple[Photographs, list[int]]:
    """Return photographs (C, H, W), each with its surroundings, by these, and the order in which they now stand.

    Raises
    ------
    InputError
        When all were too small; the message says how large they must be.
    """
    if not pictures:
        height, width = request.needed(0)
        raise InputError(
            f"{what}: all {left_out} photographs are smaller than {width}×{height} pixels, which windows of "
            f"{request.size[1]}×{request.size[0]} need at s = {request.smallest:.3g}; use --surround black, or larger "
            "factors"
        )
    keys = [(-enlarged, *image.shape) for image, enlarged in pictures]
    order = sorted(range(len(pictures)), key=lambda k: keys[k])
    groups: list[PhotographGroup] = []
    for key in sorted(set(keys)):
        members = [pictures[k][0] for k in order if keys[k] == key]
        groups.append(PhotographGroup(-key[0], torch.stack(members)))
    return Photographs(request, tuple(groups), left_out), order


def photographs_of(
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"], request: WindowRequest
) -> Photographs:
    """Return photographs of one size that are in memory, as they are, cut to what the windows need.

    Raises
    ------
    InputError
        When they are too small.
    """
    height, width = (int(side) for side in images.shape[-2:])
    enlarged = request.possible((height, width))
    if enlarged is None:
        return grouped([], request, len(images), "images")[0]
    rows, columns = _kept((height, width), request.needed(enlarged), request.size)
    return Photographs(request, (PhotographGroup(enlarged, images[..., rows, columns]),))
