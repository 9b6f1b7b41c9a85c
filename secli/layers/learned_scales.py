"""Steerable filters whose scales are learned: the smallest one, and the ratio of the largest to it.

Source: Basting, Bruintjes, Wiedemer, Kümmerer, Bethge, van Gemert, "Scale Learning in Scale-Equivariant Convolutional
Networks", 2024. With ISR the internal scale range, and the basis of :mod:`secli.layers.hermite`::

    σ_k = σ_basis · ISR^{k/(S−1)},      y_k = Σ_{j<I} x_{k+j} ⋆ Σ_b w_{j,b} ψ_b^{σ_k} + bias

ψ is sampled anew in every pass and differentiated through, at each scale on the cells that SESN gives it: K×K at the
largest, a share σ_k/σ_max of them at the others.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.layers.fast.levels import stack_levels
from secli.layers.ses import check_levels, join_levels


class LearnedScales(nn.Module):
    """The scales σ_k = σ_basis · ISR^{k/(S−1)}, of which σ_basis and ISR are learned.

    σ_basis = σ · e^a and ISR = 1 + (F − 1) e^b, where a and b, the parameters, start at zero.

    Parameters
    ----------
    smallest : float
        σ, what σ_basis starts at, in cells.
    span : float
        F > 1, what the ISR starts at.
    levels : int
        S, at least 2: of one level nothing says where the largest is.

    Raises
    ------
    ValueError
        When σ is not positive, the span not above 1, or there are fewer than two levels.

    Examples
    --------
    >>> [round(sigma, 2) for sigma in LearnedScales(1.5, 3.0, 3).values()]
    [1.5, 2.6, 4.5]
    """

    def __init__(
        self,
        smallest: float,
        span: float,
        levels: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not smallest > 0 or not span > 1 or levels < 2:
            raise ValueError(
                f"learned scales need σ > 0, a span above 1 and two levels, not {smallest:g}, {span:g} and {levels}"
            )
        self.smallest, self.span, self.levels = smallest, span, levels
        self.log_smallest = nn.Parameter(torch.zeros((), device=device, dtype=dtype))
        self.log_span = nn.Parameter(torch.zeros((), device=device, dtype=dtype))

    def forward(self) -> Float[Tensor, "s"]:
        """Return the scales."""
        ratio = 1 + (self.span - 1) * self.log_span.exp()
        steps = torch.arange(self.levels, device=ratio.device, dtype=ratio.dtype) / (self.levels - 1)
        return self.smallest * self.log_smallest.exp() * ratio**steps

    def values(self) -> tuple[float, ...]:
        """Return the scales as numbers; those of the start where tensors hold none."""
        if self.log_span.is_meta:
            return tuple(self.smallest * self.span ** (k / (self.levels - 1)) for k in range(self.levels))
        return tuple(self().detach().double().tolist())


def sampled_basis(
    scales: Float[Tensor, "s"], size: int, functions: tuple[tuple[int, int, float], ...]
) -> Float[Tensor, "b s k k"]:
    """Return ψ_b^{σ_k} on K×K cells, each function divided at all scales by its L2 norm at the first one.

    Beyond the support of :func:`secli.layers.hermite.support` there are zeros.

    Parameters
    ----------
    functions : tuple of (int, int, float)
        Of each function the Hermite orders along rows and columns, and the factor on σ.
    """
    most = max(max(n, m) for n, m, _ in functions)
    grid = torch.arange(size, device=scales.device, dtype=scales.dtype) - size // 2
    cells = (size * (scales / scales[-1]).detach() + 1e-4).floor()  # the ratio is rounded: 4.9999 counts as 5
    inside = grid.abs() <= (cells / 2).floor()[:, None]
    shrinks = sorted({shrink for *_, shrink in functions})
    lines = {}
    for shrink in shrinks:
        sigma = (scales * shrink)[:, None]
        u = grid / sigma
        polynomials = [torch.ones_like(u), u]
        for n in range(1, most):  # He_{n+1}(u) = u He_n(u) − n He_{n−1}(u)
            polynomials.append(u * polynomials[n] - n * polynomials[n - 1])
        bell = torch.exp(-(u**2) / 2) / sigma * inside
        lines[shrink] = [bell * polynomial for polynomial in polynomials]
    rows = torch.stack([lines[shrink][n] for n, _, shrink in functions])
    columns = torch.stack([lines[shrink][m] for _, m, shrink in functions])
    planes = rows[..., :, None] * columns[..., None, :]
    # on a single cell an odd function vanishes, and stays what it is
    return planes / planes[:, :1].square().sum((-2, -1), keepdim=True).clamp(min=1e-24).sqrt()


def functions_b(effective_size: int, mult: float, max_order: int) -> tuple[tuple[int, int, float], ...]:
    """Return orders and factors of basis B, in the order of :func:`secli.layers.hermite.basis_b`."""
    pairs = [(n, m) for m in range(max_order + 1) for n in range(max_order + 1) if n + m <= max_order]
    return tuple(
        (*pairs[b % len(pairs)], float(mult ** -(b // len(pairs)))) for b in range(effective_size**2)
    )


class LearnedScaleConv(nn.Module):
    """A steerable convolution at learned scales: a lift of a plane, or a convolution of a scale space with itself.

    Parameters
    ----------
    size : int
        Side K of the largest kernel in cells, odd.
    scales : LearnedScales
        Learned once for a whole network, whose layers would else not agree on what a level is.
    shares : bool
        Whether the scales are parameters of another module: they are then used, and not held.
    interaction : int
        I, the levels of a scale space that are mixed; of a plane 1.

    Raises
    ------
    ValueError
        When the size is even, the interaction exceeds the levels, or (on use) the input has other levels.

    Notes
    -----
    Weight (out, in, I, b). Maps (N, C, H, W), of which every level sees the plane, or (N, C, S, H, W) to
    (N, C', S, H, W); zeros outside.

    Examples
    --------
    >>> layer = LearnedScaleConv(1, 8, 13, LearnedScales(1.5, 3.0, 3))
    >>> layer(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 8, 3, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        scales: LearnedScales,
        shares: bool = False,
        interaction: int = 1,
        effective_size: int = 7,
        mult: float = 1.5,
        max_order: int = 4,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if size % 2 == 0 or size < 3:
            raise ValueError(f"the kernel size must be odd and at least 3, not {size}")
        if not 1 <= interaction <= scales.levels:
            raise ValueError(f"interaction must be 1 to {scales.levels} (the levels), not {interaction}")
        self.size, self.interaction = size, interaction
        self.basis = functions_b(effective_size, mult, max_order)
        if not shares:
            self.scales = scales
        # in a tuple, whose modules torch does not look for: a checkpoint holds a parameter once
        self._scales = (scales,)
        shape = (out_channels, in_channels, interaction, len(self.basis))
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights Kaiming-uniformly (a = √5); the bias starts at zero."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.zeros_(self.bias)

    def kernels(self) -> Float[Tensor, "s o c i k k"]:
        """Return the kernels of every level at its present scale."""
        basis = sampled_basis(self._scales[0](), self.size, self.basis)
        return torch.einsum("ocib,bsyx->sociyx", self.weight, basis)

    def forward(self, x: Float[Tensor, "n c *s h w"]) -> Float[Tensor, "n o k h w"]:
        """Return the responses at every scale."""
        kernels = self.kernels()
        if x.dim() == 5:
            check_levels(x, len(kernels))
            pairs = [join_levels(x, kernel, k) for k, kernel in enumerate(kernels)]
        else:
            pairs = [(x, kernel[:, :, 0]) for kernel in kernels]
        padding = self.size // 2
        return stack_levels(functional.conv2d(y, kernel, self.bias, padding=padding) for y, kernel in pairs)

    def extra_repr(self) -> str:
        """Show size and interaction."""
        return f"size={self.size}, interaction={self.interaction}"
