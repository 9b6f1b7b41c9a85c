"""Deformable scale convolution: a tied kernel, dilated with the level, whose taps a parallel branch moves.

Sources: Worrall, Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019, section 4 (the dilated tied
kernel); Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.1 (the moved taps). With d_k the
dilation of level k and Δ_k predicted from level k by one branch for all levels::

    y_k(p) = Σ_{j<I} Σ_i w_{j,i} x_{k+j}(p + d_k p_i + m_k Δ_{k,i}(p))

    offsets=absolute   m_k = 1,    Δ_k = v ⋆ x_k         (the branch's kernel is not dilated)
    offsets=scaled     m_k = d_k,  Δ_k = D_{d_k} v ⋆ x_k

Shrinking a picture by d_k⁻¹ moves its content from level k to level 0. There ``scaled`` predicts the same Δ from the
same content and moves the taps d_k times less, which is L_s of the offsets; ``absolute`` moves them equally far.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.layers.deformable import deformed_conv2d
from secli.layers.dss import Dilation, DSSConv
from secli.layers.ses import check_levels, join_levels

Offsets = Literal["absolute", "scaled"]


class OffsetBranch(DSSConv):
    """A scale convolution with a bias that starts at zero and draws no random number."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class DeformableDSSConv(DSSConv):
    """Scale convolution with moved taps; at the start it is :class:`secli.layers.dss.DSSConv`.

    Parameters
    ----------
    in_channels, out_channels, size, base, levels, interaction, dilation, drop_top
        As for ``DSSConv``. A fractional dilation (``exact``) needs no splatting here: the taps are read bilinearly.
        That is the adjoint of splatting the kernel, and the same function while nothing is moved.
    groups : int
        Deformable groups: the input channels of one group share their offsets.
    offsets : "absolute" or "scaled"
        Offsets in pixels from an undilated branch, as published for single-scale networks; or in units of the
        level's dilation from a branch dilated likewise, as scale equivariance requires.
    stride, padding : int
        In space, as for ``DSSConv``; the branch has the same.
    bias : bool
        Whether a bias per output channel is learned (the branch always has one).
    out_levels : int, optional
        As for ``DSSConv``.

    Raises
    ------
    ValueError
        As for ``DSSConv``, and when the groups do not divide the input channels.

    Notes
    -----
    Weights: ``weight`` (out, in, I, K, K), He-normal, and the branch's ``offset.weight`` (2·groups·K², in, 1, K, K)
    and ``offset.bias``, zero; it predicts row and column in turn, tap by tap, group by group. With interaction the
    taps of all I terms move by the offsets of level k, the lowest one: an offset is a function of position and scale
    of the output, and this level needs no truncation. Positions are computed in float32 or better.
    Maps (N, C, S, H, W) to (N, C', S', H', W'), S' the levels kept.

    Examples
    --------
    >>> layer = DeformableDSSConv(2, 4, 3, base=1.5, levels=3, dilation="exact", offsets="scaled")
    >>> layer(torch.rand(1, 2, 3, 16, 16)).shape
    torch.Size([1, 4, 3, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        base: float,
        levels: int,
        interaction: int = 1,
        dilation: Dilation = "floor",
        drop_top: bool = False,
        groups: int = 1,
        offsets: Offsets = "absolute",
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        out_levels: int | None = None,
    ) -> None:
        if groups < 1 or in_channels % groups:
            raise ValueError(f"deformable groups {groups} do not divide the {in_channels} input channels")
        super().__init__(
            in_channels,
            out_channels,
            size,
            base,
            levels,
            interaction,
            dilation,
            drop_top,
            stride,
            padding,
            bias,
            device,
            dtype,
            out_levels,
        )
        self.groups, self.offsets = groups, offsets
        kept = self.out_levels
        how: Dilation = dilation if offsets == "scaled" else "floor"
        self.offset = OffsetBranch(
            in_channels,
            2 * groups * size**2,
            size,
            base,
            kept,
            dilation=how,
            stride=stride,
            padding=padding,
            bias=True,
            device=device,
            dtype=dtype,
        )
        if offsets == "absolute":
            self.offset.dilations = (1.0,) * kept

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n o t y x"]:
        """Return the responses at every level that is kept."""
        check_levels(x, self.levels)
        predicted = self.offset(x[:, :, : self.out_levels])
        levels = [self._moved(x, predicted[:, :, k], k) for k in range(self.out_levels)]
        y = torch.stack(levels, dim=2)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1, 1)

    def _moved(
        self, x: Float[Tensor, "n c s h w"], predicted: Float[Tensor, "n shifts y x"], k: int
    ) -> Float[Tensor, "n o y x"]:
        """Convolve level k and the ones mixed with it at the moved taps."""
        joined, kernel = join_levels(x, self.weight, k)
        dtype = torch.promote_types(x.dtype, torch.float32)
        spacing = self.dilations[k]
        shifts = predicted.to(dtype)
        if self.offsets == "scaled":
            shifts = shifts * spacing
        if spacing != 1:
            # a dilated kernel, by an integer or not, is an undilated one with moved taps
            shifts = shifts + self._dilation_shifts(spacing, dtype, x.device)
        return deformed_conv2d(joined, shifts, kernel, None, self.stride, self.padding, 1, None)

    def _dilation_shifts(
        self, spacing: float, dtype: torch.dtype, device: torch.device
    ) -> Float[Tensor, "shifts 1 1"]:
        """Return the distance of each tap of the dilated kernel from that of the undilated one."""
        radius = self.size // 2
        away = torch.arange(-radius, radius + 1, device=device, dtype=dtype) * (spacing - 1)
        taps = torch.stack([away.repeat_interleave(self.size), away.repeat(self.size)], dim=1)
        return taps.flatten().repeat(self.groups).view(-1, 1, 1)

    def extra_repr(self) -> str:
        """Show dilations, groups and how offsets scale."""
        return f"{super().extra_repr()}, groups={self.groups}, offsets={self.offsets}"
