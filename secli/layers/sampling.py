"""Bilinear reading of images at any position, differentiable in both modes on every version of torch.

``y(r, c) = Σ_ij max(0, 1 − |r − i|) · max(0, 1 − |c − j|) · x(i, j)``, zeros outside: the sampling of Jaderberg et al.,
"Spatial Transformer Networks", NeurIPS 2015, equation 5, and of deformable convolution.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional


def in_forward_mode(*tensors: Tensor) -> bool:
    """Return whether a tensor carries a forward-mode tangent, which torchvision's own operator would silently drop."""
    if torch.compiler.is_compiling():
        return False  # a compiled graph carries no tangents
    unpacked = (forward_ad.unpack_dual(tensor) for tensor in tensors)  # type: ignore[no-untyped-call]
    return any(pair.tangent is not None for pair in unpacked)


def sample_bilinear(
    images: Float[Tensor, "n c h w"], rows: Float[Tensor, "n y x"], columns: Float[Tensor, "n y x"]
) -> Float[Tensor, "n c y x"]:
    """Return the images (float32 or float64) read at positions in pixels, cell (0, 0) at its own centre.

    ``grid_sample`` reads where there is no tangent; not every version of torch has a forward-mode derivative of it, so
    with one four gathers and their products replace it. Both take the cell ahead at a whole pixel, where the
    derivative by the position has a kink. Positions are any real numbers; outside the image zero is read.
    """
    if in_forward_mode(images, rows, columns):
        return _gathered(images, rows, columns)
    # on sides that are powers of two the normalised coordinates of whole pixels are exact, so that these are read as
    # single pixels and the kink is met on the same side everywhere
    sides = [1 << (side - 1).bit_length() for side in images.shape[2:]]
    enlarged = functional.pad(images, (0, sides[1] - images.shape[3], 0, sides[0] - images.shape[2]))
    grid = torch.stack([(2 * columns + 1) / sides[1] - 1, (2 * rows + 1) / sides[0] - 1], dim=-1)
    return functional.grid_sample(enlarged, grid, align_corners=False)


def _gathered(
    images: Float[Tensor, "n c h w"], rows: Float[Tensor, "n y x"], columns: Float[Tensor, "n y x"]
) -> Float[Tensor, "n c y x"]:
    """Read the four neighbours of every position, each by one gather, and weigh them."""
    height, width = images.shape[2:]
    cells = images.flatten(2)
    axes = (_neighbours(rows, height), _neighbours(columns, width))
    read = images.new_zeros(*images.shape[:2], *rows.shape[1:])
    for (row, across_rows), (column, across_columns) in itertools.product(*axes):
        cell = (row * width + column).flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
        weight = (across_rows * across_columns).unsqueeze(1)
        read = read + weight * cells.gather(2, cell).reshape(read.shape)
    return read


def _neighbours(position: Float[Tensor, "n y x"], cells: int) -> list[tuple[Tensor, Tensor]]:
    """Return the cells behind and ahead of every position on an axis, and their weights: 0 for cells off the axis."""
    behind = position.floor()
    found = []
    for cell, weight in ((behind, 1 - (position - behind)), (behind + 1, position - behind)):
        inside = (cell >= 0) & (cell < cells)
        index = torch.where(inside, cell, 0).long()
        found.append((index, torch.where(inside, weight, 0)))
    return found
