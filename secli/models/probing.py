"""Where the cells of a feature map lie in the image, and how far they see: measured, for any network.

The gradient of one cell with respect to the image is spread about the place that the cell looks at (its effective
receptive field: Luo et al., *Understanding the Effective Receptive Field in Deep CNNs*, NeurIPS 2016, section 2).
Its centroid over random images is the cell's position; positions of several cells give stride and origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from secli.errors import UnknownNameError
from secli.models.contract import Features

CELLS = 4
"""Cells along the diagonal of a map's inner half whose positions are measured."""
ROUNDS = (4, 16)
"""Fewest and most rounds of random images; the spread between rounds is the noise."""
PRECISION = 0.03
"""Noise of a position, in cells, at which no further round is needed."""
ASYMMETRY = 0.02
"""How far learned (or drawn) filters, never quite symmetric, move a centroid: this share of the radius."""
UNEVENNESS = 1.25
"""How far a slope may be from an exact stride that fits the sizes: windows of attention pull cells together."""
FEW = 4
"""A map of fewer cells says next to nothing of its stride."""
MASS = 0.95
"""Share of the gradient within the receptive field's radius."""


class Geometry(NamedTuple):
    """The place of a feature map's cells in the image.

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


FeatureReader = Callable[[Tensor], Mapping[str, Features]]


def probe(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    taps: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Geometry]:
    """Measure stride, origin and receptive-field radius of a network's feature maps.

    Per tap, cells on the diagonal of the inner half of the map; per cell the mean over random images of |∂F/∂f|,
    F a random mixture of the cell's channels (and levels), each image's gradient brought to the same mass. A cell's
    position is the centroid in the widest window about itself that the image holds, so that neither the image's edge
    nor an even spread over the whole image (attention) pulls it aside. A line through the positions gives stride and
    origin, which are brought to exact values (multiples of 1/4, the ratio of the sizes, a centred grid) within their
    noise.

    Parameters
    ----------
    model : Model
        A network with ``features``; it is measured in eval mode, and left as it was.
    input_shape : tuple
        Channels, height and width of the images.
    taps : sequence of str, optional
        Which taps; default: all of them.
    device : torch.device
        Where to compute.
    on_progress : callable, optional
        Called with (taps that are settled, taps in all).

    Returns
    -------
    dict
        By tap. Left out: taps without a plane (fewer than two cells along a side), and those that no gradient
        leaves. On maps of fewer than four cells the image's edge cuts every receptive field and the values are rough.

    Raises
    ------
    UnknownNameError
        When a wanted tap is not declared.
    """
    read: FeatureReader = model.features  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(0)
    with probing(model, device) as dtype:
        size = (CELLS, *input_shape)
        with torch.no_grad():
            known = read(torch.rand(size, generator=generator).to(device, dtype))
        for name in taps or ():
            if name not in known:
                raise UnknownNameError("tap", name, known)
        wanted = [name for name in known if taps is None or name in taps]
        samples = {name: _Samples(_plane(known[name]), input_shape[1:]) for name in wanted}
        samples = {name: each for name, each in samples.items() if each.has_plane}
        count = len(samples)
        unsettled = dict(samples)
        for turn in range(ROUNDS[1]):
            images = torch.rand(size, generator=generator).to(device, dtype).requires_grad_()
            with torch.enable_grad():
                features = read(images)
            for name, each in list(unsettled.items()):
                plane = _plane(features[name])
                assert plane is not None
                if turn == 0:
                    each.see(_input_gradient([plane], images, generator, together=True))
                cells = [plane[k][..., row, column] for k, (row, column) in enumerate(each.cells)]
                each.add(_input_gradient(cells, images, generator))
                if each.settled():
                    del unsettled[name]
            del features
            if on_progress:
                on_progress(count - len(unsettled), count)
            if not unsettled:
                break
    return {name: geometry for name, each in samples.items() if (geometry := each.geometry()) is not None}


@contextmanager
def probing(model: nn.Module, device: torch.device | str) -> Iterator[torch.dtype]:
    """Put a network on a device in eval mode, its weights without gradients; restore all of it after.

    Yields
    ------
    torch.dtype
        The type of the network's weights, which the images must take.
    """
    modes = {module: module.training for module in model.modules()}
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tensor = next((p for p in model.parameters() if p.is_floating_point()), None)
    before = torch.device("cpu") if tensor is None else tensor.device
    try:
        model.to(device).eval()
        for parameter in learned:
            parameter.requires_grad_(False)
        with torch.inference_mode(False):
            yield torch.get_default_dtype() if tensor is None else tensor.dtype
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        for module, training in modes.items():
            module.training = training
        model.to(before)


def windowed_centroids(
    profiles: Float64[np.ndarray, "m n"], low: float, high: float
) -> Float64[np.ndarray, "m"]:
    """Return the centroid of each profile in the widest window about itself that lies between two ends.

    The fixed point of c ← Σ x p(x) / Σ p(x) over |x − c| ≤ w, w the distance from c to the nearer end. Where one end
    of a symmetric profile is cut off, the plain centroid is pulled to the other side and this one is not; nor does a
    constant added to the profile move it.

    Parameters
    ----------
    profiles : array (m, n)
        Non-negative values at 0 … n − 1, no row all zero.
    low, high : float
        The ends, as coordinates: −0.5 and n − 0.5 for the whole axis.
    """
    places = np.arange(profiles.shape[1])
    centres: Float64[np.ndarray, "m"] = profiles @ places / profiles.sum(1)
    for _ in range(200):
        reach = np.minimum(centres - low, high - centres)
        # a pixel at the window's end counts by the part of it that lies inside
        inside = np.clip(reach[:, None] + 0.5 - np.abs(places - centres[:, None]), 0, 1) * profiles
        mass = inside.sum(1)
        moved = np.where(mass > 0, inside @ places / np.where(mass > 0, mass, 1), centres)
        settled = np.abs(moved - centres).max() < 1e-5
        centres = moved
        if settled:
            break
    return centres


class _Samples:
    """The gradients of a few cells of one tap, over rounds of images."""

    def __init__(self, features: Tensor | None, image: tuple[int, int]) -> None:
        self.image = image
        self.map = (0, 0) if features is None else (int(features.shape[-2]), int(features.shape[-1]))
        self.has_plane = min(self.map) > 1
        self.cells = list(zip(*(_inner_cells(n) for n in self.map), strict=True)) if self.has_plane else []
        self.total = np.zeros(image)  # of the middle cell
        self.profiles: list[tuple[np.ndarray, np.ndarray]] = []  # per round: (cells, height), (cells, width)
        self.seen = tuple((-0.5, pixels - 0.5) for pixels in image)

    def see(self, gradient: Float64[np.ndarray, "one h w"] | None) -> None:
        """Take in the gradient of all cells: margins that no cell sees do not belong to the picture."""
        if gradient is None:
            return
        lit = [np.flatnonzero(gradient[0].sum(1)), np.flatnonzero(gradient[0].sum(0))]
        self.seen = tuple(
            (axis[0] - 0.5, axis[-1] + 0.5) if len(axis) else old
            for axis, old in zip(lit, self.seen, strict=True)
        )

    def add(self, gradients: Float64[np.ndarray, "cells h w"] | None) -> None:
        """Take in one round: one image per cell."""
        if gradients is None:
            return
        mass = gradients.sum((1, 2), keepdims=True)
        if not np.isfinite(mass).all() or (mass == 0).any():
            return
        gradients = gradients / mass
        self.total += gradients[len(self.cells) // 2]
        self.profiles.append((gradients.sum(2), gradients.sum(1)))

    def positions(self, axis: int) -> tuple[Float64[np.ndarray, "cells"], float]:
        """Return the cells' positions along an axis, and their standard error by leaving out one round at a time."""
        rounds = np.stack([profiles[axis] for profiles in self.profiles])
        total = rounds.sum(0)
        count = len(rounds)
        every = np.concatenate([total[None], total - rounds]).reshape(-1, rounds.shape[-1])
        places = windowed_centroids(every, *self.seen[axis]).reshape(count + 1, -1)
        spread = places[1:].std(0) * math.sqrt(count - 1)
        return places[0], float(np.sqrt((spread**2).mean()))

    def settled(self) -> bool:
        """Say whether the noise is small enough that no further round is needed."""
        if len(self.profiles) < ROUNDS[0]:
            return False
        found = [self.positions(axis) for axis in range(2)]
        middle = len(self.cells) // 2
        inexact = ASYMMETRY / 2 * _radius(self.total, (found[0][0][middle], found[1][0][middle]))
        return all(
            noise < max(PRECISION * self.image[axis] / self.map[axis], inexact)
            for axis, (_, noise) in enumerate(found)
        )

    def geometry(self) -> Geometry | None:
        """Return what the gradients say; None when there were too few of them."""
        if len(self.profiles) < ROUNDS[0]:
            return None
        found = [self.positions(axis) for axis in range(2)]
        middle = len(self.cells) // 2
        radius = _radius(self.total, (found[0][0][middle], found[1][0][middle]))
        lines = [_Line.through([cell[axis] for cell in self.cells], *found[axis]) for axis in range(2)]
        strides = [
            line.stride(count, pixels, seen, radius)
            for line, count, pixels, seen in zip(lines, self.map, self.image, self.seen, strict=True)
        ]
        starts = [
            line.start(stride, seen) for line, stride, seen in zip(lines, strides, self.seen, strict=True)
        ]
        slacks = [
            3 * line.noise + PRECISION * stride + ASYMMETRY * radius
            for line, stride in zip(lines, strides, strict=True)
        ]
        square = self.map[0] == self.map[1] and self.image[0] == self.image[1] and strides[0] == strides[1]
        if square and abs(starts[0] - starts[1]) <= sum(slacks):
            starts = [sum(starts) / 2] * 2  # rows and columns alike: their asymmetries are noise
        origins = [
            _exact_origin(*values)
            for values in zip(starts, slacks, strides, self.map, self.image, strict=True)
        ]
        centred = all(
            abs(origin + stride * (count - 1) / 2 - (pixels - 1) / 2) < 1e-6
            for origin, stride, count, pixels in zip(origins, strides, self.map, self.image, strict=True)
        )
        return Geometry((strides[0], strides[1]), (origins[0], origins[1]), radius, centred)


