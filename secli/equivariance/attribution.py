"""The origin of the error: the part that each stage, and each layer of a kind, adds alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from secli.action.fields import Canvas, Field, Plane, ScaleSpace
from secli.action.images import SAMPLING_BLUR
from secli.config import MeasureSettings
from secli.equivariance.batching import batch_size, batches
from secli.equivariance.borders import borders, fade_to_black
from secli.equivariance.controls import Pointwise
from secli.equivariance.evaluation_mode import measuring
from secli.equivariance.factors import factors_of
from secli.equivariance.inner_layers import Call, Probe, Site, changes_with_scale, layers_of, watching
from secli.equivariance.local_error import NetworkPart
from secli.errors import InputError, UnknownNameError
from secli.external.hooked_model import code_of
from secli.external.missing_taps import at_least_float32
from secli.layers.fast.forms import without_forms
from secli.models.contract import Features, Model
from secli.records.notes import Note
from secli.records.schema import LocalRow

Progress = Callable[[int, int], None]


def local_errors(
    model: Model,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    settings: MeasureSettings,
    *,
    kinds: Sequence[str] = (),
    on_black: bool | None = None,
    device: torch.device | str = "cpu",
    on_progress: Progress | None = None,
) -> list[LocalRow]:
    """Measure the error that each stage, and each layer of the given kinds, adds alone.

    A part B is given features that are rescaled exactly. With F the features before it on the images and F₀
    those on the empty picture, the error is that between ``L_out(B(F) − B(F₀))`` and
    ``B(L_in(F − F₀) + F₀) − B(F₀)``, in the metric and with the background of ``settings``. Scale levels that
    L_in cannot know are filled by repeating the nearest known one, and everything that they reach in the output is
    masked: after a maximum over scale nothing is left, and the value is null.

    The parts do not sum to the whole. Each is given rescaled features of its own, so it never sees the errors
    made before it; later parts damp or amplify those, and the errors of two parts may cancel.

    Parameters
    ----------
    model, images, on_black
        As for :func:`secli.equivariance.curves.measure_curves`. A model without ``stages`` (a foreign network) has no
        rows of the kind ``stage``. A part is compared within the border of its tap, a layer within that of the next
        tap.
    settings : MeasureSettings
        Factors, metric, background, border, number of images, batch size; ``taps`` picks stages.
    kinds : sequence of str
        Layers that are measured too: ``conv``, ``pool``, ``norm``, ``activation``. Only modules are seen: functions
        of a network (a sum of branches, ``torch.relu``) are part of its stage alone.
    on_progress : callable, optional
        Called with (parts done, parts in all), over all batches.

    Returns
    -------
    list of LocalRow
        In the order of the network, first stages, then layers (``relu#2`` is the second call of ``relu``). After
        each part, under its own name, the kind ``pointwise``: the error of the pointwise control on the same features,
        which is the cost of sampling a nonlinearity there. Null with a reason where a value cannot be measured.

    Raises
    ------
    UnknownNameError
        On an unknown kind or tap.
    InputError
        When there are no images, or layers are requested of a network that is no torch module.
    """
    if len(images) == 0:
        raise InputError("there are no images to measure on")
    if kinds and not isinstance(model, nn.Module):
        raise InputError("the layers of this network cannot be seen: it is no torch module")
    images = images[: settings.images]
    black = fade_to_black(images) if on_black is None else on_black
    taps = model.taps
    for tap in settings.taps or ():
        if tap not in taps:
            raise UnknownNameError("tap", tap, taps)
    layers = layers_of(model, kinds) if isinstance(model, nn.Module) else {}
    factors = factors_of(settings, taps.values())
    blur = max([SAMPLING_BLUR, *(field.base_blur for field in taps.values())])
    channels, height, width = images.shape[1:]
    canvas = Canvas(height, width, blur)
    # each layer runs in the order of the formula: pooling elsewhere would be another part
    with measuring(model, device) as dtype, without_forms("pool-first"):
        edges = borders(model, taps, (channels, height, width), settings.border, black)
        canvases = {tap: canvas._replace(border=edge) for tap, edge in edges.items()}
        nothing = torch.zeros(1, *images.shape[1:], device=device, dtype=dtype)
        empty = model.features(nothing)
        stages = stage_parts(model, settings, factors)
        sites = Probe(model, layers, canvas).run(nothing) if layers else {}
        sites = {call: site for call, site in sites.items() if changes_with_scale(site)}
        parts = {call: _layer_part(site, settings, factors) for call, site in sites.items()}
        controls = {
            part.name: PartControl(part, settings, factors) for part in [*stages.values(), *parts.values()]
        }
        size = batch_size(
            settings.batch, images, lambda few: (model.features(few), model.features(few)), device, dtype
        )
        count = _Count(len(stages) + len(parts), -(-len(images) // size), on_progress)
        for batch in batches(images, size, device, dtype):
            base = model.features(batch) if stages else {}
            for (before, tap), part in stages.items():
                features = batch if before is None else base[before]
                zero = nothing if before is None else empty[before]
                part.add(features, zero, base[tap], empty[tap], canvases[tap])
                controls[part.name].add(part, features, zero, canvases[tap])
                count.step()
            if sites:
                _feed_layers(model, layers, sites, parts, controls, batch, canvases, count)
    every = [*stages.values(), *parts.values()]
    rows = [row for part in every for row in (*part.rows(), *controls[part.name].rows(part))]
    return [*_absent_kinds(parts, kinds, factors), *rows]


def without_stages(model: Model, settings: MeasureSettings) -> list[LocalRow]:
    """Return null rows with the reason why a network has no stages, where it has none."""
    if model.stages:
        return []
    return _absent("stage", Note.of("no-stages"), factors_of(settings, model.taps.values()))


def _absent_kinds(
    parts: Mapping[Call, NetworkPart], kinds: Sequence[str], factors: Sequence[float]
) -> list[LocalRow]:
    """Return null rows for the kinds without a layer in the network."""
    reason = Note.of("no-such-layer")
    found = {call.kind for call in parts}
    return [row for kind in kinds if kind not in found for row in _absent(kind, reason, factors)]


def _absent(kind: str, reason: Note, factors: Sequence[float]) -> list[LocalRow]:
    return [
        LocalRow(part="(none)", kind=kind, factor=factor, mean=None, low=None, high=None, n=0, reason=reason)
        for factor in factors
    ]


def stage_parts(
    model: Model, settings: MeasureSettings, factors: Sequence[float]
) -> dict[tuple[str | None, str], NetworkPart]:
    """Return the requested stages as parts, by the taps before (None: the images) and after each one."""
    taps = model.taps
    parts: dict[tuple[str | None, str], NetworkPart] = {}
    before: str | None = None
    for tap, module in model.stages:
        if settings.taps is None or tap in settings.taps:
            field: Field = Plane() if before is None else taps[before]
            run = partial(_run_stage, model, module)
            parts[before, tap] = NetworkPart(tap, "stage", run, field, taps[tap], settings, factors)
        before = tap
    return parts


def _run_stage(model: Model, stage: nn.Module, features: Features) -> Features:
    with code_of(model):
        output: Features = stage(features)
    return output


class PartControl:
    """The pointwise control on the features that a part is given."""

    def __init__(self, part: NetworkPart, settings: MeasureSettings, factors: Sequence[float]) -> None:
        self._owner = part
        self._settings, self._factors = settings, factors
        self._part: NetworkPart | None = None
        self._control: Callable[[Tensor], Tensor] | None = None

    def add(self, part: NetworkPart, features: Features, empty: Features, canvas: Canvas) -> None:
        """Add one batch; a layer that is a stage itself takes nothing twice."""
        field = self._owner.before
        if part is not self._owner or part.reason is not None or not isinstance(field, (Plane, ScaleSpace)):
            return
        assert isinstance(features, Tensor)
        assert isinstance(empty, Tensor)
        if self._part is None or self._control is None:
            # features have any unit; the control's kinks are between 0 and 1, like pixels
            control = Pointwise(features.shape[1]).to(features.device, features.dtype)
            lowest = float(features.min())
            unit = (float(features.max()) - lowest) or 1.0
            self._control = lambda x: control((x - lowest) / unit)
            run: Any = self._control
            self._part = NetworkPart(
                self._owner.name, "pointwise", run, field, field, self._settings, self._factors
            )
        self._part.add(features, empty, self._control(features), self._control(empty), canvas)

    def rows(self, part: NetworkPart) -> list[LocalRow]:
        """Return the control's rows, at the factors where it can be measured."""
        if self._part is None or part is not self._owner:
            return []
        return [row for row in self._part.rows() if row.mean is not None]


class _Count:
    """Progress over all parts and batches."""

    def __init__(self, parts: int, rounds: int, report: Progress | None) -> None:
        self._total, self._done, self._report = parts * rounds, 0, report

    def step(self) -> None:
        self._done += 1
        if self._report:
            self._report(self._done, self._total)


def _layer_part(site: Site, settings: MeasureSettings, factors: Sequence[float]) -> NetworkPart:
    def run(features: Features) -> Features:
        # a layer that works in place must not change its input
        assert isinstance(features, Tensor)
        output: Tensor = site.module(features.to(site.empty.dtype, copy=True))
        return at_least_float32(output)

    return NetworkPart(
        site.call.name, site.call.kind, run, site.before, site.after, settings, factors, site.reason
    )


def _feed_layers(
    model: Model,
    layers: dict[str, tuple[str, nn.Module]],
    sites: dict[Call, Site],
    parts: dict[Call, NetworkPart],
    controls: dict[str, PartControl],
    batch: Tensor,
    canvases: dict[str, Canvas],
    count: _Count,
) -> None:
    """Measure every layer while one batch passes it, so that one layer's features are held at a time."""

    def seen(call: Call, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        site = sites.get(call)
        if site is None:
            return
        if site.reason is None and site.tap is not None:
            part, features, canvas = parts[call], at_least_float32(args[0]), canvases[site.tap]
            empty = at_least_float32(site.empty)
            part.add(features, empty, part.run(features), at_least_float32(site.empty_output), canvas)
            controls[part.name].add(part, features, empty, canvas)
        count.step()

    with watching(layers, seen):
        model.features(batch)
