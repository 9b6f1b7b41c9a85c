"""The measure from Python: ``secli.measure``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from secli.action.fields import Field
from secli.config import Background, MeasureSettings, validated
from secli.datasets.photographs import WindowRequest, photographs_of
from secli.equivariance.curves import fields_of_taps, measure_curves
from secli.equivariance.enlargement import enlargement
from secli.equivariance.factors import factors_of
from secli.equivariance.selection import Per
from secli.errors import InputError
from secli.external.adapt import adapt, materialise
from secli.external.field_text import Declaration, parse_fields
from secli.external.restoring import borrowed, device_of, random_states_kept
from secli.models.contract import Model
from secli.records.notes import row_in_words

if TYPE_CHECKING:
    import pandas as pd

SLACK = 1e-3
"""Allowed distance of pixels from [0, 1], from resampling and rounding."""


def measure(
    model: Model | nn.Module,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    *,
    factors: Sequence[float] | None = None,
    taps: Sequence[str] | None = None,
    fields: Mapping[str, str | Field] | None = None,
    metric: str = "squared",
    background: Background = "empty",
    border: float | None = None,
    window: tuple[int, int] | None = None,
    margin: float | Literal["auto"] | None = None,
    per: Sequence[Per] = (),
    protocol: str = "default",
    labels: Int64[Tensor, "n"] | None = None,
    batch: int | None = None,
    normalise: nn.Module | None = None,
    device: torch.device | str | None = None,
) -> pd.DataFrame:
    """Measure how far a network is from equivariant under scale, tap by tap and factor by factor.

    ``Δ_s(f) = ‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖²``, Frobenius norms, Φ(·) − Φ(0) for Φ(·).

    Parameters
    ----------
    model : Model or nn.Module
        A network with declared taps (from ``secli.load_model``), or any module that takes such images.
    images : tensor (N, C, H, W)
        Pixels, float in [0, 1] or uint8, at their own scale.
    factors : sequence of float, optional
        Scale factors; default: nine from 1/3 to 1, their inverses up to 1.5, and the model's own lattice.
    taps : sequence of str, optional
        Names or shell globs; default: all that the model declares, or a module's outermost feature maps.
    fields : mapping, optional
        How scale acts at taps: a name or shell glob to a ``secli.action.fields.Field`` or its text (``"scale:1,2,4"``);
        what is not declared is a plane whose stride and origin are probed.
    metric : str
        ``squared`` (Δ), ``relative`` (its square root per image) or ``absolute``.
    background : str
        ``empty`` subtracts the features of the empty picture; ``none`` is the bare formula.
    border : float, optional
        Pixels left out along the edges; default: 0 for pictures on black, else the tap's receptive-field radius.
    window : tuple of int, optional
        Height and width that the network takes of images that are larger: photographs, of which windows are measured,
        so that a shrunk one shows more of the world and no frame. Taps that take larger pictures are measured on
        windows that are enlarged by the receptive fields' radius, as far as the photographs reach.
    margin : float or "auto", optional
        Empty pixels around pictures on black; ``auto``: the widest receptive-field radius of the taps.
    per : sequence of str
        ``level``, ``channel``: also each of them by itself.
    protocol : str
        ``downscale-2020`` for its six factors.
    labels : tensor (N,), optional
        Classes, for the accuracy in ``frame.attrs["accuracy"]``.
    batch : int, optional
        Images per forward pass; default: as many as measured memory allows.
    normalise : nn.Module, optional
        Applied to the pixels first, for a network that takes normalised ones; rows are those of the network alone.
    device : torch.device, optional
        Default: that of the network, which is restored: its tensors, their devices and types, the mode of every
        module, ``requires_grad``, hooks, and the random states.

    Returns
    -------
    pandas.DataFrame
        One row per tap and factor, columns as ``secli.records.schema.CurveRow``; null values carry their ``reason``, in
        words.

    Raises
    ------
    InputError
        On a factor that is not positive, an unknown tap, no images, pixels outside of [0, 1], or photographs that are
        too small for the window.

    Examples
    --------
    >>> import secli, torch
    >>> model = secli.load_model("dss_v1")
    >>> frame = secli.measure(model, torch.rand(8, 1, 28, 28), factors=[1, 0.5], taps=["lift"])
    >>> frame["mean"].tolist()[0]
    0.0
    """
    import pandas as pd

    given: dict[str, Any] = {"factors": factors, "metric": metric, "background": background, "batch": batch}
    given |= {"border": border, "per": tuple(per), "protocol": protocol, "margin": margin}
    photographs, images = checked_pixels(images), checked_pixels(images)
    if window is not None:
        given["surround"] = "photo"
        images = centre_of(photographs, window)  # for their shape, until it is known how far the network sees
    count = max(1, len(images))
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            device = device_of(model) if device is None else device
            stack.enter_context(lent(model, images, normalise))
        where = torch.device("cpu" if device is None else device)
        subject, named = under_contract(model, images, taps, fields or {}, where, normalise)
        settings = validated(MeasureSettings, {**given, "taps": named, "images": count}, "measure")
        large = None
        if window is not None:
            fields_there = fields_of_taps(subject, settings.taps)
            wanted = factors_of(settings, fields_there.values())
            shape = (int(images.shape[1]), *window)
            found = enlargement(subject, fields_there, shape, wanted, settings.smallest_plane, where)
            asked = WindowRequest(window, min(wanted, default=1.0), found.pixels, found.step)
            large = photographs_of(photographs, asked)
            images = large.windows
        curves = measure_curves(subject, images, settings, labels=labels, device=where, photographs=large)
    frame: pd.DataFrame = pd.DataFrame(list(map(row_in_words, curves.rows)))
    frame.attrs["accuracy"] = list(map(row_in_words, curves.accuracy))
    return frame


def centre_of(photographs: Tensor, window: tuple[int, int]) -> Tensor:
    """Return the windows about the centres of photographs; InputError where they do not hold them."""
    height, width = photographs.shape[-2:]
    if not (0 < window[0] <= height and 0 < window[1] <= width):
        raise InputError(f"window: {window[0]}×{window[1]} pixels in images of {height}×{width}")
    top, left = (height - window[0]) // 2, (width - window[1]) // 2
    return photographs[..., top : top + window[0], left : left + window[1]]


def checked_pixels(images: Tensor) -> Tensor:
    """Return the images; InputError when they are not (N, C, H, W), neither float nor uint8, or not in [0, 1]."""
    if images.ndim != 4:
        raise InputError(f"images: a tensor (N, C, H, W) is needed, not {tuple(images.shape)}")
    if images.is_inference():
        with torch.inference_mode(False):
            images = images.clone()
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        name = str(images.dtype).removeprefix("torch.")
        raise InputError(f"images: pixels are float in [0, 1] or uint8, not {name}")
    if images.numel() == 0:
        return images
    low, high = (float(end) for end in torch.aminmax(images.detach()))
    if not (low >= -SLACK and high <= 1 + SLACK):
        hint = "; divide them by 255" if low >= 0 and 2 < high <= 255 else ""
        if low >= -0.5 and high <= 1.5:  # after resampling
            hint = "; clamp them"
        raise InputError(
            f"images: pixels lie between {low:.3g} and {high:.3g}, not in [0, 1]{hint}; normalisation belongs "
            "into the network"
        )
    return images.detach()


@contextmanager
def lent(model: nn.Module, images: Tensor, normalise: nn.Module | None = None) -> Iterator[None]:
    """Let a module be measured inside: its lazy weights are drawn, all else is restored.

    The caller's gradient mode is left, an evaluation's inference mode too: geometry is probed by gradients.
    """
    with torch.inference_mode(False), torch.enable_grad():
        _draw_lazy_weights(model, images, normalise)
        with borrowed(model), nullcontext() if normalise is None else borrowed(normalise):
            yield


def _draw_lazy_weights(model: nn.Module, images: Tensor, normalise: nn.Module | None) -> None:
    """Let lazy modules draw their weights."""
    if len(images) and any(is_lazy(weight) for weight in (*model.parameters(), *model.buffers())):
        few = images[:2].float() / (255 if images.dtype == torch.uint8 else 1)
        with random_states_kept(model):
            materialise(model, normalise or nn.Identity(), few, type(model).__name__)


def under_contract(
    model: Model | nn.Module,
    images: Tensor,
    taps: Sequence[str] | None,
    fields: Mapping[str, str | Field],
    device: torch.device,
    normalise: nn.Module | None = None,
) -> tuple[Model, Sequence[str] | None]:
    """Return a network with declared taps, and the requested ones; any other module is adapted."""
    if isinstance(model, Model) and not fields and normalise is None:
        return model, taps
    if not isinstance(model, nn.Module):
        raise InputError("fields: these can be declared for a torch module only")
    texts = [f"{pattern}={field}" for pattern, field in fields.items() if isinstance(field, str)]
    given = [(pattern, Declaration(field)) for pattern, field in fields.items() if isinstance(field, Field)]
    declared = [*parse_fields(texts), *given]
    _, channels, height, width = images.shape
    shape = channels, height, width
    first = nn.Identity() if normalise is None else normalise
    return adapt(model, first, shape, taps, declared, type(model).__name__, device=device), None
