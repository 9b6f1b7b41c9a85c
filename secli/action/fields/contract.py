"""What a field is: L_s on features of one kind, and the pictures that they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Bool
from torch import Tensor

from secli.action.images import SAMPLING_BLUR

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
        σ of the pictures in pixels, which L_s keeps when it shrinks them.
    border
        Cells nearer than so many pixels to the edge of the rescaled picture or of the canvas are masked: a filter
        that reaches across these edges sees a frame.
    enlarged
        Pixels on every side that are no part of the picture whose scale is measured: an empty margin, or more of the
        photograph that it is a window of.
    surround
        Whether the picture is a window of a photograph: rescaled ones then fill the canvas without a frame.
    """

    height: int
    width: int
    blur: float = SAMPLING_BLUR
    border: float = 0.0
    enlarged: int = 0
    surround: bool = False

    @property
    def covered(self) -> float:
        """The share of the canvas's sides that the picture covers."""
        shorter = min(self.height, self.width)
        return (shorter - 2 * self.enlarged) / shorter

    @property
    def share(self) -> float:
        """The share of the canvas's area that the picture covers."""
        inner = (self.height - 2 * self.enlarged) * (self.width - 2 * self.enlarged)
        return inner / (self.height * self.width)

    @property
    def left_out(self) -> float:
        """Pixels of the picture itself that the border leaves out on every side."""
        return max(0.0, self.border - self.enlarged) if self.surround else self.border


class Acted(NamedTuple):
    """L_s of features.

    Attributes
    ----------
    features
        One tensor per resolution (one, but for a pyramid), shaped as the features themselves.
    masks
        For each of these, which cells are known, broadcast to it; None when all are.
    levels_used, levels_total
        Scale levels that are known, and all of them; None without a scale axis.
    on_lattice
        Whether s maps levels onto levels, so that nothing was interpolated; None without a scale axis.
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
        """Apply L_s for a factor s > 0.

        With ``steps`` the spatial part is composed from that many equal factors s^(1/steps): two steps instead of one
        show how far the grid keeps L_s from being an action, the floor. The level shift is applied once.
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
            What ``act`` returned, perhaps of features whose background Φ(0) was subtracted.
        raw, answer : tensor or list of tensors
            Φ(f) and Φ(L_s f) as the network returned them; without an answer only Φ(f) is used.
        """
        del raw, answer, factor, canvas
        return acted

    @property
    def base_blur(self) -> float:
        """The blur z that the features' first level shares with the picture, in pixels."""
        return 0.0

    @property
    def lattice(self) -> tuple[float, ...]:
        """The factors s < 1 that map levels onto levels; empty without a scale axis."""
        return ()

    def smallest_plane(self, features: Tensor | list[Tensor]) -> int | None:
        """Return the smaller side of the feature plane in cells; None when there is no plane."""
        tensor = features[0] if isinstance(features, list) else features
        return min(tensor.shape[-2:])

    def reads_as(self) -> str:
        """Describe the field in a few words."""
        return type(self).__name__


def both(one: Bool[Tensor, "..."] | None, other: Bool[Tensor, "..."] | None) -> Bool[Tensor, "..."] | None:
    """Return the cells that both masks keep; None keeps all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def single(features: Tensor | list[Tensor], field: str = "this field") -> Tensor:
    """Return features that must be one tensor, or raise."""
    if isinstance(features, list):
        raise ValueError(f"{field} acts on one tensor, not on a list of them")
    return features
