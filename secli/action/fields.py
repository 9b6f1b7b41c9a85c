"""L_s on features: how scale acts on each kind of feature map.

A network Φ keeps its promise under scale when Φ(L_s f) = L_s Φ(f); what ``L_s`` means on the right depends on
what the features are. A ``Field`` says it: a plane is only rescaled, a scale space also moves along its levels,
a vector field also turns. Cells that L_s cannot know (levels that would come from off the stack, say) are
masked, and the mask holds for both sides.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from secli.action.images import SAMPLING_BLUR, Axis, blur_variance, resample

Pair = float | tuple[float, float]

LATTICE_TOLERANCE = 0.02
"""A scale within 2 % of a level counts as that level, because published scales are rounded."""


class Canvas(NamedTuple):
    """The pictures that features come from.

    Attributes
    ----------
    height, width
        Pixels.
    blur
        The blur σ of the pictures in pixels, which L_s keeps when it shrinks them.
    border
        Cells nearer than so many pixels to the edge of the rescaled picture or of the canvas are masked: what
        lies behind these edges is not the picture, and a filter that reaches across them sees a frame.
    """

    height: int
    width: int
    blur: float = SAMPLING_BLUR
    border: float = 0.0


class Acted(NamedTuple):
    """L_s of features.

    Attributes
    ----------
    features
        One tensor per resolution (one, but for a pyramid), shaped as the features themselves.
    masks
        For each of these, which cells are known, in a shape that broadcasts to it; None when all are.
    levels_used, levels_total
        Scale levels that are known, and all of them; None off a scale axis.
    on_lattice
        Whether s maps levels onto levels, so that nothing was interpolated; None off a scale axis.
    """

    features: list[Tensor]
    masks: list[Bool[Tensor, "..."] | None]
    levels_used: int | None = None
    levels_total: int | None = None
    on_lattice: bool | None = None


class Field(ABC):
    """How L_s acts on one kind of feature map."""

    @abstractmethod
    def act(self, features: Tensor | list[Tensor], factor: float, canvas: Canvas, steps: int = 1) -> Acted:
        """Apply L_s.

        Parameters
        ----------
        features : tensor or list of tensors
            The features, as the field's table entry shapes them.
        factor : float
            Scale factor s > 0.
        canvas : Canvas
            The pictures that the features come from.
        steps : int
            Compose the spatial part from this many equal factors s^(1/steps). Two steps instead of one show how
            far the grid keeps L_s from being an action: the floor. The level shift is applied once.
        """

    def compared(
        self,
        acted: Acted,
        raw: Tensor | list[Tensor],
        answer: Tensor | list[Tensor] | None,
        factor: float,
        canvas: Canvas,
    ) -> Acted:
        """Mask what one of the two sides shows cannot be compared; here nothing beyond what ``act`` masked.

        Parameters
        ----------
        acted : Acted
            What ``act`` gave, perhaps of features whose background Φ(0) was taken away.
        raw, answer : tensor or list of tensors
            Φ(f) and Φ(L_s f) as the network gave them; no answer: only Φ(f) is looked at.
        factor : float
            Scale factor s > 0.
        canvas : Canvas
            The pictures that the features come from.
        """
        del raw, answer, factor, canvas
        return acted

    @property
    def base_blur(self) -> float:
        """The blur z that the features' first level shares with the picture, in pixels."""
        return 0.0

    @property
    def lattice(self) -> tuple[float, ...]:
        """The factors s < 1 that map levels onto levels; empty off a scale axis."""
        return ()

    def smallest_plane(self, features: Tensor | list[Tensor]) -> int | None:
        """Return the smaller side of the feature plane in cells; None when there is no plane."""
        tensor = features[0] if isinstance(features, list) else features
        return min(tensor.shape[-2:])

    def reads_as(self) -> str:
        """Say in a few words what the field is."""
        return type(self).__name__


@dataclass(frozen=True)
class Invariant(Field):
    """Features that do not change with scale, of any shape: logits, pooled vectors."""

    def act(self, features: Tensor | list[Tensor], factor: float, canvas: Canvas, steps: int = 1) -> Acted:
        """Return the features as they are."""
        tensors = features if isinstance(features, list) else [features]
        return Acted(list(tensors), [None] * len(tensors))

    def smallest_plane(self, features: Tensor | list[Tensor]) -> int | None:
        """Return None: there is no plane to be too small."""
        return None


