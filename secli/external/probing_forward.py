"""The position of every feature map's cells, from a few forward passes: for many taps at once, without gradients.

The response of a cell to noise ε on the image is J·ε, J its derivative. Let ε have independent entries of variance 1
and let x be the image coordinate; then E[(J·ε)²] = Σ J_p² and E[(J·ε)(J·(x∘ε))] = Σ J_p² x_p, so that the second by
the first is the centroid of J². One pass with ε, x∘ε and y∘ε as pictures of a batch gives these products at every cell
of every tap; the mean over channels and over the cells of a row or column estimates the expectation. A derivative is
not needed: J·ε is the change of the features when ε is added, so that taps without a gradient are measured, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from secli.external.cell_grid import (
    ASYMMETRY,
    COVERED,
    CellAxis,
    Geometry,
    asymmetry,
    fitted,
    radius_of_mass,
    steepest,
)

DRAWS = (2, 8)
"""Fewest and most draws of image and noise."""
AMPLITUDES = {False: 0.002, True: 0.25}
"""Of the noise: small, so that few creases of ReLU are crossed; larger where features are rounded to half precision."""
PIXELS = 2
"""Single pixels per draw that are changed by HALF: the cells that they reach show the receptive field."""
HALF = 0.5
NOISE = 0.05
"""Of a position, in cells, at which no further draw is needed: lines go through many positions."""
NUMBERS = 60_000
"""Numbers of a map that are used, at most: larger ones lose channels."""
ROUNDING = 64
"""A change of so many times the rounding of the largest number of a map is none."""

Take = Callable[[str, Tensor], None]
Run = Callable[[Tensor, Take], None]
"""Runs a network on a batch and passes each tap's features (N, C, …, H, W) to the second argument."""


def respond(
    run: Run,
    image_shape: tuple[int, int, int],
    taps: Mapping[str, tuple[int, int]],
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    coarse: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Geometry]:
    """Return the geometry of taps from their responses to noise; those that do not respond are left out.

    ``taps`` has rows and columns of each map, at least two of both; ``coarse`` features are rounded to half precision;
    ``on_progress`` is called with (taps that are settled, taps in all).
    """
    generator = torch.Generator().manual_seed(0)
    samples = {name: _Moments(cells, image_shape[1:]) for name, cells in taps.items()}
    unsettled = dict(samples)
    for draw in range(DRAWS[1]):
        batch, pixels = _batch(image_shape, AMPLITUDES[coarse], generator)
        with torch.no_grad():
            run(batch.to(device, dtype), _collect_into(unsettled, pixels))
        if draw + 1 >= DRAWS[0]:
            unsettled = {name: each for name, each in unsettled.items() if not each.settled()}
        if on_progress:
            on_progress(len(samples) - len(unsettled), len(samples))
        if not unsettled:
            break
    return {name: found for name, each in samples.items() if (found := each.geometry()) is not None}


def _collect_into(samples: Mapping[str, _Moments], pixels: list[tuple[int, int]]) -> Take:
    def take(name: str, plane: Tensor) -> None:
        if name in samples:
            samples[name].add(plane, pixels)

    return take


