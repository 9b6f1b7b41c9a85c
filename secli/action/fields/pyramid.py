"""Pyramids: lists of planes, each at its own resolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from secli.action.fields.contract import LATTICE_TOLERANCE, Acted, Canvas, Field
from secli.action.fields.resampling import inside, resample_plane
from secli.action.images import blur_variance


@dataclass(frozen=True)
class Pyramid(Field):
    """A list of planes (N, C, H_k, W_k), level k seeing the picture at factor f_k on a grid that spans the canvas.

    Level k of L_sF sees the picture at s·f_k: it is the nearest level j by its actual factor, with the residual
    factor s·f_k/f_j applied on the plane. Levels that are sampled without a blur of their own get here the blur which a
    shrunk picture keeps; a lift that blurs each level in proportion to its spacing supplies it itself.

    Attributes
    ----------
    factors
        f_k of the levels, never increasing, each relative to the picture (1 is the picture's own resolution). Levels of
        one factor hold the same.
    stride
        Image pixels per cell of a level of factor 1.
    truncated
        Levels at the coarse end that are fed by an interaction cut short there; never compared.
    base_blur
        z > 0, in pixels, when the lift takes pictures to have this blur and adds to it what level k needs, in
        proportion to 1/f_k; 0 when it adds none.
    """

    factors: tuple[float, ...]
    stride: float = 1.0
    truncated: int = 0
    base_blur: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.truncated <= len(self.factors):
            raise ValueError(f"{self.truncated} truncated levels of {len(self.factors)}")
        if (
            not self.factors
            or min(self.factors) <= 0
            or list(self.factors) != sorted(self.factors, reverse=True)
        ):
            raise ValueError(
                f"the factors of a pyramid must be positive and never increase, not {self.factors}"
            )

    @property
    def lattice(self) -> tuple[float, ...]:
        """The factors that map the first level onto another."""
        others = dict.fromkeys(factor for factor in self.factors if factor != self.factors[0])
        return tuple(factor / self.factors[0] for factor in others)

    def source(self, k: int, factor: float) -> int | None:
        """Return the level nearest to s·f_k; None when that is off the pyramid (beyond half a step).

        Truncated levels count as off the pyramid, as targets and as sources.
        """
        whole = len(self.factors) - self.truncated
        if k >= whole:
            return None
        target = math.log(self.factors[k] * factor)
        logs = [math.log(f) for f in self.factors[:whole]]
        j = min(range(len(logs)), key=lambda i: abs(logs[i] - target))
        steps = [a - b for a, b in itertools.pairwise(logs)]
        reach = max(steps, default=0.0) / 2 + LATTICE_TOLERANCE
        return j if abs(logs[j] - target) <= reach else None

    def act(self, features: Tensor | list[Tensor], factor: float, canvas: Canvas, steps: int = 1) -> Acted:
        """Take each level from the nearest one, apply the residual factor, and mask levels off the pyramid."""
        if not isinstance(features, list) or len(features) != len(self.factors):
            raise ValueError(f"a pyramid of {len(self.factors)} levels is a list of that many tensors")
        moved: list[Tensor] = []
        masks: list[Bool[Tensor, "..."] | None] = []
        used = 0
        exact = True
        for k, level in enumerate(features):
            j = self.source(k, factor)
            if j is None:
                moved.append(torch.zeros_like(level))
                masks.append(torch.zeros((1,) * level.ndim, dtype=torch.bool, device=level.device))
                continue
            residual = factor * self.factors[k] / self.factors[j]
            used += 1
            exact = exact and abs(residual - 1) < LATTICE_TOLERANCE
            # the blur that L_s gives the picture less what the lift supplies (more of it where L_s magnifies), seen on
            # level j, whose cells are stride/f_j pixels wide
            supplied = self.base_blur**2 * (1 / factor**2 - 1)
            variance = (blur_variance(factor, canvas.blur) - supplied) * (self.factors[j] / self.stride) ** 2
            # between levels: the lift's own blur, z/f_0 of the finest level's pixels, is to stay as many cells
            variance += blur_variance(residual, self.base_blur * self.factors[0] / self.stride)
            moved.append(resample_plane(features[j], level.shape[-2:], residual, variance, steps))
            masks.append(inside(level, factor, canvas, self.stride / self.factors[k], None))
        return Acted(moved, masks, used, len(features), exact)

    def smallest_plane(self, features: Tensor | list[Tensor]) -> int | None:
        """Return the smaller side of the first (largest) level; ``small_levels`` judges the others one by one."""
        return min(features[0].shape[-2:])

    def reads_as(self) -> str:
        """Describe the field in a few words."""
        cut = f", {self.truncated} truncated" if self.truncated else ""
        blur = f", base blur {self.base_blur:g}" if self.base_blur else ""
        factors = ",".join(f"{factor:g}" for factor in self.factors)
        return f"pyramid {factors}, stride {self.stride:g}{blur}{cut}"


def small_levels(acted: Acted, factor: float, smallest: float) -> list[int]:
    """Return the levels of a pyramid on which the picture covers fewer than ``smallest`` cells; none without levels.

    On n cells across, the picture covers min(s, 1)·n.
    """
    if acted.levels_total is None or len(acted.features) != acted.levels_total:
        return []
    # 12 cells at s = 1/3 are four
    sides = [min(level.shape[-2:]) * min(1.0, factor) for level in acted.features]
    return [k for k, side in enumerate(sides) if side < smallest - 1e-9]


def without_levels(acted: Acted, levels: Sequence[int]) -> Acted:
    """Mask whole levels of a pyramid."""
    if not levels:
        return acted
    masks = list(acted.masks)
    for k in levels:
        masks[k] = torch.zeros(
            (1,) * acted.features[k].ndim, dtype=torch.bool, device=acted.features[k].device
        )
    used = sum(mask is None or bool(mask.any()) for mask in masks)
    return acted._replace(masks=masks, levels_used=used)