@dataclass(frozen=True)
class Plane(Field):
    """A feature map (N, C, …, H, W) without a scale axis: (L_s F)(x) = F(x/s).

    Attributes
    ----------
    stride
        Image pixels per cell; a pair (rows, columns) when they differ.
    origin
        Image coordinate of cell 0 (pixel i has its centre at i); None when the grid centre is the image centre.
    """

    stride: Pair = 1.0
    origin: Pair | None = None

    def act(self, features: Tensor | list[Tensor], factor: float, canvas: Canvas, steps: int = 1) -> Acted:
        """Rescale the plane about the point where the image centre falls."""
        tensor = _single(features)
        moved = rescale_plane(tensor, factor, canvas, self.stride, self.origin, 0.0, steps)
        return Acted([moved], [inside(tensor, factor, canvas, self.stride, self.origin)])

    def reads_as(self) -> str:
        """Say in a few words what the field is."""
        return f"plane, {_geometry(self.stride, self.origin)}"


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

        Level k is read at scale σ_k/s: one level when that lies within 2 % of it, a mixture of the two
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
        tensor = _single(features)
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
            moved = _placed(moved, used, tensor)
            kept = torch.tensor([source is not None for source in sources], device=tensor.device)
            mask = kept.reshape(1, 1, total, *(1 for _ in tensor.shape[3:]))
        mask = both(mask, inside(tensor, factor, canvas, self.stride, self.origin))
        exact = all(source.weight == 0 for source in known)
        return Acted([moved], [mask], len(used), total, exact)

    def reads_as(self) -> str:
        """Say in a few words what the field is."""
        scales = ",".join(f"{scale:g}" for scale in self.scales)
        blur = f", base blur {self.base_blur:g}" if self.base_blur else ""
        cut = f", {self.truncated} truncated" if self.truncated else ""
        return f"scale space {scales}, {_geometry(self.stride, self.origin)}{blur}{cut}"


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


def _placed(levels: Tensor, places: Sequence[int], like: Tensor) -> Tensor:
    """Return a stack shaped as another one, with levels at their places and zeros at the others."""
    nothing = like.new_zeros(())
    if not places:
        return nothing.expand_as(like)
    below, above = places[0], like.shape[2] - 1 - places[-1]
    if len(places) != places[-1] - places[0] + 1:  # not a run: each for itself
        stack = torch.zeros_like(like)
        stack[:, :, list(places)] = levels
        return stack
    sides = [nothing.expand_as(like[:, :, :side]) for side in (below, above)]
    joined = [sides[0], levels, sides[1]]
    if levels.movedim(2, 0).is_contiguous():  # levels one behind the other: they stay so
        return torch.cat([each.movedim(2, 0) for each in joined]).movedim(0, 2)
    return torch.cat(joined, dim=2)


