"""The Gaussian scale space of an image, with the discrete Gaussian, whose semigroup law holds on the grid.

Sources: Lindeberg, "Scale-Space for Discrete Signals", PAMI 1990; Worrall, Welling, "Deep Scale-spaces:
Equivariance Over Scale", NeurIPS 2019, section 4. With I_n the modified Bessel functions::

    T(n, t) = e^{−t} I_n(t),      T(·, t) ⋆ T(·, u) = T(·, t + u)
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from secli.action import images as scaling


def discrete_gaussian(variance: float) -> NDArray[np.float64]:
    """Return T(n, t) for |n| ≤ 4⌈√t⌉, normalised to sum 1; t ≥ 0 in squared pixels, 0 gives the unit impulse.

    Raises
    ------
    ValueError
        When the variance is negative or not finite.

    Examples
    --------
    >>> discrete_gaussian(0.0)
    array([1.])
    """
    if not (math.isfinite(variance) and variance >= 0):
        raise ValueError(f"a variance must be finite and not negative, not {variance:g}")
    radius = 4 * math.ceil(math.sqrt(variance))
    kernel = scaling.bessel_kernel(variance, radius)
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def lift_variances(base: float, z: float, levels: int) -> tuple[float, ...]:
    """Return t_k = z²(b^{2k} − 1): level k then has the blur z·b^k if the image has the blur z.

    Raises
    ------
    ValueError
        When the base is not above 1, the blur not positive, or there is no level.
    """
    if not base > 1:
        raise ValueError(f"the base must be greater than 1, not {base:g}")
    if not z > 0:
        raise ValueError(f"the blur z must be greater than 0, not {z:g}")
    if levels < 1:
        raise ValueError(f"there must be at least one level, not {levels}")
    return tuple(z**2 * (base ** (2 * k) - 1) for k in range(levels))


class ScaleSpaceLift(nn.Module):
    """Lift images to a Gaussian scale space: level k is the image blurred by T(·, t_k); level 0 is the image.

    Parameters
    ----------
    base : float
        b > 1, the ratio of neighbouring scales.
    z : float
        Assumed blur of the image, as a standard deviation in pixels.
    device, dtype
        As for any torch module; the kernels are computed in float64 and rounded once.

    Notes
    -----
    t_k = z²(b^{2k} − 1) (Worrall & Welling 2019, section 4); zeros outside the image. Nothing is learned, and no
    checkpoint holds the kernels. Maps (N, C, H, W) to (N, C, S, H, W).

    Examples
    --------
    >>> ScaleSpaceLift(2.0, 0.5, 4)(torch.rand(2, 3, 28, 28)).shape
    torch.Size([2, 3, 4, 28, 28])
    """

    def __init__(
        self,
        base: float,
        z: float,
        levels: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.base, self.z, self.levels = base, z, levels
        for k, variance in enumerate(lift_variances(base, z, levels)[1:], start=1):
            kernel = torch.from_numpy(discrete_gaussian(variance))
            kernel = kernel.to(device=device, dtype=dtype or torch.get_default_dtype())
            self.register_buffer(f"kernel{k}", kernel, persistent=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c s h w"]:
        """Return the scale space."""
        planes = x.flatten(0, 1).unsqueeze(1)
        levels = [planes, *(_blur(planes, self.get_buffer(f"kernel{k}")) for k in range(1, self.levels))]
        return torch.cat(levels, dim=1).reshape(x.shape[0], x.shape[1], self.levels, *x.shape[2:])

    def extra_repr(self) -> str:
        """Show base, blur and levels."""
        return f"base={self.base:g}, z={self.z:g}, levels={self.levels}"


def _blur(planes: Float[Tensor, "p 1 h w"], kernel: Float[Tensor, "k"]) -> Float[Tensor, "p 1 h w"]:
    """Blur rows, then columns, with zeros outside."""
    radius = kernel.shape[0] // 2
    rows = functional.conv2d(planes, kernel.view(1, 1, 1, -1), padding=(0, radius))
    return functional.conv2d(rows, kernel.view(1, 1, -1, 1), padding=(radius, 0))
