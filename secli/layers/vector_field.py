"""Convolutions of scale-equivariant vector fields: the resizing with the largest response becomes an angle.

Source: Marcos, Kellenberger, Lobry, Tuia, "Scale Equivariance in CNNs with Vector Fields", 2018, section 3. With T_s
the resizing of a plane by s (bilinear), j = j_min … j_max and θ_j = jΘ/(S − 1), S the number of j::

    lift    y_j = T_{a^-j}(T_{a^j} f ⋆ W)
    vector  y_j = T_{a^-j}(T_{a^j} u ⋆ W_u^j + T_{a^j} v ⋆ W_v^j),    (W_u^j, W_v^j) = R(∓θ_j) (W_u, W_v)
    both    m = ReLU(max_j y_j),  j* = argmax_j y_j,  (u, v) = m (cos θ_j*, sin θ_j*)

with R(θ) the turn by θ of the pair. A filter responds at j to content that is a^-j times as large as that at 0, so
shrinking the picture by 1/a turns the lift's vectors by +θ, θ = θ_1: the lift is equivariant, with base 1/a.

A vector convolution is equivariant when a field that is shrunk and turned by R(θ) responds at j + 1 as it did at
j. With the weights turned by R(αθ_j), ⟨R(αθ_{j+1})W, R(θ)F⟩ = ⟨R(αθ_{j+1} − θ)W, F⟩, which is ⟨R(αθ_j)W, F⟩ for
α = +1 and for no other α. The published code has α = −1 (``turn="against"``, the default): its second layer compares
weights turned one way with vectors turned the other, and is off by 2θ for every factor 1/a. ``turn="along"`` is the
equivariant sign, at the same cost and with the same parameters.

On a constant background all y_j are equal and rounding alone decides which is the largest: in float32 another than in
float64. ``ties="first"`` takes the lowest j of those within 1e-4 of the largest (of the picture's largest response)::

    j* = min {j : y_j ≥ max_i y_i − 10⁻⁴ max |y|},    m = ReLU(y_j*)
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.action.images import apply_axes
from secli.layers.bilinear import bilinear_operator
from secli.layers.pooling import scale_pool
from secli.layers.vectors import Ties, first_of_largest

Turn = Literal["against", "along"]

BASE = 1.26
LEVELS = (-4, 3)
RANGE = 2 * math.pi / 3


class Resizings(nn.Module):
    """Base of the layers: the resizings a^j of their input, each with its angle, and the maximum over them.

    Parameters
    ----------
    base : float
        a > 1, the ratio of neighbouring resizings.
    levels : pair of int
        Lowest and highest j; two at least.
    angle_range : float
        Θ, the angle in radians from the lowest j to the highest; all angles must lie within ±π.
    stride, padding : int
        In space, in pixels of the input. The padding defaults to K//2, which keeps the size.
    ties : "rounding" or "first"
        What decides between equal responses: rounding, as published, or the lowest j, at every precision.

    Raises
    ------
    ValueError
        When the size is even, a is not above 1, there are not two resizings, or an angle leaves ±π.

    Notes
    -----
    A plane of n cells is resized to round(n·a^j), corners not aligned, no antialiasing, and the response, of that
    size too (zeros K//2 wide around), back to n. Padding other than K//2 widens the picture first, or crops the
    response; a stride skips cells of it. Every resizing therefore responds on one grid.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(
        self,
        size: int,
        base: float,
        levels: tuple[int, int],
        angle_range: float,
        stride: int,
        padding: int | None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        ties: Ties = "rounding",
    ) -> None:
        super().__init__()
        self.ties = ties
        if size % 2 == 0 or size < 1:
            raise ValueError(f"the kernel size must be odd and positive, not {size}")
        if not base > 1:
            raise ValueError(f"the base must be greater than 1, not {base:g}")
        low, high = levels
        if low >= high:
            raise ValueError(f"at least two resizings are needed, not j = {low} to {high}")
        self.angle_step = angle_range / (high - low)
        if not (angle_range > 0 and max(-low, high) * self.angle_step < math.pi):
            raise ValueError(f"the angles must increase within ±π; a range of {angle_range:g} rad does not")
        self.size, self.base, self.levels, self.stride = size, float(base), levels, stride
        self.padding = size // 2 if padding is None else padding
        self.factors = tuple(self.base**j for j in range(low, high + 1))
        self.angles = tuple(j * self.angle_step for j in range(low, high + 1))
        options = {"device": device, "dtype": dtype}
        for name, function in (("cosines", math.cos), ("sines", math.sin)):
            table = torch.tensor([function(angle) for angle in self.angles], **options)  # type: ignore[arg-type]
            self.register_buffer(name, table, persistent=False)

    def responses(
        self, x: Float[Tensor, "n c h w"], kernels: list[Float[Tensor, "o c k k"]]
    ) -> Float[Tensor, "n o s y x"]:
        """Return y_j for every j, each with its kernel."""
        margin = self.padding - self.size // 2
        if margin > 0:
            x = functional.pad(x, (margin, margin, margin, margin))
        cropped = max(-margin, 0)
        responses = []
        for factor, kernel in zip(self.factors, kernels, strict=True):
            there, back = [], []
            for cells in x.shape[-2:]:
                resized = max(1, round(cells * factor))
                there.append(bilinear_operator(cells, resized, x.dtype, x.device))
                whole = bilinear_operator(resized, cells, x.dtype, x.device)
                back.append(whole[cropped : cells - cropped : self.stride])
            y = functional.conv2d(apply_axes(there[0], x, there[1]), kernel, padding=self.size // 2)
            responses.append(apply_axes(back[0], y, back[1]))
        return torch.stack(responses, dim=2)

    def field(self, responses: Float[Tensor, "n o s y x"]) -> Float[Tensor, "n o 2 y x"]:
        """Return the vectors: the largest response, cut off at zero, at the angle of its resizing."""
        if self.ties == "first":
            indices = first_of_largest(responses)
            magnitude = responses.gather(2, indices.unsqueeze(2)).squeeze(2).relu()
        else:
            largest = responses.max(dim=2)
            indices, magnitude = largest.indices, largest.values.relu()
        cosines, sines = (table.to(magnitude.dtype)[indices] for table in (self.cosines, self.sines))
        return torch.stack([magnitude * cosines, magnitude * sines], dim=2)

    def extra_repr(self) -> str:
        """Show the resizings."""
        return f"base={self.base:g}, levels={self.levels}, stride={self.stride}, padding={self.padding}"


class _ImageFilters(Resizings):
    """One kernel for scalar input."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        base: float = BASE,
        levels: tuple[int, int] = LEVELS,
        angle_range: float = RANGE,
        stride: int = 1,
        padding: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        ties: Ties = "rounding",
    ) -> None:
        super().__init__(size, base, levels, angle_range, stride, padding, device, dtype, ties)
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, size, size, device=device, dtype=dtype)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights Kaiming-uniformly (a = √5), as torch draws a convolution's."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))


class VectorFieldLift(_ImageFilters):
    """Lift an image to a vector field: length of the largest response over resizings, angle of its resizing.

    Parameters
    ----------
    size, base, levels, angle_range, stride, padding, ties
        As for ``Resizings``: K, a = 1.26, j = −4 … 3, Θ = 2π/3, stride 1, padding K//2.

    Notes
    -----
    Weight (out, in, K, K), no bias. Maps (N, C, H, W) to (N, C', 2, H', W'), u and v on axis 2. Scale acts on it as
    on ``secli.action.fields.VectorField`` of base 1/a.

    Examples
    --------
    >>> VectorFieldLift(1, 4, 7)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 4, 2, 28, 28])
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o 2 y x"]:
        """Return the vectors."""
        return self.field(self.responses(x, [self.weight] * len(self.factors)))


class ScalarFieldConv(_ImageFilters):
    """The magnitude alone: m = ReLU(max_j T_{a^-j}(T_{a^j} f ⋆ W)), a plane that forgets which j it was.

    Parameters
    ----------
    size, base, levels, angle_range, stride, padding
        As for ``VectorFieldLift``; neither angles nor ties are used.

    Notes
    -----
    Weight (out, in, K, K), no bias. Maps (N, C, H, W) to (N, C', H', W').

    Examples
    --------
    >>> ScalarFieldConv(1, 4, 7, stride=2)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 4, 14, 14])
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o y x"]:
        """Return the magnitudes."""
        return scale_pool(self.responses(x, [self.weight] * len(self.factors))).relu()


class VectorFieldConv(Resizings):
    """Convolve a vector field: y_j = T_{a^-j}(T_{a^j} u ⋆ W_u^j + T_{a^j} v ⋆ W_v^j), the weights turned with j.

    Parameters
    ----------
    size, base, levels, angle_range, stride, padding, ties
        As for ``VectorFieldLift``.
    turn : "against" or "along"
        Whether the weights of resizing j are turned by −θ_j, as published, or by +θ_j, which is equivariant.

    Raises
    ------
    ValueError
        As ``Resizings`` does; (on use) when axis 2 of the input does not hold two components.

    Notes
    -----
    Weights W_u and W_v, each (out, in, K, K), no bias. Maps (N, C, 2, H, W) to (N, C', 2, H', W')::

        against  W_u^j = cos θ_j W_u + sin θ_j W_v,    W_v^j = −sin θ_j W_u + cos θ_j W_v
        along    W_u^j = cos θ_j W_u − sin θ_j W_v,    W_v^j = sin θ_j W_u + cos θ_j W_v

    Examples
    --------
    >>> VectorFieldConv(4, 8, 7)(torch.randn(2, 4, 2, 14, 14)).shape
    torch.Size([2, 8, 2, 14, 14])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        base: float = BASE,
        levels: tuple[int, int] = LEVELS,
        angle_range: float = RANGE,
        stride: int = 1,
        padding: int | None = None,
        turn: Turn = "against",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        ties: Ties = "rounding",
    ) -> None:
        super().__init__(size, base, levels, angle_range, stride, padding, device, dtype, ties)
        self.sense = {"against": -1.0, "along": 1.0}[turn]
        shape = (out_channels, in_channels, size, size)
        self.weight_u = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.weight_v = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both weights Kaiming-uniformly (a = √5), each as torch draws a convolution's."""
        nn.init.kaiming_uniform_(self.weight_u, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "n c 2 h w"]) -> Float[Tensor, "n o 2 y x"]:
        """Return the vectors."""
        if x.shape[2] != 2:
            raise ValueError(f"a vector field has 2 components on axis 2, its input {x.shape[2]}")
        return self.field(self.responses(x.flatten(1, 2), [self._turned(angle) for angle in self.angles]))

    def _turned(self, angle: float) -> Float[Tensor, "o c2 k k"]:
        """Return the turned pair of weights, in the order of the input's joined channels."""
        cosine, sine = math.cos(angle), self.sense * math.sin(angle)
        u = cosine * self.weight_u - sine * self.weight_v
        v = sine * self.weight_u + cosine * self.weight_v
        return torch.stack([u, v], dim=2).flatten(1, 2)

    def extra_repr(self) -> str:
        """Show the resizings and the sense of the turn."""
        return f"{super().extra_repr()}, turn={'along' if self.sense > 0 else 'against'}"
