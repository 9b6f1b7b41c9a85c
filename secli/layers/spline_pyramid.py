"""A pyramid whose levels are the picture at other scales: blurred in proportion to its spacing, read by a cubic spline.

With T the discrete Gaussian (Lindeberg, "Scale-Space for Discrete Signals", PAMI 1990), β³ the cubic spline that
interpolates (Unser, "Splines: a perfect fit", 1999) and σ₀ = ½ px the blur of a sampled picture::

    x_k(i) = (T(·, t_k) ⋆ f)(b^k i),      t_k = σ₀²(b^{2k}/b^{2l} − 1),      k = l, l + 1, …

about the picture's centre, l ≤ 0 the finest level: level k has the blur σ₀/b^l · b^k, that of level l being the
picture's own. So the levels of a picture that was shrunk by b are those of the picture, each one lower.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.action.images import SAMPLING_BLUR, SPLINE_MARGIN, apply_axes
from secli.layers.fast.size_cache import cached_operator
from secli.layers.gaussian import discrete_gaussian
from secli.layers.pyramid import Level, level_size
from secli.layers.toeplitz import toeplitz

POLE = 3**0.5 - 2
"""z₁ of the cubic spline: its interpolation filter is −6z₁/(1 − z₁²) · z₁^|n|."""


@dataclass(frozen=True)
class SplineReading:
    """The matrix that blurs n cells by a kernel and reads them by the cubic spline at m points about one centre.

    Attributes
    ----------
    step
        Distance of the points, in cells.
    kernel
        Taps of the blur, its centre in the middle.
    """

    step: float
    kernel: tuple[float, ...]

    def __call__(self, n_in: int, n_out: int) -> Float[Tensor, "n_out n_in"]:
        """Return the matrix, float64; nothing is cut between the blur and the reading, zeros are outside."""
        kernel = torch.tensor(self.kernel, dtype=torch.float64)
        cells, reach = torch.arange(n_in), len(self.kernel) // 2
        blurred = torch.arange(-reach, n_in + reach)
        knots = torch.arange(-reach - SPLINE_MARGIN, n_in + reach + SPLINE_MARGIN)
        apart = (knots[:, None] - blurred[None, :]).abs().to(torch.float64)
        coefficients = -6 * POLE / (1 - POLE**2) * (1 - 2 * (apart % 2)) * (-POLE) ** apart
        points = (n_in - 1) / 2 + (torch.arange(n_out, dtype=torch.float64) - (n_out - 1) / 2) * self.step
        away = (points[:, None] - knots[None, :]).abs()
        spline = torch.where(away < 1, 2 / 3 - away**2 + away**3 / 2, (2 - away).clamp(min=0) ** 3 / 6)  # β³
        return spline @ coefficients @ toeplitz(kernel, blurred, cells)


class SplinePyramidLift(nn.Module):
    """Lift images to a pyramid of levels b^l, b^{l+1}, …: x_k(i) = (T(·, t_k) ⋆ f)(b^k i).

    Parameters
    ----------
    base : float
        b > 1, the ratio of neighbouring spacings.
    levels : int
        How many levels.
    lowest : int
        l ≤ 0; below 0 the finest levels hold the picture enlarged by b^−k.
    multiple : int
        Sides of the levels are the next multiple of this many cells that covers the image, zeros around it.

    Raises
    ------
    ValueError
        When the base is not above 1, there is no level, the multiple is below 1, or the lowest level above 0.

    Notes
    -----
    t_k = σ₀²(b^{2(k−l)} − 1) in squared pixels, σ₀ = ½. Nothing is learned. Maps (N, C, H, W) to S planes
    (N, C, H_k, W_k), from fine to coarse.

    Examples
    --------
    >>> lift = SplinePyramidLift(base=2.0, levels=3, lowest=-1, multiple=4)
    >>> [tuple(level.shape) for level in lift(torch.rand(1, 1, 28, 20))]
    [(1, 1, 56, 40), (1, 1, 28, 20), (1, 1, 16, 12)]
    """

    def __init__(self, base: float, levels: int, lowest: int = 0, multiple: int = 1) -> None:
        super().__init__()
        if not base > 1:
            raise ValueError(f"the base must be greater than 1, not {base:g}")
        if levels < 1 or multiple < 1:
            raise ValueError(f"levels and multiple must be at least 1, not {levels} and {multiple}")
        if lowest > 0:
            raise ValueError(f"the lowest level must be at most 0, not {lowest}")
        self.base, self.levels, self.lowest, self.multiple = base, levels, lowest, multiple
        self.steps = tuple(base**k for k in range(lowest, lowest + levels))
        variances = (SAMPLING_BLUR**2 * ((step / self.steps[0]) ** 2 - 1) for step in self.steps)
        kernels = [tuple(discrete_gaussian(variance).tolist()) for variance in variances]
        self.readings = [SplineReading(*each) for each in zip(self.steps, kernels, strict=True)]

    @property
    def factors(self) -> tuple[float, ...]:
        """The factor at which each level sees the picture, b^−k."""
        return tuple(1 / step for step in self.steps)

    def forward(self, x: Float[Tensor, "n c h w"]) -> list[Level]:
        """Return the pyramid."""
        return [self._level(x, k) for k in range(self.levels)]

    def _level(self, x: Float[Tensor, "n c h w"], k: int) -> Level:
        dtype = torch.promote_types(x.dtype, torch.float32)
        rows, columns = (
            cached_operator(
                self.readings[k],
                n,
                level_size(n, self.base, self.lowest + k, self.multiple),
                dtype,
                x.device,
            )
            for n in x.shape[2:]
        )
        return apply_axes(rows, x.to(dtype), columns).to(x.dtype)

    def extra_repr(self) -> str:
        """Show base, levels and multiple."""
        return f"base={self.base:g}, levels={self.levels}, lowest={self.lowest}, multiple={self.multiple}"
