"""From positions of cells in the image to their grid, and whether such a grid is possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from secli.records.notes import Note

PRECISION = 0.03
"""Noise of a position, in cells, at which no further measurement is needed."""
ASYMMETRY = 0.02
"""Share of the radius by which learned (or drawn) filters, never quite symmetric, move a centroid."""
UNEVENNESS = 1.25
"""How far a slope may be from an exact stride that fits the sizes: windows of attention pull cells together."""
FEW = 4
"""With fewer cells a map's stride is hardly determined."""
MASS = 0.95
"""Share of the gradient within the receptive field's radius."""
COVERED = (0.25, 2.5)
"""Least and most share of the image's side that a map can cover: crops and full padding are between."""
COVERED_BY_FRACTIONS = 0.75
"""Least share for cells closer than one pixel: a network that enlarges does not crop as well."""


class Geometry(NamedTuple):
    """The position of a feature map's cells in the image.

    Attributes
    ----------
    stride
        Image pixels per cell, (rows, columns).
    origin
        Image coordinate of cell 0 (pixel i has its centre at i), (rows, columns).
    radius
        Radius in pixels of the disc about a cell's position that holds 95 % of its gradient's magnitude: of the
        effective receptive field, which is smaller than the theoretical one.
    centred
        Whether the grid's centre is the image's.
    """

    stride: tuple[float, float]
    origin: tuple[float, float]
    radius: float
    centred: bool = False


class CellAxis(NamedTuple):
    """The measurement along one axis.

    Attributes
    ----------
    cells
        Indices of the cells whose positions are known, at least two different ones.
    positions
        Their image coordinates.
    noise
        Of one position, in pixels.
    size
        Cells of the map.
    pixels
        Of the image.
    seen
        Range of image coordinates that influence any cell.
    """

    cells: Sequence[int]
    positions: Float64[np.ndarray, "k"]
    noise: float
    size: int
    pixels: int
    seen: tuple[float, float]


def fitted(axes: Sequence[CellAxis], radius: float, uneven: float) -> Geometry:
    """Return the grid through positions along rows and columns, brought to exact values within their noise.

    ``radius`` is that of the receptive field; filters may move a position by the share ``uneven`` of it (see
    :func:`asymmetry`).
    """
    lines = [_Line.through(axis.cells, axis.positions, axis.noise) for axis in axes]
    strides = [
        line.stride(axis.size, axis.pixels, axis.seen, radius) for line, axis in zip(lines, axes, strict=True)
    ]
    starts = [line.start(stride, axis.seen) for line, stride, axis in zip(lines, strides, axes, strict=True)]
    noises = [
        3 * line.noise + PRECISION * stride + ASYMMETRY * radius
        for line, stride in zip(lines, strides, strict=True)
    ]
    square = axes[0].size == axes[1].size and axes[0].pixels == axes[1].pixels and strides[0] == strides[1]
    if square and abs(starts[0] - starts[1]) <= sum(noises):
        starts = [sum(starts) / 2] * 2  # equal for rows and columns: their asymmetries are noise
    slacks = [noise + (uneven - ASYMMETRY) * radius for noise in noises]
    origins = [
        _exact_origin(start, slack, stride, axis.size, axis.pixels)
        for start, slack, stride, axis in zip(starts, slacks, strides, axes, strict=True)
    ]
    centred = all(
        abs(origin + stride * (axis.size - 1) / 2 - (axis.pixels - 1) / 2) < 1e-6
        for origin, stride, axis in zip(origins, strides, axes, strict=True)
    )
    return Geometry((strides[0], strides[1]), (origins[0], origins[1]), radius, centred)


def asymmetry(channels: int, radius: float) -> float:
    """Return the share of the radius by which filters may move a position: few weights are less even than many."""
    return ASYMMETRY + 0.5 / math.sqrt(max(1, channels) * max(1.0, math.pi * radius**2))


def steepest(axis: CellAxis) -> float:
    """Return the largest stride, in pixels, that the noise of positions allows."""
    line = _Line.through(axis.cells, axis.positions, axis.noise)
    return line.slope + line.slack


def impossible(tap: str, geometry: Geometry, cells: tuple[int, int], image: tuple[int, int]) -> Note | None:
    """Return why a measured geometry is impossible for a map of some cells on an image; None when it is not.

    Examples
    --------
    >>> impossible("conv", Geometry((0.25, 0.25), (10.0, 10.0), 11.0), (28, 28), (28, 28)).code
    'wrong-extent'
    """
    for stride, origin, count, pixels in zip(*geometry[:2], cells, image, strict=True):
        if stride <= 0.05:  # of a wrongly read layout
            return Note.of("same-position", tap=tap)
        covered = stride * count
        least = COVERED[0] if stride >= 1 else COVERED_BY_FRACTIONS
        if not least * pixels <= covered <= COVERED[1] * pixels:
            extent = {"cells": count, "stride": stride, "covered": covered, "pixels": pixels}
            return Note.of("wrong-extent", tap=tap, **extent)
        ends = origin, origin + stride * (count - 1)
        reach = geometry.radius + stride
        if ends[0] < -reach or ends[1] > pixels - 1 + reach:
            return Note.of("outside-image", tap=tap, first=ends[0], last=ends[1], pixels=pixels)
    return None


