"""The cost of a training step, counted and not computed: operations, memory traffic, and memory at the peak.

A network on the meta device runs through forward and backward pass in milliseconds: only shapes are computed. Below
autograd every operation is seen with the shapes that it reads and writes; there are four kinds::

    products     matrix products, convolutions                     multiply–adds × 2 (torch.utils.flop_counter)
    samples      bilinear sampling                                 8 a cell (secli.models.flops), its gradient 24
    transforms   Fourier transforms of n points of P               5 P log₂ n
    traffic      all else: normalisation, activation, pooling, …   bytes that are read and written

The memory at the peak is the largest sum of the storages alive at one moment, without the parameters': activations,
gradients, and temporaries.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import flop_registry

from secli.models.flops import PER_BILINEAR_SAMPLE
from secli.models.meta_device import UncompiledMode

aten = torch.ops.aten

SAMPLINGS = frozenset({aten.grid_sampler_2d, aten.upsample_bilinear2d})
SAMPLING_GRADIENTS: Mapping[Any, int] = {
    aten.grid_sampler_2d_backward: 3,
    aten.upsample_bilinear2d_backward: 1,
}
"""Gradients of samplings, in samplings: one for the four neighbours, and one more for each coordinate."""
TRANSFORMS = frozenset({aten._fft_r2c, aten._fft_c2r, aten._fft_c2c})
IDLE = frozenset({aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided})
"""Operators that touch no memory."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations by kind, and bytes of memory traffic; see above."""

    products: float = 0.0
    samples: float = 0.0
    transforms: float = 0.0
    traffic: float = 0.0

    def __mul__(self, times: float) -> Work:
        return Work(
            self.products * times, self.samples * times, self.transforms * times, self.traffic * times
        )

    def __sub__(self, other: Work) -> Work:
        return Work(
            self.products - other.products,
            self.samples - other.samples,
            self.transforms - other.transforms,
            self.traffic - other.traffic,
        )


@dataclass(frozen=True)
class StepWork:
    """The cost of a training step: its forward pass, forward and backward pass together, and peak memory in bytes.

    The peak is that of images, activations, gradients and temporaries.
    """

    forward: Work
    step: Work
    peak: float


class _Result(NamedTuple):
    """The result of an operation for some shapes: the layouts of its tensors, and its work."""

    outputs: Any
    work: Work


class _Layout(NamedTuple):
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class WorkCounter:
    """Counts the work of networks; the result of an operation for some shapes is cached between them."""

    def __init__(self) -> None:
        self._known: dict[Any, _Result] = {}

    def step(self, network: nn.Module, images: Tensor, labels: Tensor, passes: int = 1) -> StepWork:
        """Count a training step on one batch: cross-entropy, forward and backward.

        Parameters
        ----------
        network : Module
            In the mode to be counted, on the device of the images: the meta device, or one where it is computed. Its
            gradients are deleted.
        passes : int
            Passes before the step, with gradients that add up: from the second pass on they are present throughout.
            The work is that of the last pass.

        Raises
        ------
        NotImplementedError, RuntimeError, ValueError
            When the network cannot take the images, or reads values where there are none.
        """
        network.zero_grad(set_to_none=True)
        weights = [*network.parameters(), *network.buffers()]
        with _Seen(self._known, weights, [images, labels]) as seen:
            for _ in range(passes):
                before = seen.work()
                loss = functional.cross_entropy(network(images), labels)
                between = seen.work()
                loss.backward()  # type: ignore[no-untyped-call]
                del loss
        network.zero_grad(set_to_none=True)
        return StepWork(between - before, seen.work() - before, seen.peak)


