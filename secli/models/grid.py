"""The position of a feature map's cells in the image, from layer to layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from secli.action.fields import Plane, ScaleSpace


@dataclass(frozen=True)
class Grid:
    """A square grid of cells and its position in the image.

    Attributes
    ----------
    image
        Side of the image in pixels; pixel i has its centre at coordinate i.
    size
        Cells along a side.
    stride
        Image pixels per cell.
    first
        Image coordinate of the centre of cell 0.
    """

    image: int
    size: int
    stride: float = 1.0
    first: float = 0.0

    @classmethod
    def of_image(cls, size: int) -> Grid:
        """Return the grid of the image itself."""
        return cls(size, size)

    @property
    def origin(self) -> float | None:
        """The image coordinate of cell 0, or None where the grid's centre is the image's."""
        centre = self.first + self.stride * (self.size - 1) / 2
        return None if centre == (self.image - 1) / 2 else self.first

    def upsampled(self, factor: int) -> Grid:
        """Return the grid after each cell is split into ``factor``² equal ones."""
        first = self.first - self.stride * (factor - 1) / (2 * factor)
        return replace(self, size=self.size * factor, stride=self.stride / factor, first=first)

    def windowed(self, kernel: int, stride: int, padding: int = 0) -> Grid:
        """Return the grid of window centres of a convolution or pooling (the padding counted as cells)."""
        size = (self.size + 2 * padding - kernel) // stride + 1
        if size < 1:
            raise ValueError(f"a window of {kernel} cells does not fit on a feature map of {self.size}")
        first = self.first + self.stride * ((kernel - 1) / 2 - padding)
        return replace(self, size=size, stride=self.stride * stride, first=first)

    def pooled(self, kernel: int, padding: int = 0) -> Grid:
        """Return the grid after pooling with windows that do not overlap."""
        return self.windowed(kernel, kernel, padding)

    def plane(self) -> Plane:
        """Return the field of features (N, C, H, W) on this grid."""
        return Plane(stride=self.stride, origin=self.origin)

    def scale_space(
        self, scales: tuple[float, ...], base_blur: float = 0.0, truncated: int = 0
    ) -> ScaleSpace:
        """Return the field of features (N, C, S, H, W) on this grid."""
        return ScaleSpace(
            scales=scales, base_blur=base_blur, stride=self.stride, origin=self.origin, truncated=truncated
        )