class _Line(NamedTuple):
    """Positions of cells along one axis, in order, and the straight line through them."""

    cells: Float64[np.ndarray, "k"]
    positions: Float64[np.ndarray, "k"]
    slope: float
    noise: float  # of one position, in pixels

    @classmethod
    def through(cls, cells: Sequence[int], positions: Float64[np.ndarray, "k"], noise: float) -> _Line:
        indices = np.array(cells, dtype=float)
        centred = indices - indices.mean()
        return cls(indices, positions, float(centred @ positions / (centred @ centred)), noise)

    @property
    def slack(self) -> float:
        """How far the slope may be off."""
        return 3 * self.noise / math.sqrt(float(((self.cells - self.cells.mean()) ** 2).sum())) + 1e-3

    def stride(self, count: int, pixels: int, seen: tuple[float, float], radius: float) -> float:
        """Return the likeliest stride of a map of ``count`` cells on ``pixels`` that the slope allows.

        Where the image's edge cuts the outer cells' receptive fields, their centroids move to the middle, and the
        slope is only a lower bound.
        """
        slack = self.slack
        room = min(self.positions.min() - seen[0], seen[1] - self.positions.max())
        low, high = self.slope - slack, (self.slope if room > radius else 3 * self.slope) + slack
        ratio = pixels / count
        if count >= FEW and slack > ratio / 2:  # positions at random: an axis that is none of the plane's
            return 0.0
        powers = [2.0**k for k in range(-4, 12)]
        # stride s on p pixels leaves p/s cells, rounded up or down
        fitting = [s for s in (*powers, *map(float, range(1, pixels + 1))) if abs(pixels / s - count) < 1]
        tiers = [
            [ratio] if ratio % 1 == 0 or (1 / ratio) % 1 == 0 else [],
            [s for s in fitting if s in powers],
            fitting,
            [ratio],
            *([_nearest(self.slope, step)] for step in (1.0, 0.5, 0.25)),
        ]
        for k, tier in enumerate(tiers):
            least, most = low, high
            if k < 2:  # that fits the sizes
                least, most = low / UNEVENNESS, high * UNEVENNESS
            if k < 4 and count < FEW:
                most = math.inf
            allowed = [s for s in tier if s > 0 and least <= s <= most]
            if allowed:
                return min(allowed, key=lambda s: abs(math.log(s / ratio)))
        return float(self.slope)

    def start(self, stride: float, seen: tuple[float, float]) -> float:
        """Return the image coordinate of cell 0, as measured.

        It is computed from the two cells next to the picture's centre, where both edges cut a receptive field equally.
        """
        centre = (seen[0] + seen[1]) / 2
        near = np.argsort(np.abs(self.positions - centre), kind="stable")[:2]
        slope, cell, position = self.slope, self.cells[near[0]], self.positions[near[0]]
        if self.cells[near[0]] != self.cells[near[1]] and self.positions[near[0]] != self.positions[near[1]]:
            slope = (self.positions[near[1]] - position) / (self.cells[near[1]] - cell)
        if slope <= 0:
            return float(position - stride * cell)
        return float(centre - stride * (cell + (centre - position) / slope))


def _exact_origin(start: float, slack: float, stride: float, count: int, pixels: int) -> float:
    """Return the likeliest exact coordinate of cell 0 within the slack: centred or 0, then multiples of 1/2, 1/4."""
    aligned = (pixels - 1) / 2 - stride * (count - 1) / 2
    distances = {aligned: abs(start - aligned) / 1.5, 0.0: abs(start)}
    likely = min(distances, key=lambda value: distances[value])
    for exact in (likely, _nearest(start, 0.5), _nearest(start, 0.25)):
        if abs(exact - start) <= slack:
            return exact
    return start


def _nearest(value: float, step: float) -> float:
    return round(value / step) * step


def radius_of(gradient: Float64[np.ndarray, "h w"], centre: tuple[float, float]) -> float:
    """Return the distance from the centre that contains 95 % of the gradient's mass."""
    rows, columns = np.indices(gradient.shape)
    return radius_of_mass(np.hypot(rows - centre[0], columns - centre[1]).ravel(), gradient.ravel())


def radius_of_mass(distances: Float64[np.ndarray, "k"], weights: Float64[np.ndarray, "k"]) -> float:
    """Return the distance that contains 95 % of the mass."""
    order = np.argsort(distances, kind="stable")
    mass = np.cumsum(weights[order])
    return float(distances[order][np.searchsorted(mass, MASS * mass[-1])])
