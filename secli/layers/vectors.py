"""Operations on vector fields (N, C, 2, H, W) by their magnitudes: pooling, normalisation, the magnitude itself.

Source: Marcos, Kellenberger, Lobry, Tuia, "Scale Equivariance in CNNs with Vector Fields", 2018, section 3. None of
these depends on an angle, so all commute with turning every vector.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

Ties = Literal["rounding", "first"]
TIE = 1e-4
"""Of a picture's largest value: nearer ones are tied. Far above float32's rounding, far below a difference."""


def first_of_largest(values: Float[Tensor, "n c choices *shape"]) -> Int64[Tensor, "n c *shape"]:
    """Return the first choice (axis 2) among those within 1e-4 of the largest, of the picture's largest value.

    Unlike an argmax, it is the same at every precision where choices are equal in exact arithmetic.
    """
    known = values.detach()
    axes = tuple(range(1, known.dim()))
    tolerance = TIE * torch.where(known.isfinite(), known.abs(), 0).amax(dim=axes, keepdim=True)
    tied = known >= known.amax(dim=2, keepdim=True) - tolerance
    count = known.shape[2]
    indices = torch.arange(count, device=known.device).view(-1, *(1 for _ in axes[2:]))
    # where nothing compares, as with NaN, the last one: an index has to be one
    return torch.where(tied, indices, count - 1).amin(dim=2)


def magnitude(x: Float[Tensor, "n c 2 h w"]) -> Float[Tensor, "n c h w"]:
    """Return √(u² + v²); its gradient is zero, not undefined, where the vector is zero."""
    lengths: Tensor = torch.linalg.vector_norm(x, dim=2)
    return lengths


class Magnitude(nn.Module):
    """Project a vector field to a plane: the length √(u² + v²) of each vector.

    Examples
    --------
    >>> Magnitude()(torch.tensor([3.0, 4.0]).view(1, 1, 2, 1, 1)).item()
    5.0
    """

    def forward(self, x: Float[Tensor, "n c 2 h w"]) -> Float[Tensor, "n c h w"]:
        """Return the lengths."""
        return magnitude(x)


class VectorPool(nn.Module):
    """Max-pooling of vectors: the longest vector of each window.

    Parameters
    ----------
    kernel : int
        Side of the window, in cells.
    stride : int, optional
        Its step; the kernel by default.
    padding : int
        Cells added on each side; they are never the longest.
    ties : "rounding" or "first"
        What decides between vectors of one length: rounding, or their order, row by row, at every precision.

    Examples
    --------
    >>> VectorPool(2)(torch.randn(2, 4, 2, 28, 28)).shape
    torch.Size([2, 4, 2, 14, 14])
    """

    def __init__(
        self, kernel: int, stride: int | None = None, padding: int = 0, ties: Ties = "rounding"
    ) -> None:
        super().__init__()
        self.ties = ties
        self.kernel, self.stride, self.padding = kernel, kernel if stride is None else stride, padding

    def forward(self, x: Float[Tensor, "n c 2 h w"]) -> Float[Tensor, "n c 2 y x"]:
        """Return the pooled field."""
        # which vector is longest is a choice, without a gradient; squares choose as lengths do
        squares = x.detach().square().sum(dim=2)
        if self.ties == "first":
            cells = self._first(squares)
        else:
            _, cells = functional.max_pool2d(
                squares, self.kernel, self.stride, self.padding, return_indices=True
            )
        chosen = cells.flatten(2).unsqueeze(2).expand(-1, -1, 2, -1)
        return x.flatten(3).gather(3, chosen).reshape(*x.shape[:3], *cells.shape[2:])

    def _first(self, squares: Float[Tensor, "n c h w"]) -> Int64[Tensor, "n c y x"]:
        """Return the index in the plane of the first of the longest vectors of each window."""
        margin = (self.padding,) * 4
        width = squares.shape[3]
        cells = torch.arange(squares.shape[2] * width, device=squares.device).view(1, 1, -1, width)
        windows = self._windows(functional.pad(squares.sqrt(), margin, value=-torch.inf))
        indices = self._windows(functional.pad(cells, margin))
        return indices.expand_as(windows).gather(2, first_of_largest(windows).unsqueeze(2)).squeeze(2)

    def _windows(self, x: Tensor) -> Tensor:
        """Return the cells of each window, row by row, on axis 2."""
        rows = x.unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        return rows.flatten(4).movedim(4, 2)

    def extra_repr(self) -> str:
        """Show the window."""
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}"


class VectorNorm(nn.Module):
    """Batch normalisation of vectors: (u, v)/√(Var |(u, v)| + ε), no mean, nothing learned.

    Parameters
    ----------
    momentum : float
        Share of the running variance that a batch replaces.

    Raises
    ------
    ValueError
        In training, on a single vector per channel, which has no variance.

    Notes
    -----
    The variance is that of the magnitude over (N, H, W), biased; the running variance starts at 1, takes the
    unbiased one, and is what evaluation divides by.

    Examples
    --------
    >>> norm = VectorNorm(4)
    >>> norm(torch.randn(2, 4, 2, 28, 28)).shape
    torch.Size([2, 4, 2, 28, 28])
    """

    running_var: Tensor

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        momentum: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.register_buffer("running_var", torch.ones(channels, device=device, dtype=dtype))

    def forward(self, x: Float[Tensor, "n c 2 h w"]) -> Float[Tensor, "n c 2 h w"]:
        """Return the normalised field; in training, take the batch into the running variance."""
        variance = self._of_batch(x) if self.training else self.running_var
        return (x * (variance + self.eps).rsqrt().view(-1, 1, 1, 1)).to(x.dtype)

    def _of_batch(self, x: Float[Tensor, "n c 2 h w"]) -> Float[Tensor, "c"]:
        count = x.shape[0] * x.shape[3] * x.shape[4]
        if count < 2:
            raise ValueError(
                f"the norm needs more than one vector per channel in training, got {tuple(x.shape)}"
            )
        lengths = magnitude(x).to(torch.promote_types(x.dtype, torch.float32))
        variance = lengths.var(dim=(0, 2, 3), correction=0)
        with torch.no_grad():
            unbiased = variance.detach().to(self.running_var.dtype) * (count / (count - 1))
            self.running_var.lerp_(unbiased, self.momentum)
        return variance

    def extra_repr(self) -> str:
        """Show ε and the momentum."""
        return f"{len(self.running_var)}, eps={self.eps:g}, momentum={self.momentum:g}"
