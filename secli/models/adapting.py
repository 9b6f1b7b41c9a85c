"""From a foreign network and words about it to a model: taps chosen, fields checked, their place probed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from secli.errors import InputError
from secli.fields import Field, Invariant, Pair, ScaleSpace
from secli.models.field_text import UNDECLARED, Declaration
from secli.models.hooked import Code, DeclaredModel, ExternalModel, declares_taps, tried
from secli.models.probing import Geometry, probe, probing
from secli.models.tapping import LOGITS, Visit, find_logits, matches, select, trace
from secli.models.targets import Shape

TRACED = 2
"""Images of the pass that looks a network over: two, so that the batch axis can be told."""


def adapt(
    network: nn.Module,
    normalise: nn.Module,
    shape: Shape,
    taps: Sequence[str] | None,
    declared: Sequence[tuple[str, Declaration]] = (),
    name: str = "network",
    *,
    code: Code = nullcontext,
) -> ExternalModel:
    """Put a network under the contract: choose its taps, check them in one pass, probe what was not declared.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    normalise : nn.Module
        What pixels go through first.
    shape : tuple
        Channels, height and width of the images.
    taps, declared
        As ``load_external`` takes them, the fields parsed.
    name : str
        What errors call the network.
    code : callable, optional
        What stands around every run of its code.

    Raises
    ------
    InputError
        When it does not take such images, or a tap cannot be found, read or probed.
    """
    images = torch.rand(TRACED, *shape, generator=torch.Generator().manual_seed(0))
    if declares_taps(network):
        return _adapt_declared(network, normalise, images, taps, declared, name, code)
    with code(), probing(network, "cpu") as dtype, torch.no_grad():
        images = normalise(images).to(dtype)
        visits, output = tried(name, images, lambda: trace(network, lambda: network(images)))
    logits, reason = find_logits(output, TRACED)
    chosen = _chosen_taps(network, visits, taps, declared, logits is not None, reason)
    shapes = {visit.name: visit.shape for visit in visits}
    declarations = {tap: _declaration(tap, shapes[tap], declared) for tap in chosen if tap != LOGITS}
    kept: dict[str, Field] = {tap: each.field for tap, each in declarations.items()}
    if LOGITS in chosen:
        kept[LOGITS] = Invariant()
    layouts = {tap: each.layout for tap, each in declarations.items()}
    model = ExternalModel(network, normalise, kept, layouts, reason, code)
    _place(model, declarations, shape, strict=taps is not None)
    return model


def _adapt_declared(
    network: nn.Module,
    normalise: nn.Module,
    images: Tensor,
    taps: Sequence[str] | None,
    declared: Sequence[tuple[str, Declaration]],
    name: str,
    code: Code,
) -> ExternalModel:
    """Choose among the taps that a network declares itself."""
    if declared:
        raise InputError(
            f"--field {declared[0][0]}: {name} declares the fields of its taps itself; leave --field out"
        )
    own: dict[str, Field] = dict(network.taps)  # type: ignore[arg-type]
    chosen = list(own) if taps is None else select(list(own), taps, "--taps")
    model = DeclaredModel(network, normalise, {tap: own[tap] for tap in chosen}, None, code)
    with torch.no_grad():
        features = tried(name, images, lambda: model.features(images))
    for tap in chosen:
        if tap not in features:
            raise InputError(f"{name}: declares a tap '{tap}' that its features do not hold")
    if LOGITS not in features:
        model.logits_reason = f"{name} gives no tap '{LOGITS}'"
    return model


def spatial(visit: Visit) -> bool:
    """Say whether a call gave a feature map (N, C, …, H, W) of more than one cell."""
    shape = visit.shape
    return shape is not None and len(shape) >= 4 and shape[0] == TRACED and min(shape[-2:]) > 1


def plausible(geometry: Geometry) -> bool:
    """Say whether neighbouring cells look at different places; of a wrongly read layout they do not."""
    return min(geometry.stride) > 0.05


def _chosen_taps(
    network: nn.Module,
    visits: Sequence[Visit],
    taps: Sequence[str] | None,
    declared: Sequence[tuple[str, Declaration]],
    has_logits: bool,
    reason: str | None,
) -> list[str]:
    """Return the taps to measure, in the order of the forward pass."""
    names = list(dict.fromkeys(visit.name for visit in visits))
    everything = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
    if LOGITS not in names:
        names.append(LOGITS)
    for pattern, _ in declared:
        if pattern != "**":
            select(names, [pattern], "--field", everything)
    if taps is not None:
        chosen = select(names, taps, "--taps", everything)
        if LOGITS in chosen and not has_logits and LOGITS not in everything:
            raise InputError(f"--taps {LOGITS}: {reason}")
        return chosen
    patterns = [pattern for pattern, _ in declared if pattern != "**"]
    wanted = {name for name in names if any(matches(name, pattern) for pattern in patterns)}
    wanted |= {
        *_outermost(network, visits),
        *(visit.name for visit in visits if visit.bare and spatial(visit)),
    }
    if not wanted:
        raise InputError(
            "--taps: no module gives feature maps (N, C, H, W); name taps (--list-taps shows all) and declare "
            "their fields (--field)"
        )
    return [name for name in names if name in wanted] + (
        [LOGITS] if has_logits and LOGITS not in wanted else []
    )


def _outermost(network: nn.Module, visits: Sequence[Visit]) -> list[str]:
    """Return the outermost modules that give feature maps; a lone container of them is opened."""
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


def _declaration(
    tap: str, shape: tuple[int, ...] | None, declared: Sequence[tuple[str, Declaration]]
) -> Declaration:
    """Return what holds at a tap, checked against the shape that was seen there."""
    if shape is None:
        raise InputError(f"--taps {tap}: this module returns no tensor")
    size = "×".join(map(str, shape[1:]))
    if len(shape) < 2 or shape[0] != TRACED:
        raise InputError(
            f"--taps {tap}: its output has the shape {tuple(shape)} for {TRACED} images: "
            "its first axis is not the batch"
        )
    found = [each for pattern, each in declared if matches(tap, pattern)]
    if not found:
        if len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1)):
            return Declaration(Invariant())
        if len(shape) == 4:
            return UNDECLARED
        raise InputError(
            f"--taps {tap}: its output (N, {size.replace('×', ', ')}) needs a field: {_hint(tap, shape)}"
        )
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
        raise InputError(
            f"--field for tap {tap}: a plane is (N, C, …, H, W), not {tuple(shape)}: {_hint(tap, shape)}"
        )
    return chosen


def _hint(tap: str, shape: tuple[int, ...]) -> str:
    """Suggest a declaration for a shape that is no plane."""
    if len(shape) == 3:
        for prefix in range(8):
            side = round((shape[1] - prefix) ** 0.5)
            if side > 1 and side * side == shape[1] - prefix:
                return f"--field '{tap}=tokens:{side}x{side}" + f"+{prefix}" * bool(prefix) + "', for example"
        return f"--field '{tap}=tokens:ROWSxCOLUMNS+PREFIX' with {shape[1]} tokens in all, or invariant"
    return f"--field '{tap}=scale:…' with its levels, or invariant"


def _place(model: ExternalModel, declarations: Mapping[str, Declaration], shape: Shape, strict: bool) -> None:
    """Probe the strides and origins that were left out, and put them into the model's fields.

    A tap that cannot be placed is an error when it was asked for, and left out when it was only taken by default.
    """
    opened = [tap for tap, each in declarations.items() if each.open]
    if not opened:
        return
    model.geometry = probe(model, shape, opened)
    for tap in opened:
        geometry = model.geometry.get(tap)
        if geometry is not None and plausible(geometry):
            origin = None if geometry.centred else _pair(geometry.origin)
            model.set_field(tap, declarations[tap].placed(_pair(geometry.stride), origin))
        elif strict or declarations[tap] is not UNDECLARED:
            raise InputError(
                f"--taps {tap}: its cells cannot be placed in the image ({_why(geometry)}); declare it, for example "
                f"--field '{tap}=channels-last' or '{tap}=plane,stride=4,origin=1.5'"
            )
        else:
            model.drop_tap(tap)


def _why(geometry: Geometry | None) -> str:
    if geometry is None:
        return "no gradient of it reaches the image, or it has a single row"
    return "neighbouring cells look at the same place"


def _pair(values: tuple[float, float]) -> Pair:
    return values[0] if values[0] == values[1] else values
