"""Vector fields whose angle is a scale: L_s rescales the plane and turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from secli.action.fields.contract import Acted, Canvas, Field, Pair, both, single
from secli.action.fields.resampling import geometry, inside, rescale_plane


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
        tensor = single(features)
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
        """Return which vectors (N, C, 2, …) still have an angle on the range after a turn; a zero vector has any."""
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
        """Mask the vectors of either side whose partner's angle is off the range.

        A vector of Φ(f) whose turned angle leaves the range has no counterpart in Φ(L_s f), where some other angle
        wins; one of Φ(L_s f) whose angle before the turn is off the range has none in Φ(f). Both are judged by the
        network's own vectors, whose angle is a scale: that of Φ(f) − Φ(0) is none.
        """
        if factor == 1:
            return acted
        tensor, turn = single(raw), self.turn(factor)
        moved = rescale_plane(tensor, factor, canvas, self.stride, self.origin)
        mask = both(self.stays(moved, turn), inside(tensor, factor, canvas, self.stride, self.origin))
        if answer is not None:
            mask = both(mask, self.stays(single(answer), -turn))
        return acted._replace(masks=[mask])

    def reads_as(self) -> str:
        """Describe the field in a few words."""
        return f"vector field base {self.base:g}, {geometry(self.stride, self.origin)}"