class _Seen(UncompiledMode):
    """Add up the work of all operations, and the storages that are alive."""

    def __init__(
        self, known: dict[Any, _Result], weights: Sequence[Tensor], present: Sequence[Tensor]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known
        self.now = self.peak = 0
        self._products = self._samples = self._transforms = self._traffic = 0.0
        # the weights' own memory is not counted
        self._alive: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in weights}
        for tensor in present:
            self._follow(tensor)

    def work(self) -> Work:
        return Work(self._products, self._samples, self._transforms, self._traffic)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        kind = _kind(func)
        if kind.view:
            return func(*args, **given)
        key = _key(func, args, given) if kind.pure else None
        known = self.known.get(key) if key is not None else None
        if known is not None:
            outputs, work = _made(known.outputs), known.work
        else:
            outputs = func(*args, **given)
            work = _work(func, args, given, outputs)
            if key is not None and all(tensor.is_meta for tensor in _tensors(outputs)):
                self.known[key] = _Result(_laid_out(outputs), work)
        for tensor in _tensors(outputs):
            self._follow(tensor)
        # field by field: there are thousands of operations
        self._products += work.products
        self._samples += work.samples
        self._transforms += work.transforms
        self._traffic += work.traffic
        self.peak = max(self.peak, self.now)
        return outputs

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        name, size = storage._cdata, storage.nbytes()
        if name in self._alive:
            return

        def gone(_: object) -> None:
            del self._alive[name]
            self.now -= size

        self._alive[name] = weakref.ref(storage, gone)
        self.now += size


class _Kind(NamedTuple):
    """Whether an operator returns a view, or new tensors and has no other effect."""

    view: bool
    pure: bool


_KINDS: dict[Any, _Kind] = {}


def _kind(func: Any) -> _Kind:
    kind = _KINDS.get(func)
    if kind is None:
        schema = func._schema
        aliases = any(each.alias_info is not None for each in [*schema.arguments, *schema.returns])
        kind = _KINDS[func] = _Kind(aliases and not schema.is_mutable, not aliases)
    return kind


def _key(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return a key of all that determines the shapes of an operation's result; None where it cannot be hashed."""
    key = func, _seen(args), tuple((name, _seen(value)) for name, value in kwargs.items())
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _seen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, value.is_meta, value.shape, value.stride()
    if isinstance(value, list | tuple):
        return tuple(_seen(each) for each in value)
    return type(value), value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _laid_out(value: Any) -> Any:
    """Return outputs with a layout for each tensor."""
    if isinstance(value, Tensor):
        return _Layout(value.dtype, tuple(value.shape), value.stride())
    if isinstance(value, list | tuple):
        return [_laid_out(each) for each in value]
    return value


def _made(outputs: Any) -> Any:
    """Return the outputs again, their tensors new."""
    if isinstance(outputs, _Layout):
        return torch.empty_strided(outputs.shape, outputs.stride, dtype=outputs.dtype, device="meta")
    if isinstance(outputs, list):
        return [_made(each) for each in outputs]
    return outputs


def _work(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> Work:
    operator = func._overloadpacket
    if operator in IDLE:
        return Work()
    if operator in flop_registry:
        formula: Callable[..., float] = flop_registry[operator]
        flops = formula(*args, **kwargs, out_val=outputs)
        # a complex multiply–add is four
        return Work(products=4 * flops if next(_tensors(outputs)).is_complex() else flops)
    traffic = sum(
        tensor.numel() * tensor.element_size() for tensor in _tensors((args, tuple(kwargs.values()), outputs))
    )
    if operator in SAMPLINGS:
        return Work(samples=PER_BILINEAR_SAMPLE * outputs.numel(), traffic=traffic)
    if operator in SAMPLING_GRADIENTS:
        times = SAMPLING_GRADIENTS[operator]
        return Work(samples=times * PER_BILINEAR_SAMPLE * args[0].numel(), traffic=traffic)
    if operator in TRANSFORMS:
        points = max(args[0].numel(), outputs.numel())
        whole = math.prod(max(args[0].shape[axis], outputs.shape[axis]) for axis in args[1])
        return Work(transforms=transform_flops(points, whole), traffic=traffic)
    return Work(traffic=traffic)


def transform_flops(points: int, whole: int) -> float:
    """Return the cost of Fourier transforms of so many points together, each transform of ``whole`` of them."""
    return 5 * points * math.log2(max(whole, 2))
