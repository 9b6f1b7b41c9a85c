"""The layers inside a network: kind, input, and how L_s acts there."""

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
    field_of,
    output_field,
    output_levels,
)
from secli.errors import UnknownNameError
from secli.external.field_text import AsIs, Layout
from secli.external.hooked_model import ExternalModel
from secli.external.missing_taps import unmeasurable
from secli.models.contract import Model
from secli.records.notes import Note

KINDS = ("conv", "pool", "norm", "activation")
"""The kinds of layers whose own error can be measured."""

# in the names of classes; a normalisation of pixels is no norm layer
_WORDS = {
    "norm": "Norm(?!al)",
    "pool": "[Pp]ool",
    "conv": "[Cc]onv|Lift",
    "activation": "ReLU|GELU|SiLU|Swish",
}
# torch's activations that are no function of each number alone
_NO_ACTIVATION = ("MultiheadAttention", "Softmax", "Softmax2d", "LogSoftmax", "Softmin")


def kind_of(module: nn.Module) -> str | None:
    """Return the kind of a layer, from its class; None for containers and for all other layers.

    ``conv``: classes named …Conv… or …Lift…; ``pool``: …Pool…; ``norm``: …Norm…; ``activation``: those of
    ``torch.nn.modules.activation``, and classes named …ReLU…, …GELU…, …SiLU… or …Swish…; a class of another
    name has the kind of its base class. A module with children is a container, unless it is a convolution of torch or
    a layer of this package.

    Examples
    --------
    >>> kind_of(nn.Conv2d(1, 1, 3)), kind_of(nn.GELU()), kind_of(nn.Linear(2, 2))
    ('conv', 'activation', None)
    """
    if not is_layer(module):
        return None
    # the name of the class itself comes first, then those of its bases
    return next(filter(None, map(_kind_by_name, type(module).__mro__)), None)


def _kind_by_name(cls: type) -> str | None:
    name = cls.__name__
    if cls.__module__ == "torch.nn.modules.activation" and name not in _NO_ACTIVATION:
        return "activation"
    return next((kind for kind, words in _WORDS.items() if re.search(words, name)), None)


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is one layer, not a container of several."""
    if not any(True for _ in module.children()):
        return True
    return type(module).__module__.startswith(("torch.nn.modules.conv", "secli.layers."))


class Call(NamedTuple):
    """One call of one layer: its name (``relu``, then ``relu#2``, for a layer that is used twice) and kind."""

    name: str
    kind: str


@dataclass(frozen=True)
class Site:
    """The result of a probe for one call of a layer.

    Attributes
    ----------
    before, after
        How L_s acts on its input and output; None where that is unknown.
    empty, empty_output
        Input and output for the empty picture, with a batch axis of one.
    tap
        The next declared tap, or the last one: its receptive field is at least the layer's.
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
    reason: Note | None


def layers_of(model: nn.Module, kinds: Sequence[str]) -> dict[str, tuple[str, nn.Module]]:
    """Return the layers of some kinds, by name, with their kinds.

    A foreign network's layers have their names in that network, like its taps.

    Raises
    ------
    UnknownNameError
        On a kind that is none of ``KINDS``.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownNameError("kind of layer", kind, KINDS)
    found: dict[str, tuple[str, nn.Module]] = {}
    inside: list[str] = []
    root = model.network if isinstance(model, ExternalModel) else model
    for name, module in root.named_modules():
        # a part of a layer is no layer of its own
        if any(name.startswith(f"{outer}.") for outer in inside):
            continue
        own_kind = kind_of(module)
        if own_kind is not None:
            inside.append(name)
            if own_kind in kinds:
                found[name] = (own_kind, module)
    return found


class Quiet:
    """Whether the calls of layers are our own, which hooks ignore."""

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
    """Call ``seen`` with the arguments of every call of the layers, before the layer runs.

    Calls by ``seen`` itself, or while ``quiet`` is busy, are ignored.
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

    The field of a layer's output follows from that of its input; a declared tap has its own field. A tensor that is
    no layer's output (a sum of branches, say) has the field of the latest tensor of the same shape.

    The model must be a torch module; the layers are those of :func:`layers_of`.
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
        # by id; the tensors are stored, so that no id is used twice
        self._known: dict[int, tuple[Tensor, Field | None]] = {}

    def run(self, empty: Float[Tensor, "1 c h w"]) -> dict[Call, Site]:
        """Return the site of each call of the layers, in the order of the calls."""
        model: Any = self.model
        self._declared = declared_taps(model.taps, model.features(empty))
        names = dict(self.model.named_modules())
        for tap in self._declared:
            if not isinstance(self.layouts.get(tap, AsIs()), AsIs):
                continue  # inside the network its axes have another order
            # a wrapper may contain the network under a name of its own
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
        """Return the declared taps: the next one, those after it, then those already passed, latest first."""
        ahead = [tap for name, tap in self._declared.items() if name not in self._passed]
        return ahead + [self._declared[name] for name in reversed(self._passed)]

    def _next_tap(self) -> str | None:
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
            reason = Note.of("takes-several-tensors" if len(given) > 1 else "takes-no-tensor")
            self.sites[call] = Site(call, module, None, None, nothing, nothing, None, reason)
            return
        x = args[0]
        output: object = module(x.clone())
        if not isinstance(output, Tensor):
            nothing = torch.empty(0)
            reason = Note.of("returns-several-tensors")
            self.sites[call] = Site(call, module, None, None, nothing, nothing, None, reason)
            return
        odd = unmeasurable(x) or unmeasurable(output)
        if odd is not None:
            self.sites[call] = Site(call, module, None, None, x, output, None, odd)
            return
        before = None if acts_on_last_axis(module, x) else self._field(x)
        after = None if before is None else self._output_field(module, x, output, before)
        missing: Note | None = None
        if before is None:
            missing = Note.of("input-shape-unknown", shape=tuple(x.shape[1:]))
        elif after is None:
            missing = Note.of("output-shape-unknown", shape=tuple(output.shape[1:]))
        self.sites[call] = Site(call, module, before, after, x.clone(), output, self._next_tap(), missing)

    def _tap_field(self, module: nn.Module, output: Tensor) -> Field | None:
        """Return the field of a module's output that is a tap; a wrapper may have permuted the axes of others."""
        tap = self._tap_modules.get(module)
        if tap is None or [shape[1:] for shape in self._declared[tap].shapes] != [output.shape[1:]]:
            return None
        return self._declared[tap].field

    def _output_field(self, module: nn.Module, x: Tensor, y: Tensor, before: Field | None) -> Field | None:
        declared = self._tap_field(module, y)
        return declared or output_field(module, x, y, before, self._likeliest(), self.canvas)

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
                output, output_levels(module, x, output, before, self.canvas), strict=True
            ):
                self._learn(tensor, plane)
        elif isinstance(output, Tensor) and args and isinstance(args[0], Tensor):
            with self._quiet():
                field = self._output_field(module, args[0], output, self._field(args[0]))
            self._learn(output, field)


def changes_with_scale(site: Site) -> bool:
    """Return whether scale acts on a layer's input or output; on vectors of numbers it does not."""
    return not (isinstance(site.before, Invariant) and isinstance(site.after, Invariant))
