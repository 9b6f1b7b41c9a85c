"""What can be tapped in a network, and where it lies in the image: for ``--list-taps``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from secli.fields import Field, Invariant
from secli.models.adapting import TRACED, plausible, spatial
from secli.models.field_text import AsIs, Layout
from secli.models.hooked import DeclaredModel, ExternalModel, declares_taps, tried
from secli.models.probing import Geometry, probe, probing
from secli.models.tapping import Visit, select, trace
from secli.models.targets import Shape


class TapInfo(NamedTuple):
    """A module's call that a tap can stand at.

    Attributes
    ----------
    name
        As ``--taps`` takes it.
    kind
        The module's class.
    shape
        Of its output, without the batch axis; None when it gives no tensor.
    stride, origin, radius
        As probed, in image pixels; None without a plane (or when none is declared).
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    stride: tuple[float, float] | None
    origin: tuple[float, float] | None
    radius: float | None


def list_taps(
    model: nn.Module,
    input_shape: Shape,
    *,
    taps: Sequence[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[TapInfo]:
    """Return every call of a module that a tap can stand at, in the order of the forward pass.

    Parameters
    ----------
    model : nn.Module
        Any network, or an ``ExternalModel``, whose declared layouts then count.
    input_shape : tuple
        Channels, height and width of the images.
    taps : sequence of str, optional
        Names or shell globs; default: all.
    on_progress : callable, optional
        Called with (taps that are settled, taps in all) while the geometry is probed.

    Raises
    ------
    InputError
        When it does not take such images, or a pattern matches nothing.
    """
    network, layouts = model, dict[str, Layout]()
    normalise: nn.Module = nn.Identity()
    if isinstance(model, ExternalModel):
        network, normalise, layouts = model.network, model.normalise, model.layouts
    images = torch.rand(TRACED, *input_shape, generator=torch.Generator().manual_seed(0))
    if declares_taps(network):
        return _list_declared(network, normalise, images, taps, on_progress)
    code = model.code if isinstance(model, ExternalModel) else nullcontext
    with code(), probing(model, "cpu") as dtype, torch.no_grad():
        batch = normalise(images.to(dtype))
        visits, _ = tried("network", images, lambda: trace(network, lambda: network(batch)))
    if taps is not None:
        wanted = set(select([visit.name for visit in visits], taps, "--taps"))
        visits = [visit for visit in visits if visit.name in wanted]
    planar = {
        visit.name: layouts.get(visit.name, AsIs())
        for visit in visits
        if visit.shape is not None and (visit.name in layouts or spatial(visit))
    }
    probed: dict[str, Geometry] = {}
    if planar:
        reader = ExternalModel(network, normalise, {tap: Invariant() for tap in planar}, planar, code=code)
        probed = probe(reader, input_shape, list(planar), on_progress=on_progress)
    return [_tap_info(visit, probed.get(visit.name)) for visit in visits]


def _tap_info(visit: Visit, geometry: Geometry | None) -> TapInfo:
    shape = None if visit.shape is None else visit.shape[1:]
    if geometry is None or not plausible(geometry):
        return TapInfo(visit.name, visit.kind, shape, None, None, None)
    return TapInfo(visit.name, visit.kind, shape, geometry.stride, geometry.origin, geometry.radius)


def _list_declared(
    network: nn.Module,
    normalise: nn.Module,
    images: Tensor,
    taps: Sequence[str] | None,
    on_progress: Callable[[int, int], None] | None,
) -> list[TapInfo]:
    """List the taps that a network declares itself."""
    fields: dict[str, Field] = network.taps  # type: ignore[assignment]
    names = list(fields) if taps is None else select(list(fields), taps, "--taps")
    model = DeclaredModel(network, normalise, fields, None)
    with torch.no_grad():
        features = model.features(images)
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    probed = probe(model, shape, names, on_progress=on_progress)
    listed = []
    for name in names:
        value = features[name]
        tensor = value[0] if isinstance(value, list) else value
        visit = Visit(name, fields[name].reads_as(), tuple(tensor.shape))
        listed.append(_tap_info(visit, probed.get(name)))
    return listed
