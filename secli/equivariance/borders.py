"""How far from the edges a tap is compared: a photograph shrunk on its canvas gets a frame that is no picture."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

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


def stand_on_black(images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]) -> bool:
    """Tell whether pictures fade to black at their edges, so that shrinking them adds no frame.

    Parameters
    ----------
    images : tensor (N, C, H, W)
        Pixels, float in [0, 1] or uint8.

    Returns
    -------
    bool
        True when the outermost ring of pixels has a mean below 4/255.
    """
    return float(ring(images).mean()) < DARK


def borders(
    model: Model, taps: Iterable[str], shape: tuple[int, int, int], border: float | None, on_black: bool
) -> dict[str, float]:
    """Return for each tap how many pixels along the edges are left out.

    Parameters
    ----------
    model : Model
        The network, on its device, in eval mode.
    taps : iterable of str
        Taps.
    shape : (C, H, W)
        Of one image.
    border : float, optional
        As asked for; None: 0 for pictures on black, for others the receptive-field radius of each tap (which is
        probed, so the network must be a module).
    on_black : bool
        Whether the pictures fade to black at their edges.
    """
    names = list(taps)
    if border is not None or on_black or not isinstance(model, nn.Module):
        return dict.fromkeys(names, border or 0.0)
    geometry = _probed(model, shape, names)
    return {tap: geometry[tap].radius if tap in geometry else 0.0 for tap in names}


def _probed(model: nn.Module, shape: tuple[int, int, int], taps: list[str]) -> dict[str, Geometry]:
    """Return the geometry of taps; a foreign network keeps what was probed as long as its weights stay the same."""
    if not isinstance(model, ExternalModel):
        return probe(model, shape, taps)
    state = shape, fingerprint(model)
    if model.probed != state or any(tap not in model.geometry and tap != LOGITS for tap in taps):
        model.geometry, model.probed = probe(model, shape, taps), state
    return model.geometry
