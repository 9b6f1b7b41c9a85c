"""The position of a feature map's cells in the image, and their receptive field: measured, for any network.

The gradient of one cell with respect to the image is spread about the cell's position (its effective
receptive field: Luo et al., *Understanding the Effective Receptive Field in Deep CNNs*, NeurIPS 2016, section 2).
Its centroid over random images is that position; positions of several cells give stride and origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from secli.errors import UnknownNameError
from secli.external.cell_grid import ASYMMETRY, PRECISION, CellAxis, Geometry, asymmetry, fitted, radius_of
from secli.external.missing_taps import tap_remarks
from secli.external.probing_forward import Run, Take, one_by_one, respond
from secli.external.restoring import image_dtype, in_eval_mode, on_device
from secli.models.contract import Features

CELLS = 4
"""Cells along the diagonal of a map's inner half whose positions are measured."""
ROUNDS = (4, 16)
"""Fewest and most rounds of random images; the spread between rounds is the noise."""
CENTRAL_IMAGES = 2
"""Images of a radius without a position: it is needed to some pixels only."""
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
    position is the centroid in the widest window about itself inside the image, so that neither the image's edge
    nor an even spread over the whole image (attention) moves it. A line through the positions gives stride and
    origin, which are brought to exact values (multiples of 1/4, the ratio of the sizes, a centred grid) within their
    noise.

    Parameters
    ----------
    model : Model
        A network with ``features``; it is measured in eval mode, and restored.
    input_shape : tuple
        Channels, height and width of the images.
    taps : sequence of str, optional
        Default: all of them.
    on_progress : callable, optional
        Called with (taps that are settled, taps in all).

    Returns
    -------
    dict
        By tap, without those that have no plane (fewer than two cells along a side) or that the image does not
        change. A tap without a gradient is measured by its responses to noise (:func:`respond`). On maps of fewer
        than four cells the image's edge cuts every receptive field and the values are rough.

    Raises
    ------
    UnknownNameError
        When a requested tap is not declared.
    """
    with probing(model, device) as dtype:
        known = _known(model, input_shape, device, dtype)
        for name in taps or ():
            if name not in known:
                raise UnknownNameError("tap", name, known)
        requested = {name: _plane(known[name]) for name in known if taps is None or name in taps}
        samples = {
            name: _Samples(plane, input_shape[1:])
            for name, plane in requested.items()
            if plane is not None and min(plane.shape[-2:]) > 1
        }
        _follow_gradients(model, samples, input_shape, device, dtype, on_progress)
        found = {name: each.geometry() for name, each in samples.items()}
        silent = {name: samples[name].map for name, geometry in found.items() if geometry is None}
        if silent:
            coarse = bool(tap_remarks(model))
            found.update(respond(run_of_taps(model), input_shape, silent, device, dtype, coarse=coarse))
    return {name: geometry for name, geometry in found.items() if geometry is not None}


def central_radii(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    taps: Sequence[str],
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Measure the receptive-field radius of the cell in the middle of some feature maps, in one pass.

    As :func:`probe` does it, of one cell and a few random images: for images so large that they cut no receptive
    field, where a whole probe would cost as much as a measurement.

    Parameters
    ----------
    model, input_shape, device
        As for :func:`probe`.
    taps : sequence of str
        Which taps; those without a plane or a gradient are missing in the result.

    Returns
    -------
    dict
        Radius in pixels by tap: of the disc that holds 95 % of the gradient's magnitude.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(CENTRAL_IMAGES, *input_shape, generator=generator)
    found: dict[str, float] = {}
    with probing(model, device) as dtype:
        try:
            gradients = _Gradients(model, images.to(device, dtype))
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception:  # as for a whole probe: no gradients
            return found
        for name in taps:
            plane = _plane(gradients.features[0][name]) if name in gradients.features[0] else None
            if plane is None:
                continue
            middle = plane.shape[-2] // 2, plane.shape[-1] // 2
            # of a scale space its coarsest level, which sees farthest
            level = -1 if plane.ndim == 5 else None
            each = gradients.of_cells(name, [middle] * CENTRAL_IMAGES, generator, level)
            if each is None:
                continue
            mass = each.sum((1, 2), keepdims=True)
            if not np.isfinite(mass).all() or (mass == 0).any():
                continue
            total = (each / mass).sum(0)
            ends = [(-0.5, pixels - 0.5) for pixels in input_shape[1:]]
            row = windowed_centroids(total.sum(1)[None], *ends[0])[0]
            column = windowed_centroids(total.sum(0)[None], *ends[1])[0]
            found[name] = radius_of(total, (float(row), float(column)))
    return found


def run_of_taps(model: nn.Module) -> Run:
    """Return a run of a model that passes on the plane of each of its taps, for :func:`respond`."""
    read: FeatureReader = model.features  # type: ignore[assignment]

    def run(batch: Tensor, take: Take) -> None:
        for name, features in read(batch).items():
            plane = _plane(features)
            if plane is not None:
                take(name, plane)

    return one_by_one(run) if getattr(model, "mixes", None) else run


def _known(
    model: nn.Module, shape: tuple[int, int, int], device: torch.device | str, dtype: torch.dtype
) -> Mapping[str, Features]:
    read: FeatureReader = model.features  # type: ignore[assignment]
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return read(images.to(device, dtype))


def _follow_gradients(
    model: nn.Module,
    samples: Mapping[str, _Samples],
    shape: tuple[int, int, int],
    device: torch.device | str,
    dtype: torch.dtype,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Add the gradients of their cells to the samples, round by round, until all are settled or have none."""
    generator = torch.Generator().manual_seed(0)
    torch.rand(
        CELLS, *shape, generator=generator
    )  # keeps the following draws, and earlier measurements, the same
    count, unsettled = len(samples), dict(samples)
    for turn in range(ROUNDS[1]):
        images = torch.rand(CELLS, *shape, generator=generator).to(device, dtype)
        if not unsettled:
            return
        try:
            gradients = _Gradients(model, images)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception:  # tensors of inference mode, operators that work in place: no gradients
            return
        for name, each in list(unsettled.items()):
            if turn == 0:
                each.see(gradients.of_plane(name, generator))
            each.add(gradients.of_cells(name, each.cells, generator))
            if each.settled() or (turn + 1 >= ROUNDS[0] and not each.profiles):
                del unsettled[name]
        if on_progress:
            on_progress(count - len(unsettled), count)


