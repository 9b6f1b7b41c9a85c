"""Pooling and normalisation for images (N, C, H, W) and scale spaces (N, C, S, H, W) alike."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.layers.fast.levels import as_planes, as_space, levels_first
from secli.layers.fast.running_max import neighbour_max, runs_here

ScalePooling = Literal["max", "mean"]


def scale_pool(x: Float[Tensor, "n c s h w"], how: ScalePooling = "max") -> Float[Tensor, "n c h w"]:
    """Take the maximum or the mean over the scale axis."""
    if how == "mean":
        return x.mean(dim=2)
    if runs_here(x):
        return neighbour_max(x, 2, x.shape[2]).squeeze(2)
    # not amax: its gradient, shared among ties, costs five times as much
    return x.max(dim=2).values


class ScalePool(nn.Module):
    """Project a scale space to a plane: the maximum or the mean over its levels.

    Examples
    --------
    >>> import torch
    >>> ScalePool("max")(torch.rand(2, 8, 4, 28, 28)).shape
    torch.Size([2, 8, 28, 28])
    """

    def __init__(self, how: ScalePooling = "max") -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n c h w"]:
        """Return the pooled features."""
        return scale_pool(x, self.how)

    def extra_repr(self) -> str:
        """Show which pooling."""
        return self.how


class SpatialPool(nn.Module):
    """Max- or average-pooling over the plane; every level of a scale space is pooled alone.

    Parameters
    ----------
    kernel : int
        Side of the window and its step, in cells.
    padding : int
        Cells added on each side; they never win a maximum and count in no average.

    Examples
    --------
    >>> import torch
    >>> SpatialPool(2)(torch.rand(2, 8, 4, 28, 28)).shape
    torch.Size([2, 8, 4, 14, 14])
    """

    def __init__(self, kernel: int, padding: int = 0, how: Literal["max", "mean"] = "max") -> None:
        super().__init__()
        self.kernel, self.padding, self.how = kernel, padding, how

    def forward(self, x: Float[Tensor, "n c *s h w"]) -> Float[Tensor, "n c *s y x"]:
        """Return the pooled features."""
        divides = x.shape[-2] % self.kernel == 0 and x.shape[-1] % self.kernel == 0
        if self.how == "max" and not self.padding and divides and runs_here(x):
            rows = neighbour_max(x, x.dim() - 2, self.kernel)
            return neighbour_max(rows, x.dim() - 1, self.kernel)
        if levels_first(x):
            return as_space(self._pooled(as_planes(x)), x.shape[2])
        pooled = self._pooled(x.flatten(1, -3))  # a view: levels are further channels to a pooling window
        return pooled.reshape(*x.shape[:-2], *pooled.shape[-2:])

    def _pooled(self, planes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c y x"]:
        if self.how == "max":
            return functional.max_pool2d(planes, self.kernel, padding=self.padding)
        return functional.avg_pool2d(planes, self.kernel, padding=self.padding, count_include_pad=False)

    def extra_repr(self) -> str:
        """Show kernel, padding and kind."""
        return f"{self.how}, kernel={self.kernel}, padding={self.padding}"


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation per channel, over (N, H, W) of images and (N, S, H, W) of scale spaces.

    Examples
    --------
    >>> import torch
    >>> BatchNorm(8)(torch.rand(2, 8, 4, 28, 28)).shape
    torch.Size([2, 8, 4, 28, 28])
    """

    def forward(self, input: Float[Tensor, "n c *shape"]) -> Float[Tensor, "n c *shape"]:
        """Return the normalised features."""
        if levels_first(input):
            return as_space(super().forward(as_planes(input)), input.shape[2])
        return super().forward(input)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (4, 5):
            raise ValueError(f"expected (N, C, H, W) or (N, C, S, H, W), got {input.dim()} axes")