@dataclass(frozen=True)
class Pyramid(Field):
    """A list of planes (N, C, H_k, W_k), level k seeing the picture at factor f_k on a grid that spans the canvas.

    Level k of L_sF sees the picture at s·f_k: it is the nearest level j by its actual factor, with the residual
    factor s·f_k/f_j applied on the plane. The levels are taken to be sampled without a blur of their own, so that
    the blur which a shrunk picture keeps is added on the level.

    Attributes
    ----------
    factors
        f_k of the levels, never increasing, each relative to the picture (1 is the picture's own resolution). Levels of
        one factor hold the same.
    stride
        Image pixels per cell of a level of factor 1.
    truncated
        Levels at the coarse end that are fed by an interaction cut short there; never compared.
    """

    factors: tuple[float, ...]
    stride: float = 1.0
    truncated: int = 0

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
        """Return the level nearest to s·f_k; None when that lies off the pyramid (beyond half a step).

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
            # the blur that L_s gives the picture, seen on level j, whose cells are stride/f_j pixels wide
            variance = blur_variance(factor, canvas.blur) * (self.factors[j] / self.stride) ** 2
            moved.append(resample_plane(features[j], level.shape[-2:], residual, variance, steps))
            masks.append(inside(level, factor, canvas, self.stride / self.factors[k], None))
        return Acted(moved, masks, used, len(features), exact)

    def smallest_plane(self, features: Tensor | list[Tensor]) -> int | None:
        """Return the smaller side of the first (largest) level: where that is too small, all are.

        Of the others each is judged by itself (``small_levels``).
        """
        return min(features[0].shape[-2:])

    def reads_as(self) -> str:
        """Say in a few words what the field is."""
        cut = f", {self.truncated} truncated" if self.truncated else ""
        return f"pyramid {','.join(f'{factor:g}' for factor in self.factors)}, stride {self.stride:g}{cut}"


@dataclass(frozen=True)
class VectorField(Field):
    """Vectors (N, C, 2, …, H, W) whose angle is a scale: L_s rescales the plane and turns by log_a(s)·θ.

    Angle jθ stands for content of scale a^j (Marcos et al., *Scale equivariance in CNNs with vector fields*, 2018,
    where j counts how the picture is resized before the filter: their content scale is 1/1.26 per step, so a < 1).
    Vectors whose turned angle leaves the range of levels are masked.

    Attributes
    ----------
    base
        a, the ratio of the content's scale from one angle to the next; below 1 where larger angles mean smaller
        content.
    angle_step
        θ in radians.
    levels
        Lowest and highest j.
    stride, origin
        As for ``Plane``.
    """

    base: float
    angle_step: float
    levels: tuple[int, int]
    stride: Pair = 1.0
    origin: Pair | None = None

    def act(self, features: Tensor | list[Tensor], factor: float, canvas: Canvas, steps: int = 1) -> Acted:
        """Rescale the plane, turn every vector, and mask those that leave the range of angles."""
        tensor = _single(features)
        if tensor.ndim < 5 or tensor.shape[2] != 2:
            raise ValueError(f"a vector field is (N, C, 2, …, H, W), not {tuple(tensor.shape)}")
        planes = rescale_plane(tensor, factor, canvas, self.stride, self.origin, 0.0, steps)
        turn = self.turn(factor)
        u, v = planes.unbind(2)
        cosine, sine = math.cos(turn), math.sin(turn)
        moved = torch.stack([cosine * u - sine * v, sine * u + cosine * v], dim=2)
        known = None if factor == 1 else self.stays(planes, turn)
        return Acted([moved], [both(known, inside(tensor, factor, canvas, self.stride, self.origin))])

    def turn(self, factor: float) -> float:
        """Return by how much L_s turns a vector: log_a(s)·θ, in radians."""
        return math.log(factor, self.base) * self.angle_step

    def stays(self, vectors: Tensor, turn: float) -> Bool[Tensor, "..."]:
        """Tell which vectors (N, C, 2, …) still have an angle on the range after a turn; a zero vector has any."""
        u, v = vectors.unbind(2)
        # the angle before the turn, so that no turn wraps around
        angle = torch.atan2(v, u) + turn
        slack = 1e-3 * self.angle_step
        low, high = (level * self.angle_step for level in self.levels)
        return ((angle >= low - slack) & (angle <= high + slack) | ((u == 0) & (v == 0))).unsqueeze(2)

    def compared(
        self,
        acted: Acted,
        raw: Tensor | list[Tensor],
        answer: Tensor | list[Tensor] | None,
        factor: float,
        canvas: Canvas,
    ) -> Acted:
        """Mask the vectors of either side whose partner's angle lies off the range.

        A vector of Φ(f) whose turned angle leaves the range has no place in Φ(L_s f), where some other angle wins;
        a vector of Φ(L_s f) whose angle before the turn lies off the range has no source in Φ(f). Both are judged
        by the vectors that the network gave: an angle is a scale there, which Φ(f) − Φ(0) has no more.
        """
        if factor == 1:
            return acted
        tensor, turn = _single(raw), self.turn(factor)
        moved = rescale_plane(tensor, factor, canvas, self.stride, self.origin)
        mask = both(self.stays(moved, turn), inside(tensor, factor, canvas, self.stride, self.origin))
        if answer is not None:
            mask = both(mask, self.stays(_single(answer), -turn))
        return acted._replace(masks=[mask])

    def reads_as(self) -> str:
        """Say in a few words what the field is."""
        return f"vector field base {self.base:g}, {_geometry(self.stride, self.origin)}"


def rescale_plane(
    features: Float[Tensor, "*batch h w"],
    factor: float,
    canvas: Canvas,
    stride: Pair = 1.0,
    origin: Pair | None = None,
    base_blur: float = 0.0,
    steps: int = 1,
) -> Float[Tensor, "*batch h w"]:
    """Rescale feature planes about the point where the image centre falls.

    The blur has variance (σ² − z²)(1/s² − 1)/stride² in cells for s < 1, σ the pictures' blur and z the field's
    base blur. A magnified picture keeps no blur of its own, but its level 0 is then blurrer than z while the
    lift adds what it always adds: so for s > 1 the variance is z²(1 − 1/s²)/stride².

    Parameters
    ----------
    features : tensor (…, H, W)
        The planes.
    factor : float
        Scale factor s > 0.
    canvas : Canvas
        The pictures that the features come from.
    stride, origin : float or pair
        Image pixels per cell, and the image coordinate of cell 0 (None: grid centre = image centre).
    base_blur : float
        z, in pixels.
    steps : int
        Compose from this many equal factors.
    """
    if factor == 1:
        return features
    each = factor ** (1 / steps)
    axes = []
    for axis, pixels in enumerate((canvas.height, canvas.width)):
        n = features.shape[-2 + axis]
        cell = _component(stride, axis)
        centre = _centre(n, pixels, cell, origin, axis)
        supplied = base_blur**2 * (1 / each**2 - 1)
        variance = (blur_variance(each, canvas.blur) - supplied) / cell**2
        axes.append(Axis(n, n, 1 / each, centre, centre, variance, steps))
    return resample(features, axes[0], axes[1])


def inside(
    features: Float[Tensor, "*batch h w"],
    factor: float,
    canvas: Canvas,
    stride: Pair = 1.0,
    origin: Pair | None = None,
) -> Bool[Tensor, "*ones h w"] | None:
    """Return which cells lie at least ``canvas.border`` pixels inside the rescaled picture and the canvas.

    A cell at image coordinate p is inside when |p − c| ≤ min(s, 1)·n/2 − border, on each axis.

    Parameters
    ----------
    features : tensor (…, H, W)
        The planes.
    factor : float
        Scale factor s > 0.
    canvas : Canvas
        The pictures, and the border in pixels.
    stride, origin : float or pair
        As for ``Plane``.

    Returns
    -------
    bool tensor (1, …, 1, H, W) or None
        None when no border is wanted.
    """
    if canvas.border <= 0:
        return None
    kept = []
    for axis, pixels in enumerate((canvas.height, canvas.width)):
        n, cell = features.shape[-2 + axis], _component(stride, axis)
        centre = _centre(n, pixels, cell, origin, axis)
        away = (torch.arange(n, device=features.device, dtype=torch.float64) - centre).abs() * cell
        kept.append(away <= min(factor, 1.0) * pixels / 2 - canvas.border)
    mask = kept[0][:, None] & kept[1][None, :]
    return mask.reshape(*(1 for _ in features.shape[:-2]), *mask.shape)


def small_levels(acted: Acted, factor: float, smallest: float) -> list[int]:
    """Return the levels of a pyramid on which the picture covers too few cells to have a scale.

    Parameters
    ----------
    acted : Acted
        L_s of features; what has no list of levels has no small ones.
    factor : float
        Scale factor s: on n cells across, the picture covers min(s, 1)·n.
    smallest : float
        Cells that it must cover.
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


