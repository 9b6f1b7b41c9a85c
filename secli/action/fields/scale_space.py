"""Scale spaces: L_s rescales the plane and moves along the levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from secli.action.fields.contract import LATTICE_TOLERANCE, Acted, Canvas, Field, Pair, both, single
from secli.action.fields.resampling import geometry, inside, rescale_plane


@dataclass(frozen=True)
class ScaleSpace(Field):
    """A scale space (N, C, S, …, H, W): (L_s F)(σ, x) = F(σ/s, x/s).

    With levels σ_k = σ_0 q^k, level k of L_sF is level k + log_q(1/s) of F, rescaled: the content of a shrunk
    picture moves down the stack. Off the lattice, levels are interpolated linearly in log σ.

    Attributes
    ----------
    scales
        σ_k of the S levels, increasing.
    base_blur
        z > 0 when level 0 is the picture itself (its blur z then shrinks with the picture, and the level shift
        already supplies the blur z² that L_s would add); 0 otherwise.
    stride, origin
        As for ``Plane``.
    truncated
        Levels at the top that are fed by an interaction cut short by the end of the stack; never compared.
    """

    scales: tuple[float, ...]
    base_blur: float = 0.0
    stride: Pair = 1.0
    origin: Pair | None = None
    truncated: int = 0

    def __post_init__(self) -> None:
        if not self.scales or any(b <= a for a, b in zip((0.0, *self.scales), self.scales, strict=False)):
            raise ValueError(
                f"the scales of a scale space must be positive and increasing, not {self.scales}"
            )
        if not 0 <= self.truncated <= len(self.scales):
            raise ValueError(f"{self.truncated} truncated levels of {len(self.scales)}")

    @property
    def lattice(self) -> tuple[float, ...]:
        """The factors that map the lowest level onto another."""
        return tuple(self.scales[0] / scale for scale in self.scales[1:])

    def sources(self, factor: float) -> list[LevelSource | None]:
        """Return where each level of L_sF comes from; None for a level that is not known.

        Level k is read at scale σ_k/s: one level when that is within 2 % of it, a mixture of the two
        neighbours otherwise. Nothing is known off the stack, or of truncated levels.
        """
        whole = len(self.scales) - self.truncated
        logs = [math.log(scale) for scale in self.scales[:whole]]
        return [
            _level_source(logs, math.log(scale / factor)) if k < whole else None
            for k, scale in enumerate(self.scales)
        ]

    def act(self, features: Tensor | list[Tensor], factor: float, canvas: Canvas, steps: int = 1) -> Acted:
        """Move along the levels, rescale the plane, and mask the levels that are not known."""
        tensor = single(features)
        total = len(self.scales)
        if tensor.ndim < 5 or tensor.shape[2] != total:
            raise ValueError(
                f"a scale space of {total} levels is (N, C, {total}, …, H, W), not {tuple(tensor.shape)}"
            )
        sources = self.sources(factor)
        used = [k for k, source in enumerate(sources) if source is not None]
        known = [source for source in sources if source is not None]
        moved, mask = tensor, None
        if known:
            moved = rescale_plane(
                read_levels(tensor, known), factor, canvas, self.stride, self.origin, self.base_blur, steps
            )
        if len(used) < total:
            moved = _embedded(moved, used, tensor)
            kept = torch.tensor([source is not None for source in sources], device=tensor.device)
            mask = kept.reshape(1, 1, total, *(1 for _ in tensor.shape[3:]))
        mask = both(mask, inside(tensor, factor, canvas, self.stride, self.origin))
        exact = all(source.weight == 0 for source in known)
        return Acted([moved], [mask], len(used), total, exact)

    def reads_as(self) -> str:
        """Describe the field in a few words."""
        scales = ",".join(f"{scale:g}" for scale in self.scales)
        blur = f", base blur {self.base_blur:g}" if self.base_blur else ""
        cut = f", {self.truncated} truncated" if self.truncated else ""
        return f"scale space {scales}, {geometry(self.stride, self.origin)}{blur}{cut}"


class LevelSource(NamedTuple):
    """Level ``lower``, mixed with the one above it by ``weight`` (0: that level alone)."""

    lower: int
    weight: float


def _level_source(logs: Sequence[float], target: float) -> LevelSource | None:
    """Find log σ = target among increasing levels: on one of them, between two, or off the stack (None)."""
    for j, level in enumerate(logs):
        if abs(math.expm1(target - level)) < LATTICE_TOLERANCE:
            return LevelSource(j, 0.0)
    for j in range(len(logs) - 1):
        if logs[j] < target < logs[j + 1]:
            return LevelSource(j, (target - logs[j]) / (logs[j + 1] - logs[j]))
    return None


def read_levels(tensor: Tensor, sources: Sequence[LevelSource]) -> Tensor:
    """Return levels of a stack (N, C, S, …) read at the sources, as a stack of that many levels."""
    first, count = sources[0].lower, len(sources)
    weights = [source.weight for source in sources]
    in_a_row = [source.lower for source in sources] == list(range(first, first + count))
    if in_a_row and not any(weights):
        return tensor[:, :, first : first + count]
    if in_a_row and all(weights):
        lower, upper = (tensor[:, :, start : start + count] for start in (first, first + 1))
        shape = (count, *(1 for _ in tensor.shape[3:]))
        return torch.lerp(
            lower, upper, torch.tensor(weights, dtype=tensor.dtype, device=tensor.device).reshape(shape)
        )
    return torch.stack([_read_level(tensor, source) for source in sources], dim=2)


def _read_level(tensor: Tensor, source: LevelSource) -> Tensor:
    if source.weight == 0:
        return tensor[:, :, source.lower]
    return torch.lerp(tensor[:, :, source.lower], tensor[:, :, source.lower + 1], source.weight)


def _embedded(levels: Tensor, indices: Sequence[int], like: Tensor) -> Tensor:
    """Return a stack shaped like another one, with the levels at their indices and zeros elsewhere."""
    nothing = like.new_zeros(())
    if not indices:
        return nothing.expand_as(like)
    if len(indices) != indices[-1] - indices[0] + 1:  # not consecutive
        stack = torch.zeros_like(like)
        stack[:, :, list(indices)] = levels
        return stack
    below, above = indices[0], like.shape[2] - 1 - indices[-1]
    joined = [nothing.expand_as(like[:, :, :below]), levels, nothing.expand_as(like[:, :, :above])]
    if levels.movedim(2, 0).is_contiguous():  # one level after the other in memory: the result, too
        return torch.cat([each.movedim(2, 0) for each in joined]).movedim(0, 2)
    return torch.cat(joined, dim=2)