def _batch(
    shape: tuple[int, int, int], amplitude: float, generator: torch.Generator
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return f, f + ε, f + x∘ε, f + y∘ε, then f with one pixel changed each; and which pixels those are."""
    _, height, width = shape
    image = torch.rand(shape, generator=generator)
    signs = torch.randint(0, 2, shape, generator=generator).float() * 2 - 1
    y, x = (2 * torch.arange(n, dtype=torch.float32).sub((n - 1) / 2) / n for n in (height, width))
    moved = [image, *(image + amplitude * signs * profile for profile in (torch.ones(1, 1), x, y[:, None]))]
    pixels = []
    for _ in range(PIXELS):
        # of the inner half, so that few of the cells that see it are outside of the map
        row, column = (
            int(torch.randint(n // 4, max(n // 4 + 1, n - n // 4), (), generator=generator))
            for n in (height, width)
        )
        changed = image.clone()
        changed[:, row, column] += HALF * signs[:, row, column]
        moved.append(changed)
        pixels.append((row, column))
    return torch.stack(moved), pixels


def one_by_one(run: Run) -> Run:
    """Return a run of a network that mixes the pictures of a batch: each picture with the same other one."""

    def alone(batch: Tensor, take: Take) -> None:
        found: dict[str, list[Tensor]] = {}
        other = batch[:1].flip(-1)
        for picture in batch.unsqueeze(1):
            run(torch.cat([picture, other]), lambda name, plane: found.setdefault(name, []).append(plane[:1]))
        for name, planes in found.items():
            take(name, torch.cat(planes))

    return alone


class _Moments:
    """The responses of one tap over the draws: Σ J² and its first moments along rows and columns, half by half."""

    def __init__(self, cells: tuple[int, int], image: tuple[int, int]) -> None:
        self.cells, self.image = cells, image
        self.groups: list[list[Float64[np.ndarray, "two n"]]] = [[], []]  # per axis: mass and moment
        self.reached: list[tuple[tuple[int, int], Float64[np.ndarray, "h w"]]] = []  # by single pixels
        self.channels = 0

    def add(self, plane: Tensor, pixels: list[tuple[int, int]]) -> None:
        """Add the features of one batch (see ``_batch``)."""
        values = plane.detach().flatten(1, -3)
        most = max(1, NUMBERS // (self.cells[0] * self.cells[1]))
        values = values[:, :: -(-values.shape[1] // most)].float()
        values = values.contiguous()
        self.channels = values.shape[1]
        changes = values[1:] - values[:1]
        change, along_x, along_y = changes[:3]
        floor = ROUNDING * torch.finfo(plane.dtype).eps * float(values[0].abs().max())
        mass = change.square().sum(0)
        pairs = [torch.stack([mass, (change * along).sum(0)]).double() for along in (along_y, along_x)]
        if not all(bool(pair.isfinite().all()) for pair in pairs):
            return
        for axis, pair in enumerate(pairs):
            # halves across the axis: their difference is the noise
            for half in pair.tensor_split(2, dim=2 - axis):
                self.groups[axis].append(half.sum(2 - axis).cpu().numpy())
        sizes = changes[3:].square().mean(1).sqrt().double().cpu().numpy()
        self.reached += zip(pixels, np.where(sizes > floor, sizes, 0.0), strict=True)

    def axis(self, axis: int) -> CellAxis | None:
        """Return the measurement along one axis; None where fewer than two cells respond."""
        groups = np.stack(self.groups[axis])
        total = groups.sum(0)
        inner = [k for k in _inner(self.cells[axis]) if total[0, k] > 0 and math.isfinite(total[0, k])]
        if len(inner) < 2:
            return None
        count, pixels = len(groups), self.image[axis]
        every = np.concatenate([total[None], total - groups])[:, :, inner]
        mass = every[:, 0]
        shares = np.divide(every[:, 1], mass, out=np.zeros_like(mass), where=mass > 0)
        positions = shares * pixels / 2 + (pixels - 1) / 2
        spread = positions[1:].std(0) * math.sqrt(count - 1)
        noise = float(np.sqrt((spread**2).mean()))
        return CellAxis(inner, positions[0], noise, self.cells[axis], pixels, (-0.5, pixels - 0.5))

    def radius(self, geometry: Geometry) -> float:
        """Return the radius of the disc that holds 95 % of the responses to single pixels."""
        distances, weights = [], []
        for pixel, size in self.reached:
            away = [
                geometry.origin[k] + geometry.stride[k] * np.arange(self.cells[k]) - pixel[k]
                for k in range(2)
            ]
            distances.append(np.hypot(away[0][:, None], away[1][None, :]).ravel())
            weights.append(size.ravel())
        mass = np.concatenate(weights)
        return radius_of_mass(np.concatenate(distances), mass) if mass.sum() > 0 else 0.0

    def axes(self) -> list[CellAxis] | None:
        """Return the measurements along both axes; None without responses."""
        if not self.groups[0]:
            return None
        axes = [self.axis(k) for k in range(2)]
        return None if None in axes else cast("list[CellAxis]", axes)

    def geometry(self) -> Geometry | None:
        """Return the geometry from the responses; None when there are none."""
        known = self.axes()
        if known is None:
            return None
        radius = self.radius(self._spanning())
        geometry = fitted(known, radius, asymmetry(self.channels, radius))
        return geometry._replace(radius=self.radius(geometry))

    def _spanning(self) -> Geometry:
        """Return the grid that spans the image, as most maps do."""
        strides = [pixels / count for pixels, count in zip(self.image, self.cells, strict=True)]
        origins = [(stride - 1) / 2 for stride in strides]
        return Geometry((strides[0], strides[1]), (origins[0], origins[1]), 0.0, True)

    def settled(self) -> bool:
        """Return whether the noise is small enough, or no further draw can determine the positions."""
        known = self.axes()
        if known is None or any(steepest(axis) < COVERED[0] * axis.pixels / axis.size for axis in known):
            return True
        radius = self.radius(self._spanning())
        return all(
            axis.noise < max(NOISE * axis.pixels / axis.size, ASYMMETRY / 2 * radius) for axis in known
        )


def _inner(count: int) -> list[int]:
    """Return the cells of the inner half of an axis: those at the edges see less of the image on one side."""
    if count <= 4:
        return [(count - 1) // 2, (count - 1) // 2 + 1]
    return list(range(math.ceil((count - 1) / 4), math.floor(3 * (count - 1) / 4) + 1))