@contextmanager
def probing(model: nn.Module, device: torch.device | str) -> Iterator[torch.dtype]:
    """Put a network on a device in eval mode, its weights without gradients; yield the dtype of its images."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with on_device(model, device), in_eval_mode(model):
        try:
            for parameter in learned:
                parameter.requires_grad_(False)
            with torch.inference_mode(False):
                yield image_dtype(model)
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)


def windowed_centroids(
    profiles: Float64[np.ndarray, "m n"], low: float, high: float
) -> Float64[np.ndarray, "m"]:
    """Return the centroid of each profile in the widest window about itself between two ends.

    The fixed point of c ← Σ x p(x) / Σ p(x) over |x − c| ≤ w, w the distance from c to the nearer end. Where one end
    of a symmetric profile is cut off, the plain centroid moves to the other side and this one does not; nor does a
    constant added to the profile move it.

    Parameters
    ----------
    profiles : array (m, n)
        Non-negative values at 0 … n − 1, no row all zero.
    low, high : float
        The ends, as coordinates: −0.5 and n − 0.5 for the whole axis.
    """
    coordinates = np.arange(profiles.shape[1])
    centres: Float64[np.ndarray, "m"] = profiles @ coordinates / profiles.sum(1)
    for _ in range(200):
        reach = np.minimum(centres - low, high - centres)
        # a pixel at the window's end counts by the part of it inside
        inside = np.clip(reach[:, None] + 0.5 - np.abs(coordinates - centres[:, None]), 0, 1) * profiles
        mass = inside.sum(1)
        moved = np.where(mass > 0, inside @ coordinates / np.where(mass > 0, mass, 1), centres)
        settled = np.abs(moved - centres).max() < 1e-5
        centres = moved
        if settled:
            break
    return centres


class _Samples:
    """The gradients of a few cells of one tap, over rounds of images."""

    def __init__(self, plane: Tensor, image: tuple[int, int]) -> None:
        self.image, self.map = image, (int(plane.shape[-2]), int(plane.shape[-1]))
        self.channels = plane[0, ..., 0, 0].numel()
        self.cells = list(zip(*(_inner_cells(n) for n in self.map), strict=True))
        self.total = np.zeros(image)  # of the middle cell
        self.profiles: list[tuple[np.ndarray, np.ndarray]] = []  # per round: (cells, height), (cells, width)
        self.seen = tuple((-0.5, pixels - 0.5) for pixels in image)

    def see(self, gradient: Float64[np.ndarray, "one h w"] | None) -> None:
        """Add the gradient of all cells: margins that no cell sees are not part of the picture."""
        if gradient is None:
            return
        lit = [np.flatnonzero(gradient[0].sum(1)), np.flatnonzero(gradient[0].sum(0))]
        self.seen = tuple(
            (axis[0] - 0.5, axis[-1] + 0.5) if len(axis) else old
            for axis, old in zip(lit, self.seen, strict=True)
        )

    def add(self, gradients: Float64[np.ndarray, "cells h w"] | None) -> None:
        """Add one round: one image per cell."""
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
        positions = windowed_centroids(every, *self.seen[axis]).reshape(count + 1, -1)
        spread = positions[1:].std(0) * math.sqrt(count - 1)
        return positions[0], float(np.sqrt((spread**2).mean()))

    def settled(self) -> bool:
        """Return whether the noise is small enough that no further round is needed."""
        if len(self.profiles) < ROUNDS[0]:
            return False
        found = [self.positions(axis) for axis in range(2)]
        middle = len(self.cells) // 2
        inexact = ASYMMETRY / 2 * radius_of(self.total, (found[0][0][middle], found[1][0][middle]))
        return all(
            noise < max(PRECISION * self.image[axis] / self.map[axis], inexact)
            for axis, (_, noise) in enumerate(found)
        )

    def geometry(self) -> Geometry | None:
        """Return the geometry from the gradients; None when there were too few of them."""
        if len(self.profiles) < ROUNDS[0]:
            return None
        found = [self.positions(axis) for axis in range(2)]
        middle = len(self.cells) // 2
        radius = radius_of(self.total, (found[0][0][middle], found[1][0][middle]))
        axes = [
            CellAxis([cell[k] for cell in self.cells], *found[k], self.map[k], self.image[k], self.seen[k])
            for k in range(2)
        ]
        return fitted(axes, radius, asymmetry(self.channels, radius))


def _inner_cells(count: int) -> list[int]:
    """Return CELLS cells of the inner half of an axis, from its start; all fall on few cells of a small map."""
    low, high = (count - 1) / 4, 3 * (count - 1) / 4
    if count <= 4:
        low, high = (count - 1) // 2, (count - 1) // 2 + 1
    return [round(float(position)) for position in np.linspace(low, high, CELLS)]


def _plane(features: Features) -> Tensor | None:
    """Return the features as one tensor with a plane; of a pyramid the finest level."""
    tensor = features[0] if isinstance(features, list) else features
    return tensor if tensor.ndim >= 4 else None


class _Gradients:
    """The features of a few images with their graph, and the gradients of their cells.

    In a network that mixes the pictures of a batch each image goes together with a fixed one.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        read: FeatureReader = model.features  # type: ignore[assignment]
        self.leaves = [images] if not getattr(model, "mixes", None) else list(images.unsqueeze(1))
        others = images[:0] if len(self.leaves) == 1 else images[:1].flip(-1)
        self.leaves = [leaf.detach().clone().requires_grad_() for leaf in self.leaves]
        with torch.enable_grad():
            self.features = [read(torch.cat([leaf, others])) for leaf in self.leaves]

    def of_plane(self, name: str, generator: torch.Generator) -> Float64[np.ndarray, "one h w"] | None:
        """Return the magnitude of the gradient of all cells, summed over images."""
        planes = [self._plane(name, k)[: len(leaf)] for k, leaf in enumerate(self.leaves)]
        found = self._gradient([[plane] for plane in planes], generator)
        return None if found is None else found.sum(0, keepdims=True)

    def of_cells(
        self,
        name: str,
        cells: Sequence[tuple[int, int]],
        generator: torch.Generator,
        level: int | None = None,
    ) -> Float64[np.ndarray, "n h w"] | None:
        """Return the magnitude of the gradient of cell k in image k, of one scale level or of all."""
        parts: list[list[Tensor]] = [[] for _ in self.leaves]
        for k, (row, column) in enumerate(cells):
            leaf, image = (0, k) if len(self.leaves) == 1 else (k, 0)
            cell = self._plane(name, leaf)[image][..., row, column]
            parts[leaf].append(cell if level is None else cell[:, level])
        return self._gradient(parts, generator)

    def _plane(self, name: str, leaf: int) -> Tensor:
        plane = _plane(self.features[leaf][name])
        assert plane is not None
        return plane

    def _gradient(
        self, parts: Sequence[Sequence[Tensor]], generator: torch.Generator
    ) -> Float64[np.ndarray, "n h w"] | None:
        """Return |∂/∂f| of random mixtures of each leaf's parts, summed over the image's channels."""
        found = []
        for leaf, group in zip(self.leaves, parts, strict=True):
            weights = [torch.randn(part.shape, generator=generator).to(part) for part in group]
            mixture = torch.stack([(p * w).sum() for p, w in zip(group, weights, strict=True)]).sum()
            if not mixture.requires_grad:
                return None
            try:
                grads = torch.autograd.grad(mixture, leaf, retain_graph=True, allow_unused=True)
            except RuntimeError:  # an operator without derivative, or one that worked in place
                return None
            gradient = cast("Tensor | None", grads[0])
            if gradient is None:
                return None
            found.append(gradient.detach().abs().sum(1).double().cpu().numpy())
        magnitude: np.ndarray = np.concatenate(found)
        return magnitude
