"""The distance from the edges at which a tap is compared: a photograph shrunk on its canvas gets a frame."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from secli.errors import InputError
from secli.external.cell_grid import Geometry
from secli.external.hooked_model import ExternalModel
from secli.external.hooks import LOGITS
from secli.external.probing import probe
from secli.external.restoring import fingerprint
from secli.models.contract import Model

DARK = 4 / 255


def ring(images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]) -> Float64[Tensor, "n"]:
    """Return the mean of each picture's outermost ring of pixels, 0 to 1."""
    edges = [images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]]
    mean = torch.cat([edge.flatten(1) for edge in edges], dim=1).double().mean(1)
    return mean / 255 if images.dtype == torch.uint8 else mean


def fade_to_black(images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]) -> bool:
    """Return whether pictures are black at their edges (mean of the outermost ring of pixels below 4/255).

    Shrinking them then adds no frame.
    """
    return float(ring(images).mean()) < DARK


def borders(
    model: Model, taps: Iterable[str], shape: tuple[int, int, int], border: float | None, on_black: bool
) -> dict[str, float]:
    """Return for each tap the pixels left out along the edges, for a network in eval mode on its device.

    They are ``border``, if given; else 0 for pictures on black, and for others the receptive-field radius of the tap
    (which is probed, so the network must be a module). ``shape`` is (C, H, W) of one image.
    """
    names = list(taps)
    if border is not None or on_black or not isinstance(model, nn.Module):
        return dict.fromkeys(names, border or 0.0)
    geometry = probed_geometry(model, shape, names)
    return {tap: geometry[tap].radius if tap in geometry else 0.0 for tap in names}


def radii(
    model: Model, taps: Iterable[str], shape: tuple[int, int, int], border: float | None, on_black: bool
) -> dict[str, float]:
    """Return the receptive-field radii that a border by choice must not be narrower than; none where there is none.

    The arguments are those of :func:`borders`.
    """
    if not border or on_black or not isinstance(model, nn.Module):
        return {}
    names = list(taps)
    try:
        geometry = probed_geometry(model, shape, names)
    except InputError:  # the border was chosen, so nothing has to be probed
        return {}
    return {tap: geometry[tap].radius for tap in names if tap in geometry}


def probed_geometry(model: nn.Module, shape: tuple[int, int, int], taps: list[str]) -> dict[str, Geometry]:
    """Return the geometry of taps; a foreign network keeps it as long as its weights stay the same."""
    if not isinstance(model, ExternalModel):
        return probe(model, shape, taps)
    state = shape, fingerprint(model)
    if model.probed != state or any(tap not in model.geometry and tap != LOGITS for tap in taps):
        model.geometry, model.probed = probe(model, shape, taps), state
    return model.geometry