class _Line(NamedTuple):
    """Positions of cells along one axis, in order, and the straight line through them."""

    cells: Float64[np.ndarray, "k"]
    positions: Float64[np.ndarray, "k"]
    slope: float
    noise: float  # of one position, in pixels

    @classmethod
    def through(cls, cells: Sequence[int], positions: Float64[np.ndarray, "k"], noise: float) -> _Line:
        places = np.array(cells, dtype=float)
        centred = places - places.mean()
        return cls(places, positions, float(centred @ positions / (centred @ centred)), noise)

    def stride(self, count: int, pixels: int, seen: tuple[float, float], radius: float) -> float:
        """Return the likeliest stride of a map of ``count`` cells on ``pixels`` that the slope allows.

        Where the image's edge cuts the outer cells' receptive fields, these look nearer to the middle than they are,
        and the slope is only a lower bound.
        """
        slack = 3 * self.noise / math.sqrt(float(((self.cells - self.cells.mean()) ** 2).sum())) + 1e-3
        room = min(self.positions.min() - seen[0], seen[1] - self.positions.max())
        low, high = self.slope - slack, (self.slope if room > radius else 3 * self.slope) + slack
        ratio = pixels / count
        powers = [2.0**k for k in range(-4, 12)]
        # of stride s on p pixels, p/s cells are left, rounded up or down
        fitting = [s for s in (*powers, *map(float, range(1, pixels + 1))) if abs(pixels / s - count) < 1]
        tiers = [
            [ratio] if ratio % 1 == 0 or (1 / ratio) % 1 == 0 else [],
            [s for s in fitting if s in powers],
            fitting,
            [ratio],
            *([_nearest(self.slope, step)] for step in (1.0, 0.5, 0.25)),
        ]
        for k, tier in enumerate(tiers):
            if k < 2:  # that fits the sizes
                least, most = low / UNEVENNESS, math.inf if count < FEW else high * UNEVENNESS
            else:
                least, most = low, high
            allowed = [s for s in tier if s > 0 and least <= s <= most]
            if allowed:
                return min(allowed, key=lambda s: abs(math.log(s / ratio)))
        return float(self.slope)

    def start(self, stride: float, seen: tuple[float, float]) -> float:
        """Return the image coordinate of cell 0, as measured.

        It is reckoned from the point of the grid that lies at the picture's centre, where both edges cut a receptive
        field alike: there lie the two cells that look next to it.
        """
        centre = (seen[0] + seen[1]) / 2
        near = np.argsort(np.abs(self.positions - centre), kind="stable")[:2]
        slope, cell, place = self.slope, self.cells[near[0]], self.positions[near[0]]
        if self.cells[near[0]] != self.cells[near[1]] and self.positions[near[0]] != self.positions[near[1]]:
            slope = (self.positions[near[1]] - place) / (self.cells[near[1]] - cell)
        if slope <= 0:
            return float(place - stride * cell)
        return float(centre - stride * (cell + (centre - place) / slope))