def both(one: Bool[Tensor, "..."] | None, other: Bool[Tensor, "..."] | None) -> Bool[Tensor, "..."] | None:
    """Return the cells that both masks keep; None keeps all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def resample_plane(
    features: Float[Tensor, "*batch h w"], size: Sequence[int], factor: float, variance: float, steps: int = 1
) -> Float[Tensor, "*batch h_out w_out"]:
    """Rescale planes by a factor of their own cells onto another grid about the same centre.

    The first steps stay on the planes' own grid, the last one reads the new grid.

    Parameters
    ----------
    features : tensor (…, H, W)
        The planes.
    size : pair
        Cells of the new grid, whose spacing equals the old one's.
    factor : float
        Scale factor in cells.
    variance : float
        Of the blur applied before, in squared cells.
    steps : int
        Compose from this many equal factors, each with its share of the blur.
    """
    each = factor ** (1 / steps)
    for step in range(steps):
        share = variance / steps * each ** (2 * step)
        target = size if step == steps - 1 else features.shape[-2:]
        rows, columns = (
            Axis(n_in, n_out, 1 / each, (n_in - 1) / 2, (n_out - 1) / 2, share)
            for n_in, n_out in zip(features.shape[-2:], target, strict=True)
        )
        features = resample(features, rows, columns)
    return features


def _single(features: Tensor | list[Tensor]) -> Tensor:
    if isinstance(features, list):
        raise ValueError("this field acts on one tensor, not on a list of them")
    return features


def _component(value: Pair, axis: int) -> float:
    return value[axis] if isinstance(value, tuple) else value


def _centre(n: int, pixels: int, cell: float, origin: Pair | None, axis: int) -> float:
    """Return where the image centre falls on an axis of n cells, in cells."""
    return (n - 1) / 2 if origin is None else ((pixels - 1) / 2 - _component(origin, axis)) / cell


def _geometry(stride: Pair, origin: Pair | None) -> str:
    def read(value: Pair) -> str:
        return "×".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"

    return f"stride {read(stride)}" + ("" if origin is None else f", origin {read(origin)}")
