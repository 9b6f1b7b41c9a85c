"""The possible taps of a network, and their geometry in the image: for ``--list-taps``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from secli.action.fields import Field
from secli.external.adapt import TRACED, cells_of, materialise, spatial
from secli.external.batch_independence import is_coarse, mixing
from secli.external.cell_grid import Geometry, impossible
from secli.external.field_text import AsIs, Layout
from secli.external.hooked_model import DeclaredModel, ExternalModel, declares_taps, tried
from secli.external.hooks import Visit, first_tensor, listening, named_outputs, select, trace
from secli.external.loaded_network import Shape
from secli.external.missing_taps import unmeasurable
from secli.external.probing import probe, probing
from secli.external.probing_forward import Run, Take, one_by_one, respond

SKETCHED = 4096
"""Numbers of a map that are compared between two passes."""


class ListedTap(NamedTuple):
    """A module's call that can be a tap, by the name that ``--taps`` takes, with the module's class.

    Attributes
    ----------
    shape
        Of its output, without the batch axis; None when it returns no tensor.
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
) -> list[ListedTap]:
    """Return every call of a module that can be a tap, in the order of the forward pass.

    Parameters
    ----------
    model : nn.Module
        Any network; the declared layouts of an ``ExternalModel`` are used.
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
    images = torch.rand(TRACED, *input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    if declares_taps(network):
        return _list_declared(network, normalise, images, taps, on_progress)
    code = model.code if isinstance(model, ExternalModel) else nullcontext
    with code():
        materialise(network, normalise, images, "network")
    with code(), probing(model, "cpu") as dtype, torch.no_grad():
        batch = normalise(images).to(dtype)
        visits, _ = tried("network", images, lambda: trace(network, lambda: network(batch.clone())))
        if taps is not None:
            selected = set(select([visit.name for visit in visits], taps, "--taps"))
            visits = [visit for visit in visits if visit.name in selected]
        planar = {
            visit.name: layouts.get(visit.name, AsIs())
            for visit in visits
            if visit.shape is not None and (visit.name in layouts or spatial(visit))
        }
        cells = {
            visit.name: cells_of(planar[visit.name], visit.shape) for visit in visits if visit.name in planar
        }
        run = _streaming(network, normalise, planar)
        if _mixes(run, images.to(dtype)):
            run = one_by_one(run)
        probed = respond(run, input_shape, cells, "cpu", dtype, on_progress=on_progress) if planar else {}
    return [_tap_info(visit, probed.get(visit.name), cells, input_shape) for visit in visits]


def _streaming(network: nn.Module, normalise: nn.Module, layouts: Mapping[str, Layout]) -> Run:
    """Return a run of a network that passes on every planar call's features at once, and keeps none."""
    named = {name: module for name, module in network.named_modules(remove_duplicate=False) if name}
    called = {name.partition("@")[0] for name in layouts}
    modules = {name: module for name, module in named.items() if name in called}

    def run(batch: Tensor, take: Take) -> None:
        counts: Counter[str] = Counter()

        def listen(name: str, module: nn.Module, output: Any) -> None:
            counts[name] += 1
            turn = f"{name}@{counts[name]}"
            tap = turn if turn in layouts or name not in layouts else name
            tensor = first_tensor(output)
            if tensor is not None:
                give(tap, tensor)

        def give(tap: str, tensor: Tensor) -> None:
            if tap in layouts and unmeasurable(tensor) is None:
                take(tap, layouts[tap].to_planes(tensor))

        with listening(modules, listen):
            output = network(normalise(batch.clone()))
        for key, tensor in named_outputs(output, named.keys()).items():
            give(key, tensor)

    return run


def _mixes(run: Run, images: Tensor) -> bool:
    """Return whether features of a picture depend on its neighbours; of large maps a part is compared."""

    def sketch(batch: Tensor) -> tuple[dict[str, Tensor], bool]:
        found: dict[str, Tensor] = {}
        coarse = False

        def take(name: str, plane: Tensor) -> None:
            nonlocal coarse
            coarse |= is_coarse(plane)
            values = plane[-1].flatten()
            found[name] = values[:: -(-len(values) // SKETCHED)].float().clone()[None]

        run(batch, take)
        return found, coarse

    (alone, _), (among, coarse) = sketch(images[1:]), sketch(images)
    return mixing(alone, among, coarse) is not None


def _tap_info(
    visit: Visit, geometry: Geometry | None, cells: Mapping[str, tuple[int, int]], image: Shape
) -> ListedTap:
    shape = None if visit.shape is None else visit.shape[1:]
    if geometry is None or impossible(visit.name, geometry, cells[visit.name], image[1:]) is not None:
        return ListedTap(visit.name, visit.kind, shape, None, None, None)
    return ListedTap(visit.name, visit.kind, shape, geometry.stride, geometry.origin, geometry.radius)


def _list_declared(
    network: nn.Module,
    normalise: nn.Module,
    images: Tensor,
    taps: Sequence[str] | None,
    on_progress: Callable[[int, int], None] | None,
) -> list[ListedTap]:
    """List the taps that a network declares itself."""
    fields: dict[str, Field] = network.taps  # type: ignore[assignment]
    names = list(fields) if taps is None else select(list(fields), taps, "--taps")
    model = DeclaredModel(network, normalise, fields, None)
    with probing(model, "cpu") as dtype, torch.no_grad():
        features = model.features(images.to(dtype))
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    probed = probe(model, shape, names, on_progress=on_progress)
    listed = []
    for name in names:
        value = features[name]
        tensor = value[0] if isinstance(value, list) else value
        visit = Visit(name, fields[name].reads_as(), tuple(tensor.shape))
        cells = {name: (int(tensor.shape[-2]), int(tensor.shape[-1]))} if name in probed else {}
        listed.append(_tap_info(visit, probed.get(name), cells, shape))
    return listed
