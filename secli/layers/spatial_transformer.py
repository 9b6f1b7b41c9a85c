"""Spatial transformer: a small network predicts an affine map by which the picture is resampled first.

Source: Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NeurIPS 2015, section 3. With
u = (column, row) in units of half the picture's sides, from −1 to 1 about its centre::

    y(u) = x(A_θ u + t_θ),      θ = (A, t) = (1, 0) + localiser(x)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.layers.sampling import sample_bilinear


class SpatialTransformer(nn.Module):
    """Resample each picture by the affine map that a localiser predicts; at the start it is the identity.

    Parameters
    ----------
    localiser : Module
        Maps pictures (N, C, H, W) to features of any shape with ``features`` numbers per picture.
    features : int
        Numbers per picture that the localiser returns.
    device, dtype
        Of the last, linear map.

    Notes
    -----
    ``linear`` maps the features to the six numbers by which the map differs from the identity, in the order of
    (A_00, A_01, t_0, A_10, A_11, t_1), A acting on (column, row). Its weight and bias start at zero: published code
    starts with the identity in the bias instead, the same function, but weight decay would shrink that map to a point
    and here leads back to the identity. So the localiser gets no gradient in the very first step. Bilinear, zeros
    outside: give it pixels whose background is 0, and normalise after it. Coordinates are never coarser than float32.

    Examples
    --------
    >>> layer = SpatialTransformer(torch.nn.AdaptiveAvgPool2d(4), features=16)
    >>> tuple(layer(torch.rand(2, 1, 28, 28)).shape)
    (2, 1, 28, 28)
    """

    def __init__(
        self,
        localiser: nn.Module,
        features: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.localiser = localiser
        self.linear = nn.Linear(features, 6, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start at the identity; the localiser is left as it is."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def difference(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2 3"]:
        """Return the affine map of each picture less the identity, (A − 1 | t)."""
        numbers: Tensor = self.linear(self.localiser(x).flatten(1))
        return numbers.reshape(-1, 2, 3)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the resampled pictures."""
        return affine_resampled(x, self.difference(x))


def affine_resampled(
    x: Float[Tensor, "n c h w"], difference: Float[Tensor, "n 2 3"]
) -> Float[Tensor, "n c h w"]:
    """Return y(u) = x(u + D (u, 1)), D = (A − 1 | t), read bilinearly with zeros outside; D = 0 returns x exactly.

    u = (column, row) runs from −1 to 1 between the outer edges of the picture. Whole pixels are added to a displacement
    that is zero at the identity: ``affine_grid`` would round, and then the derivative by θ, which has a kink at every
    pixel, would be taken on a side chosen by rounding.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    height, width = x.shape[2:]
    columns = torch.arange(width, device=x.device, dtype=dtype)
    rows = torch.arange(height, device=x.device, dtype=dtype)
    right = ((2 * columns + 1) / width - 1).expand(height, width)
    down = ((2 * rows + 1) / height - 1).unsqueeze(1).expand(height, width)
    positions = torch.stack([right, down, torch.ones_like(right)])
    moved = torch.einsum("nij,jhw->nihw", difference.to(dtype), positions)
    at_column = columns + moved[:, 0] * (width / 2)
    at_row = rows.unsqueeze(1) + moved[:, 1] * (height / 2)
    return sample_bilinear(x.to(dtype), at_row, at_column).to(x.dtype)
