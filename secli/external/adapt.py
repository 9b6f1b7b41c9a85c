"""From a foreign network and its declared fields to a model: taps chosen, fields checked, geometry probed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from secli.action.fields import Field, Invariant, Pair, ScaleSpace
from secli.errors import InputError, UnmatchedPatternError
from secli.external.batch_independence import is_coarse, mixing, shape_with_batch
from secli.external.cell_grid import Geometry, impossible
from secli.external.field_text import UNDECLARED, Declaration, Layout
from secli.external.hooked_model import Code, DeclaredModel, ExternalModel, declares_taps, tried
from secli.external.hooks import LOGITS, Visit, find_logits, matches_pattern, select, trace
from secli.external.loaded_network import Shape
from secli.external.missing_taps import unmeasurable
from secli.external.probing import probe, probing
from secli.external.restoring import fingerprint, image_dtype, in_eval_mode, on_device
from secli.records.notes import Note

TRACED = 2
"""Images of the first pass through a network: two, so that the batch axis can be recognised."""


def adapt(
    network: nn.Module,
    normalise: nn.Module,
    shape: Shape,
    taps: Sequence[str] | None,
    declared: Sequence[tuple[str, Declaration]] = (),
    name: str = "network",
    *,
    code: Code = nullcontext,
    device: torch.device | str = "cpu",
    check_taps: bool = True,
) -> ExternalModel:
    """Wrap a network as a model: choose its taps, check them in a few passes, probe what was not declared.

    A tap that is found but cannot be measured is among the model's ``missing`` ones, with the reason.

    Parameters
    ----------
    network : nn.Module
        In eval mode; its device and state are restored.
    normalise : nn.Module
        Applied to the pixels first.
    shape : tuple
        Channels, height and width of the images.
    taps, declared
        As for ``load_external``, the fields parsed.
    name : str
        The network's name in errors.
    code : callable, optional
        The context of every run of its code.
    device : torch.device
        Of its passes.
    check_taps : bool
        Whether the taps are checked and probed; a list of taps does so by itself, for all of them at once.

    Raises
    ------
    InputError
        When it does not take such images, or a tap that was named cannot be found or read.
    """
    images = torch.rand(TRACED, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    with code():
        materialise(network, normalise, images, name)
    check_weights(network, name)
    if declares_taps(network):
        return _adapt_declared(network, normalise, images, taps, declared, name, code, device)
    with code(), probing(network, device) as dtype, on_device(normalise, device), torch.no_grad():
        pixels = normalise(images.to(device)).to(dtype)
        visits, output = tried(name, images, lambda: trace(network, lambda: network(pixels.clone())))
    logits, reason = find_logits(output, TRACED)
    chosen = _chosen_taps(network, visits, taps, declared, logits is not None, reason)
    shapes = {visit.name: visit.shape for visit in visits}
    declarations, missing = _declarations(chosen, shapes, declared, taps)
    kept: dict[str, Field] = {tap: each.field for tap, each in declarations.items()}
    if LOGITS in chosen:
        kept[LOGITS] = Invariant()
    layouts = {tap: each.layout for tap, each in declarations.items()}
    model = ExternalModel(network, normalise, kept, layouts, reason, code)
    model.order, model.description = tuple(chosen), {"target": name}
    for tap, why in missing.items():
        model.drop_tap(tap, why)
    if check_taps:
        check_batch_axis(model, images, name, device)
        _probe_open_fields(model, declarations, shapes, shape, device)
    return model


def materialise(network: nn.Module, normalise: nn.Module, images: Tensor, name: str) -> None:
    """Run lazy modules once, so that they draw their weights."""
    if any(is_lazy(weight) for weight in (*network.parameters(), *network.buffers())):
        with in_eval_mode(network), torch.no_grad():
            tried(name, images, lambda: network(normalise(images).clone()))


def check_weights(network: nn.Module, name: str) -> None:
    """Refuse a network whose weights have no values or are too coarse."""
    try:
        image_dtype(network)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def check_batch_axis(model: ExternalModel, images: Tensor, name: str, device: torch.device | str) -> None:
    """Compare a pass with two pictures to one with the second of them alone, and record the result in the model.

    Taps whose shape depends on the number of pictures or whose numbers cannot be measured become missing ones; half
    precision is remarked upon; ``model.mixes`` records whether a picture's features depend on its neighbours.

    Raises
    ------
    InputError
        When the network fails on one picture alone.
    """
    with probing(model, device) as dtype, torch.no_grad():
        pixels = images.to(device, dtype)

        def read(batch: Tensor) -> dict[str, Tensor]:
            found, output = model.raw(batch)
            logits, _ = find_logits(output, len(batch))
            return found if logits is None else {**found, LOGITS: logits}

        two = tried(name, images, lambda: read(pixels))
        one = tried(f"{name}, given one picture alone,", images, lambda: read(pixels[1:]))
        for tap in list(model.taps):
            reason = shape_with_batch(one.get(tap), two.get(tap))
            if reason is not None and tap == LOGITS:
                reason = _lost_logits(model, pixels) or reason
            reason = reason or unmeasurable(two[tap])
            if reason is not None:
                model.drop_tap(tap, reason)
            elif is_coarse(two[tap]):
                dtype_name = str(two[tap].dtype).removeprefix("torch.")
                model.remarks[tap] = Note.of("half-precision", dtype=dtype_name)
        kept = {tap: one[tap] for tap in model.taps if tap in one}
        mixes = mixing(kept, two, bool(model.remarks))
        # a network that draws noise is reported by the measurement
        if mixes is not None and mixing(kept, read(pixels[1:]), bool(model.remarks)) is None:
            model.mixes = mixes


def _lost_logits(model: ExternalModel, pixels: Tensor) -> Note | None:
    """Return why one picture, or else two, have no class scores."""
    for batch in (pixels[1:], pixels):
        _, reason = find_logits(model.raw(batch)[1], len(batch))
        if reason is not None:
            return reason
    return None


def _adapt_declared(
    network: nn.Module,
    normalise: nn.Module,
    images: Tensor,
    taps: Sequence[str] | None,
    declared: Sequence[tuple[str, Declaration]],
    name: str,
    code: Code,
    device: torch.device | str,
) -> ExternalModel:
    """Choose among the taps that a network declares itself."""
    if declared:
        raise UnmatchedPatternError(
            f"--field {declared[0][0]}: {name} declares the fields of its taps itself; leave --field out",
            "--field",
            [pattern for pattern, _ in declared],
        )
    own: dict[str, Field] = dict(network.taps)  # type: ignore[arg-type]
    chosen = list(own) if taps is None else select(list(own), taps, "--taps")
    model = DeclaredModel(network, normalise, {tap: own[tap] for tap in chosen}, None, code)
    with probing(model, device) as dtype, torch.no_grad():
        pixels = images.to(device, dtype)
        features = tried(name, images, lambda: model.features(pixels))
        for tap in chosen:
            if tap not in features:
                raise InputError(f"{name}: declares a tap '{tap}' that its features do not hold")
        alone = tried(f"{name}, given one picture alone,", images, lambda: model.features(pixels[1:]))
        model.mixes = mixing(alone, features)
    if LOGITS not in features:
        model.logits_reason = Note.of("no-logits-tap", network=name)
    return model


def spatial(visit: Visit) -> bool:
    """Return whether a call returned a feature map (N, C, …, H, W) of more than one cell."""
    shape = visit.shape
    return shape is not None and len(shape) >= 4 and shape[0] == TRACED and min(shape[-2:]) > 1


def _chosen_taps(
    network: nn.Module,
    visits: Sequence[Visit],
    taps: Sequence[str] | None,
    declared: Sequence[tuple[str, Declaration]],
    has_logits: bool,
    reason: Note | None,
) -> list[str]:
    """Return the taps to measure, in the order of the forward pass."""
    names = list(dict.fromkeys(visit.name for visit in visits))
    everything = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
    if LOGITS not in names:
        names.append(LOGITS)
    patterns = [pattern for pattern, _ in declared if pattern != "**"]
    select(names, patterns, "--field", everything)
    if taps is not None:
        chosen = select(names, taps, "--taps", everything)
        if LOGITS in chosen and not has_logits and LOGITS not in everything:
            raise UnmatchedPatternError(f"--taps {LOGITS}: {reason}", "--taps", [LOGITS])
        return chosen
    chosen = [
        *_outermost(network, visits),
        *(visit.name for visit in visits if visit.bare and spatial(visit)),
    ]
    chosen += [name for name in names if any(matches_pattern(name, pattern) for pattern in patterns)]
    if not chosen:
        raise InputError(
            "--taps: no module gives feature maps (N, C, H, W); name taps (--list-taps shows all) and declare "
            "their fields (--field)"
        )
    return [name for name in names if name in chosen] + [LOGITS] * (has_logits and LOGITS not in chosen)


def _outermost(network: nn.Module, visits: Sequence[Visit]) -> list[str]:
    """Return the outermost modules that return feature maps; a lone container of them is opened."""
    planes = {visit.name for visit in visits if spatial(visit)}
    level = [name for name, _ in network.named_children()]
    found = [name for name in level if name in planes]
    while len(found) < 2:
        opened = []
        for name in level:
            inner = [f"{name}.{child}" for child, _ in network.get_submodule(name).named_children()]
            opened += inner if name in planes or not found else []
        deeper = [name for name in opened if name in planes]
        if not opened or (found and not deeper):
            break
        level, found = opened, deeper
    return found


def _declarations(
    chosen: Sequence[str],
    shapes: Mapping[str, tuple[int, ...] | None],
    declared: Sequence[tuple[str, Declaration]],
    taps: Sequence[str] | None,
) -> tuple[dict[str, Declaration], dict[str, Note]]:
    """Return the declarations of the chosen taps, and for others the reason why they have none.

    A tap that was named, or for which a field was declared, must have one.
    """
    found: dict[str, Declaration] = {}
    missing: dict[str, Note] = {}
    for tap in chosen:
        if tap == LOGITS:
            continue
        one = _declaration(tap, shapes[tap], declared)
        if isinstance(one, Declaration):
            found[tap] = one
            continue
        if tap in (taps or ()) or any(matches_pattern(tap, pattern) for pattern, _ in declared):
            raise InputError(f"--taps {tap}: {one}")
        missing[tap] = one
    return found, missing


def _declaration(
    tap: str, shape: tuple[int, ...] | None, declared: Sequence[tuple[str, Declaration]]
) -> Declaration | Note:
    """Return the declaration of a tap, checked against its shape, or why it has none."""
    if shape is None:
        return Note.of("returns-no-tensor")
    if len(shape) < 2 or shape[0] != TRACED:
        return Note.of("no-batch-axis", shape=tuple(shape), images=TRACED)
    found = [each for pattern, each in declared if matches_pattern(tap, pattern)]
    if not found:
        if len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1)):
            return Declaration(Invariant())
        if len(shape) == 4:
            return UNDECLARED
        return _undeclared(tap, shape)
    chosen = found[-1]
    if isinstance(chosen.field, Invariant):
        return chosen
    try:
        planes = chosen.layout.to_planes(torch.empty(shape, device="meta"))
    except ValueError as error:
        raise InputError(f"--field for tap {tap}: {error}") from None
    if isinstance(chosen.field, ScaleSpace):
        levels = len(chosen.field.scales)
        if planes.ndim < 5 or planes.shape[2] != levels:
            raise InputError(
                f"--field for tap {tap}: a scale space of {levels} levels is (N, C, {levels}, …, H, W), "
                f"not {tuple(shape)}"
            )
    elif planes.ndim < 4:
        raise InputError(f"--field for tap {tap}: a plane is (N, C, …, H, W): {_undeclared(tap, shape)}")
    return chosen


def _undeclared(tap: str, shape: tuple[int, ...]) -> Note:
    """Say which declaration a shape needs that is no plane."""
    named = {"shape": tuple(shape[1:]), "tap": tap}
    if len(shape) != 3:
        return Note.of("levels-undeclared", **named)
    for prefix in range(8):
        side = round((shape[1] - prefix) ** 0.5)
        if side > 1 and side * side == shape[1] - prefix:
            field = f"tokens:{side}x{side}" + f"+{prefix}" * bool(prefix)
            return Note.of("tokens-in-a-square", **named, field=field)
    return Note.of("tokens", **named, tokens=shape[1])


def _probe_open_fields(
    model: ExternalModel,
    declarations: Mapping[str, Declaration],
    shapes: Mapping[str, tuple[int, ...] | None],
    image: Shape,
    device: torch.device | str,
) -> None:
    """Probe the strides and origins that were not declared, and set the model's fields."""
    opened = [tap for tap, each in declarations.items() if each.open and tap in model.taps]
    if not opened:
        return
    model.geometry, model.probed = probe(model, image, opened, device), (image, fingerprint(model))
    for tap in opened:
        geometry, cells = model.geometry.get(tap), cells_of(declarations[tap].layout, shapes[tap])
        reason = why_unplaced(tap, geometry, cells, image[1:])
        if reason is not None:
            model.geometry.pop(tap, None)
            model.drop_tap(tap, reason)
            continue
        assert geometry is not None
        origin = None if geometry.centred else _pair(geometry.origin)
        model.set_field(tap, declarations[tap].with_geometry(_pair(geometry.stride), origin))


def cells_of(layout: Layout, shape: tuple[int, ...] | None) -> tuple[int, int]:
    """Return rows and columns of the map of features of a shape."""
    planes = layout.to_planes(torch.empty(shape or (), device="meta"))
    return planes.shape[-2], planes.shape[-1]


def why_unplaced(
    tap: str, geometry: Geometry | None, cells: tuple[int, int], image: tuple[int, int]
) -> Note | None:
    """Return why a map's cells have no position in the image, from its probed geometry; None when they have."""
    if geometry is not None:
        return impossible(tap, geometry, cells, image)
    if min(cells) < 2:
        return Note.of("one-cell", tap=tap, rows=cells[0], columns=cells[1])
    return Note.of("image-moves-nothing", tap=tap)


def _pair(values: tuple[float, float]) -> Pair:
    return values[0] if values[0] == values[1] else values
