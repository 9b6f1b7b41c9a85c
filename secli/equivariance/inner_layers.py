"""The layers inside a network: which kind each one is, what it is fed with, and how L_s acts there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.action.fields import Canvas, Field, Invariant, Plane
from secli.equivariance.layer_fields import (
    Declared,
    acts_on_last_axis,
    declared_taps,
    field_behind,
    field_of,
    levels_behind,
)
from secli.errors import UnknownNameError
from secli.external.field_text import AsIs, Layout
from secli.external.hooked_model import ExternalModel
from secli.external.missing_taps import unmeasurable
from secli.models.contract import Model

KINDS = ("conv", "pool", "norm", "activation")
"""The kinds of layers whose own error can be asked for."""

# in the names of classes; a normalisation of pixels is no norm layer
_WORDS = {
    "norm": "Norm(?!al)",
    "pool": "[Pp]ool",
    "conv": "[Cc]onv|Lift",
    "activation": "ReLU|GELU|SiLU|Swish",
}
# torch's own activations that are something else than a function of each number alone
_NO_ACTIVATION = ("MultiheadAttention", "Softmax", "Softmax2d", "LogSoftmax", "Softmin")


def kind_of(module: nn.Module) -> str | None:
    """Return the kind of a layer, from its class; None for containers and for all other layers.

    ``conv``: classes named …Conv… or …Lift…; ``pool``: …Pool…; ``norm``: …Norm…; ``activation``: those of
    ``torch.nn.modules.activation``, and whatever is named …ReLU…, …GELU…, …SiLU… or …Swish…; a class of another
    name is of the kind of the class that it was made from. A module with children is a container, unless torch or
    this package calls it one layer.

    Examples
    --------
    >>> kind_of(nn.Conv2d(1, 1, 3)), kind_of(nn.GELU()), kind_of(nn.Linear(2, 2))
    ('conv', 'activation', None)
    """
    if not is_layer(module):
        return None
    # what the class itself is called says most; a subclass of another name is what it was made from
    return next(filter(None, map(_kind_by_name, type(module).__mro__)), None)


def _kind_by_name(cls: type) -> str | None:
    name = cls.__name__
    if cls.__module__ == "torch.nn.modules.activation" and name not in _NO_ACTIVATION:
        return "activation"
    return next((kind for kind, words in _WORDS.items() if re.search(words, name)), None)


def is_layer(module: nn.Module) -> bool:
    """Say whether a module is one layer, not a container of several."""
    if not any(True for _ in module.children()):
        return True
    return type(module).__module__.startswith(("torch.nn.modules.conv", "secli.layers."))


class Call(NamedTuple):
    """One call of one layer: its name (``relu``, then ``relu#2``, for a layer that is used twice) and kind."""

    name: str
    kind: str


@dataclass(frozen=True)
class Site:
    """What a probe learned about one call of a layer.

    Attributes
    ----------
    call
        Which one.
    module
        The layer.
    before, after
        How L_s acts on what it takes and on what it returns; None where nothing says so.
    empty, empty_output
        What it takes and returns for the empty picture, with a batch axis of one.
    tap
        The declared tap ahead of it, or the last one: it sees at least as far as the layer.
    reason
        Why it cannot be measured; None when it can.
    """

    call: Call
    module: nn.Module
    before: Field | None
    after: Field | None
    empty: Tensor
    empty_output: Tensor
    tap: str | None
    reason: str | None


def layers_of(model: nn.Module, kinds: Sequence[str]) -> dict[str, tuple[str, nn.Module]]:
    """Return the layers of the wanted kinds, by name, with their kinds.

    A foreign network's layers have their names in that network, as its taps do.

    Raises
    ------
    UnknownNameError
        On a kind that is none of ``KINDS``.
    """
    for wanted in kinds:
        if wanted not in KINDS:
            raise UnknownNameError("kind of layer", wanted, KINDS)
    found: dict[str, tuple[str, nn.Module]] = {}
    inside: list[str] = []
    root = model.network if isinstance(model, ExternalModel) else model
    for name, module in root.named_modules():
        # what a layer is made of is no layer of its own
        if any(name.startswith(f"{outer}.") for outer in inside):
            continue
        kind = kind_of(module)
        if kind is not None:
            inside.append(name)
            if kind in kinds:
                found[name] = (kind, module)
    return found


class Quiet:
    """Whether the calls of layers are our own, which no hook must answer."""

    def __init__(self) -> None:
        self.busy = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Keep the hooks quiet inside."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False


@contextmanager
def watching(
    layers: dict[str, tuple[str, nn.Module]],
    seen: Callable[[Call, nn.Module, tuple[Any, ...], dict[str, Any]], None],
    quiet: Quiet | None = None,
) -> Iterator[None]:
    """Call ``seen`` with the arguments of every call of the layers, before the layer works.

    What ``seen`` itself computes with the layers, or others do while ``quiet`` is busy, is not watched.
    """
    counts: Counter[str] = Counter()
    silence = Quiet() if quiet is None else quiet

    def hook(name: str, kind: str) -> Callable[..., None]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if silence.busy:
                return
            counts[name] += 1
            label = name if counts[name] == 1 else f"{name}#{counts[name]}"
            with silence():
                seen(Call(label, kind), module, args, kwargs)

        return before

    handles = [
        module.register_forward_pre_hook(hook(name, kind), with_kwargs=True)
        for name, (kind, module) in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Probe:
    """One pass of the empty picture that follows the grid from layer to layer.

    Every layer behind a tensor whose field is known hands a field on; where a tap is declared, its own field
    stands. A tensor that came out of no layer (a sum of branches, say) takes the field of the latest tensor of
    the same shape.

    Parameters
    ----------
    model : Model
        A network that is a torch module.
    layers : mapping
        The layers that are wanted, from :func:`layers_of`.
    canvas : Canvas
        The pictures.
    """

    def __init__(self, model: Model, layers: dict[str, tuple[str, nn.Module]], canvas: Canvas) -> None:
        assert isinstance(model, nn.Module)
        module: nn.Module = model
        self.layouts: dict[str, Layout] = module.layouts if isinstance(module, ExternalModel) else {}
        self.model, self.layers, self.canvas = model, layers, canvas
        self.sites: dict[Call, Site] = {}
        self._declared: dict[str, Declared] = {}
        self._tap_modules: dict[nn.Module, str] = {}
        self._passed: list[str] = []
        self._quiet = Quiet()
        # by identity; the tensors are kept, so that no identity is used twice
        self._known: dict[int, tuple[Tensor, Field | None]] = {}

    def run(self, empty: Float[Tensor, "1 c h w"]) -> dict[Call, Site]:
        """Return what there is to know of each call of the wanted layers, in the order of the calls."""
        model: Any = self.model
        self._declared = declared_taps(model.taps, model.features(empty))
        names = dict(self.model.named_modules())
        for tap in self._declared:
            if not isinstance(self.layouts.get(tap, AsIs()), AsIs):
                continue  # inside the network its axes lie in another order
            # a wrapper may hold the network under a name of its own
            same = [name for name in names if name == tap or name.endswith(f".{tap}")]
            if same:
                self._tap_modules[names[min(same, key=len)]] = tap
        self._learn(empty, Plane())
        handles = [
            module.register_forward_hook(self._after)
            for module in names.values()
            if module in self._tap_modules or is_layer(module)
        ]
        try:
            with watching(self.layers, self._before, self._quiet):
                model.features(empty)
        finally:
            for handle in handles:
                handle.remove()
        return self.sites

    def _learn(self, tensor: Tensor, field: Field | None) -> None:
        self._known.pop(id(tensor), None)  # the latest comes last
        self._known[id(tensor)] = (tensor, field)

    def _likeliest(self) -> list[Declared]:
        """Return the declared taps: the one ahead, those behind it, then those already passed, latest first."""
        ahead = [tap for name, tap in self._declared.items() if name not in self._passed]
        return ahead + [self._declared[name] for name in reversed(self._passed)]

    def _tap_ahead(self) -> str | None:
        ahead = [name for name in self._declared if name not in self._passed]
        return ahead[0] if ahead else next(reversed(self._declared), None)

    def _field(self, tensor: Tensor) -> Field | None:
        if id(tensor) in self._known:
            return self._known[id(tensor)][1]
        for other, field in reversed(self._known.values()):
            if other.ndim == tensor.ndim and other.shape[2:] == tensor.shape[2:]:
                return field
        return field_of(tensor.shape, self._likeliest(), self.canvas)

    def _before(self, call: Call, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [
            value for value in (*args, *kwargs.values()) if not isinstance(value, (int, float, type(None)))
        ]
        if len(given) != 1 or not args or not isinstance(args[0], Tensor):
            nothing = torch.empty(0)
            reason = "the layer takes more than one tensor" if len(given) > 1 else "the layer takes no tensor"
            self.sites[call] = Site(call, module, None, None, nothing, nothing, None, reason)
            return
        x = args[0]
        output: object = module(x.clone())
        if not isinstance(output, Tensor):
            nothing = torch.empty(0)
            reason = "the layer returns more than one tensor"
            self.sites[call] = Site(call, module, None, None, nothing, nothing, None, reason)
            return
        odd = unmeasurable(x) or unmeasurable(output)
        if odd is not None:
            self.sites[call] = Site(call, module, None, None, x, output, None, odd)
            return
        before = None if acts_on_last_axis(module, x) else self._field(x)
        after = None if before is None else self._behind(module, x, output, before)
        missing: str | None = None
        if before is None or after is None:
            tensor, where = (x, "goes into") if before is None else (output, "comes out of")
            shape = ", ".join(str(side) for side in tensor.shape[1:])
            missing = f"nothing says how scale acts on (N, {shape}), which {where} it"
        self.sites[call] = Site(call, module, before, after, x.clone(), output, self._tap_ahead(), missing)

    def _tap_field(self, module: nn.Module, output: Tensor) -> Field | None:
        """Return the field of the tap that a module's output is; a wrapper may have turned the axes of others."""
        tap = self._tap_modules.get(module)
        if tap is None or [shape[1:] for shape in self._declared[tap].shapes] != [output.shape[1:]]:
            return None
        return self._declared[tap].field

    def _behind(self, module: nn.Module, x: Tensor, y: Tensor, before: Field | None) -> Field | None:
        declared = self._tap_field(module, y)
        return declared or field_behind(module, x, y, before, self._likeliest(), self.canvas)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self._quiet.busy:
            return
        tap = self._tap_modules.get(module)
        if tap is not None:
            self._passed = [*(name for name in self._passed if name != tap), tap]
        if isinstance(output, list):
            x = args[0] if args and isinstance(args[0], Tensor) else None
            before = None if x is None else self._field(x)
            for tensor, plane in zip(
                output, levels_behind(module, x, output, before, self.canvas), strict=True
            ):
                self._learn(tensor, plane)
        elif isinstance(output, Tensor) and args and isinstance(args[0], Tensor):
            with self._quiet():
                field = self._behind(module, args[0], output, self._field(args[0]))
            self._learn(output, field)


def changes_with_scale(site: Site) -> bool:
    """Say whether scale acts on anything before or behind a layer; on vectors of numbers it does not."""
    return not (isinstance(site.before, Invariant) and isinstance(site.after, Invariant))
