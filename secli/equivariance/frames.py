"""What is around a picture when it is rescaled: black, an empty margin, or the photograph that it is a window of."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from secli.action.fields import Canvas
from secli.action.images import centre_crop, rescale, window


@dataclass(frozen=True)
class Frame:
    """A network's pictures, and what its taps see around them.

    Attributes
    ----------
    height, width
        Pixels of the pictures that the network takes.
    enlarged
        Pixels around them on every side, for the taps that take them: an empty margin, or more of the photograph.
    surround
        Whether the pictures are windows of photographs.
    """

    height: int
    width: int
    enlarged: int = 0
    surround: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width with the surroundings."""
        return self.height + 2 * self.enlarged, self.width + 2 * self.enlarged

    def base(self, pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c H W"]:
        """Return f: the window of the photographs, or the pictures with their margin."""
        if self.surround:
            return centre_crop(pictures, self.size)
        return functional.pad(pictures, [self.enlarged] * 4) if self.enlarged else pictures

    def moved(
        self, pictures: Float[Tensor, "n c h w"], factor: float, blur: float
    ) -> Float[Tensor, "n c H W"]:
        """Return L_s f: read from the photographs, or on the canvas of the pictures with their margin."""
        if self.surround:
            return window(pictures, self.size, factor, blur)
        return rescale(self.base(pictures), factor, blur)

    def inner(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n c h w"]:
        """Return what the network itself takes of images with their surroundings."""
        return centre_crop(images, (self.height, self.width)) if self.enlarged else images

    def canvas(self, blur: float, border: float, with_surroundings: bool) -> Canvas:
        """Return the canvas of a tap that sees the surroundings, or of one that does not."""
        enlarged = self.enlarged if with_surroundings else 0
        height, width = self.height + 2 * enlarged, self.width + 2 * enlarged
        return Canvas(height, width, blur, border, enlarged, self.surround)
