"""Feature maps without a scale axis."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secli.action.fields.contract import Acted, Canvas, Field, Pair, single
from secli.action.fields.resampling import geometry, inside, rescale_plane


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
        tensor = single(features)
        moved = rescale_plane(tensor, factor, canvas, self.stride, self.origin, 0.0, steps)
        return Acted([moved], [inside(tensor, factor, canvas, self.stride, self.origin)])

    def reads_as(self) -> str:
        """Describe the field in a few words."""
        return f"plane, {geometry(self.stride, self.origin)}"