def _exact_origin(start: float, slack: float, stride: float, count: int, pixels: int) -> float:
    """Return the likeliest exact coordinate of cell 0 within the slack: centred or 0, then multiples of 1/2, 1/4."""
    aligned = (pixels - 1) / 2 - stride * (count - 1) / 2
    distances = {aligned: abs(start - aligned) / 1.5, 0.0: abs(start)}
    likely = min(distances, key=lambda value: distances[value])
    for exact in (likely, _nearest(start, 0.5), _nearest(start, 0.25)):
        if abs(exact - start) <= slack:
            return exact
    return start


def _inner_cells(count: int) -> list[int]:
    """Return CELLS cells of the inner half of an axis, from its start; all fall on few cells of a small map."""
    low, high = (count - 1) / 4, 3 * (count - 1) / 4
    if count <= 4:
        low, high = (count - 1) // 2, (count - 1) // 2 + 1
    return [round(float(place)) for place in np.linspace(low, high, CELLS)]


def _plane(features: Features) -> Tensor | None:
    """Return the features as one tensor with a plane; of a pyramid the finest level."""
    tensor = features[0] if isinstance(features, list) else features
    return tensor if tensor.ndim >= 4 else None


def _input_gradient(
    parts: Sequence[Tensor], images: Tensor, generator: torch.Generator, *, together: bool = False
) -> Float64[np.ndarray, "n h w"] | None:
    """Return the magnitude of the gradient of a random mixture of each part, summed over the image's channels.

    Part k belongs to image k, or all parts to all images, whose gradients are then summed to one.
    """
    weights = [torch.randn(part.shape, generator=generator).to(part) for part in parts]
    mixture = torch.stack([(part * weight).sum() for part, weight in zip(parts, weights, strict=True)]).sum()
    if not mixture.requires_grad:
        return None
    found = torch.autograd.grad(mixture, images, retain_graph=True, allow_unused=True)
    gradient = cast("Tensor | None", found[0])
    if gradient is None:
        return None
    magnitude: np.ndarray = gradient.detach().abs().sum(1).double().cpu().numpy()
    return magnitude.sum(0, keepdims=True) if together else magnitude


def _nearest(value: float, step: float) -> float:
    return round(value / step) * step


def _radius(gradient: Float64[np.ndarray, "h w"], centre: tuple[float, float]) -> float:
    """Return the distance from the centre within which 95 % of the gradient's mass lies."""
    rows, columns = np.indices(gradient.shape)
    distances = np.hypot(rows - centre[0], columns - centre[1]).ravel()
    order = np.argsort(distances, kind="stable")
    mass = np.cumsum(gradient.ravel()[order])
    return float(distances[order][np.searchsorted(mass, MASS * mass[-1])])
