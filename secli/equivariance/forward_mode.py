"""Forward mode: the derivative of every tap along a direction, and the check that every operator has a correct one.

Some operators silently return a zero tangent in forward mode (``torchvision.ops.deform_conv2d`` does), and a
foreign ``autograd.Function`` may have a wrong one. A Lie derivative through them would be wrong without notice.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from secli.equivariance.features import tensors
from secli.errors import one_line
from secli.external.hooked_model import code_of
from secli.layers.fast.chain import Chain
from secli.models.contract import Features, Model
from secli.records.notes import Note, NotMeasurableError


class Steps(NamedTuple):
    """How a tangent is compared with a finite difference in one arithmetic.

    Attributes
    ----------
    sizes
        Relative step sizes, tried until one agrees: kinks (ReLU, max) need small steps, rounding large ones.
    tolerance
        Largest relative distance that counts as agreement.
    negligible
        A relative change of the output this far below that of the input is rounding.
    """

    sizes: tuple[float, ...]
    tolerance: float
    negligible: float


FINE = Steps((1e-6, 1e-8, 1e-4, 1e-3), 0.02, 1e-6)
COARSE = Steps((1e-3, 1e-2, 3e-4), 0.1, 1e-3)
"""For networks that cannot run in float64."""
ROUGH = Steps((3e-2, 1e-1, 1e-2), 0.2, 1e-2)
"""For networks that compute in half precision inside."""


class Derivative(NamedTuple):
    """Φ(f) and J Φ(f)[v] at every tap, from one forward pass; one tangent per resolution."""

    features: dict[str, Features]
    tangents: dict[str, list[Tensor]]


@contextmanager
def plain_operators() -> Iterator[None]:
    """Run attention on its plain (math) backend, and compute no gradients."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def forward_mode() -> Iterator[None]:
    """Open a level of forward-mode differentiation, on plain operators."""
    with plain_operators(), forward_ad.dual_level():
        yield


def directional_derivative(
    model: Model, images: Float[Tensor, "n c h w"], direction: Float[Tensor, "n c h w"]
) -> Derivative:
    """Return Φ(f) and J Φ(f)[v] at every tap of a network in eval mode, by forward-mode differentiation in one pass.

    Raises
    ------
    SecliError
        When an operator has no forward-mode derivative; the innermost module that runs it is named.
    """
    with forward_mode(), _named_failure(model):
        outputs = model.features(_dual(images, direction))
        features: dict[str, Features] = {}
        tangents: dict[str, list[Tensor]] = {}
        for tap, output in outputs.items():
            pairs = [_unpacked(tensor) for tensor in tensors(output)]
            tangents[tap] = [_tangent_or_zero(primal, tangent) for primal, tangent in pairs]
            features[tap] = [primal for primal, _ in pairs] if isinstance(output, list) else pairs[0][0]
    return Derivative(features, tangents)


def check_tangents(model: Model, images: Float[Tensor, "n c h w"]) -> None:
    """Check that forward mode differentiates every operator of a network like a finite difference.

    Raises
    ------
    SecliError
        When a tangent is missing, zero or wrong; the message names the module (its path and class) or the tap. See
        :func:`tangent_faults`.
    """
    for fault in tangent_faults(model, images).values():
        raise NotMeasurableError(fault)


def tangent_faults(
    model: Model, images: Float[Tensor, "n c h w"], taps: Sequence[str] | None = None
) -> dict[str, Note]:
    """Return the taps whose forward-mode derivative is zero or wrong, each with the operator at fault.

    One image goes through the network in forward mode along a random direction, in float64 where the network runs in
    it; it is averaged with noise, because the black parts of pictures are on the kink of ReLU. Then every module,
    innermost first, is run alone: the tangent of its output is compared with ``(m(x + h·v) − m(x − h·v)) / 2h`` for
    its own input x and tangent v, at several h; functions between a module's children are checked with the module (a
    plain chain of modules computes nothing of its own). Nothing is run twice within the pass itself, because networks
    store features by hooks of their own, which a second run would replace. Finally the taps are checked from the image
    on, for functions outside all modules.

    Parameters
    ----------
    model : Model
        A network, in eval mode, on the images' device; it is restored.
    images : tensor (N, C, H, W)
        Some images of the measurement, in the type of its weights.
    taps : sequence of str, optional
        Default: all. An operator that runs after all of them is not checked.

    Raises
    ------
    SecliError
        When an operator has no forward-mode derivative at all.
    """
    generator = torch.Generator().manual_seed(0)
    shape = images[:1].shape
    noise = torch.rand(shape, generator=generator)
    direction = torch.randn(shape, generator=generator).to(images)
    probe = (images[:1] + noise.to(images)) / 2
    with torch.no_grad():
        trial, probe = _in_double(model, probe)
    direction = direction.to(probe)
    watch = Watch(trial if isinstance(trial, nn.Module) else None)
    with watch:
        derivative = directional_derivative(trial, probe, direction)
    steps = FINE if probe.dtype == torch.float64 else COARSE
    if watch.rounding > torch.finfo(torch.float32).eps:
        steps = ROUGH
    ends = {tap: watch.end_of(tap) for tap in derivative.tangents if taps is None or tap in taps}
    with plain_operators():
        fault = watch.first_fault(steps, max(ends.values(), default=0))
        found = {} if fault is None else {tap: fault.note for tap, end in ends.items() if end >= fault.end}
        rest = [tap for tap in ends if tap not in found]
        wrong = _tap_faults(trial, probe, direction, derivative, rest, steps, watch.rounding)
        # an operator between two modules is found where the module around both ends
        around = watch.first_fault(steps) if wrong and fault is None else fault
        found |= wrong if around is None else dict.fromkeys(wrong, around.note)
    return {tap: found[tap] for tap in ends if tap in found}


def _tap_faults(
    trial: Model,
    probe: Tensor,
    direction: Tensor,
    derivative: Derivative,
    taps: Sequence[str],
    steps: Steps,
    rounding: float,
) -> dict[str, Note]:
    """Return the taps whose tangent disagrees with a finite difference from the image on."""

    def features(inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        outputs = trial.features(inputs[0])
        return [tensors(outputs[tap]) for tap in taps]

    own = [tensors(derivative.features[tap]) for tap in taps]
    groups = [derivative.tangents[tap] for tap in taps]
    errors = _disagreements(features, [probe], [direction], own, groups, steps, rounding)
    return {
        tap: _complaint(f"tap '{tap}' of {type(trial).__name__}", error, derivative.tangents[tap])
        for tap, error in zip(taps, errors, strict=True)
        if error is not None
    }


class Fault(NamedTuple):
    """An operator whose tangent is zero or wrong: where its module ended in the pass, and what is wrong."""

    end: int
    note: Note


@dataclass
class _Call:
    """One call of a module in forward mode: inputs, their directions, and outputs."""

    module: nn.Module
    end: int
    inputs: Any
    directions: list[Tensor | None]
    primals: list[Tensor]
    tangents: list[Tensor]


class Watch:
    """Hooks on every module of a network that store its calls in forward mode, for a comparison after the pass.

    ``rounding`` is the coarsest rounding of any output: autocast and half precision inside a network limit the
    comparison. Without a network nothing is stored.
    """

    def __init__(self, network: nn.Module | None) -> None:
        self.network = network
        self.names = {} if network is None else {module: name for name, module in network.named_modules()}
        self.rounding = 0.0
        self._under_way: list[tuple[Any, list[Tensor | None]]] = []  # outermost first
        self._calls: dict[nn.Module, _Call] = {}
        self._ended: list[nn.Module] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Watch:
        for module in self.names:
            self._handles += [
                module.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True),
                module.register_forward_hook(self._after, with_kwargs=True),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Store the inputs and their tangents, because a module may overwrite them."""
        leaves, shape = tree_flatten((args, kwargs))
        pairs = [_unpacked(leaf) if isinstance(leaf, Tensor) else (leaf, None) for leaf in leaves]
        primals = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf, _ in pairs]
        tangents = [None if tangent is None else tangent.clone() for _, tangent in pairs]
        self._under_way.append((tree_unflatten(primals, shape), tangents))

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Store the first call of a module with a tangent in its input, with a copy of its output."""
        inputs, directions = self._under_way.pop()
        self._ended.append(module)
        pairs = [_unpacked(tensor) for tensor in _numbers(output)]
        for primal, _ in pairs:
            self.rounding = max(self.rounding, torch.finfo(primal.dtype).eps)
        if module in self._calls or all(direction is None for direction in directions):
            return
        if type(module) in (nn.Sequential, Chain):  # computes nothing of its own
            return
        tangents = [_tangent_or_zero(primal, tangent).clone() for primal, tangent in pairs]
        primals = [primal.clone() for primal, _ in pairs]
        self._calls[module] = _Call(module, len(self._ended), inputs, directions, primals, tangents)

    def end_of(self, tap: str) -> int:
        """Return how many modules had ended when a tap was read; all of them where no module has its name."""
        name, _, turn = tap.partition("@")
        last = len(self._ended)
        if self.network is None:
            return last
        modules = dict(self.network.named_modules(remove_duplicate=False))
        module = modules.get(f"network.{name}") or modules.get(name)
        ends = [end for end, ended in enumerate(self._ended, start=1) if ended is module]
        if not ends:
            return last
        return ends[int(turn) - 1] if turn.isdecimal() and int(turn) <= len(ends) else ends[-1]

    def first_fault(self, steps: Steps, last: float = math.inf) -> Fault | None:
        """Return the first module, innermost first, whose tangent is wrong, among those that ended up to ``last``."""
        for call in self._calls.values():
            if call.end > last:
                return None
            error = self._error_of(call, steps)
            if error is not None:
                where = _called(call.module, self.names[call.module])
                return Fault(call.end, _complaint(where, error, call.tangents))
        return None

    def _error_of(self, call: _Call, steps: Steps) -> float | None:
        """Return the relative error of a module's tangents; None: they agree, or the module cannot be run alone."""
        leaves, shape = tree_flatten(call.inputs)
        moving = [i for i, tangent in enumerate(call.directions) if tangent is not None]

        def run(values: Sequence[Tensor]) -> list[list[Tensor]]:
            fresh = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            for i, value in zip(moving, values, strict=True):
                fresh[i] = value
            args, kwargs = tree_unflatten(fresh, shape)
            with code_of(self.network):
                return [_numbers(call.module(*args, **kwargs))]

        ways = [tangent for tangent in call.directions if tangent is not None]
        try:
            (error,) = _disagreements(
                run, [leaves[i] for i in moving], ways, [call.primals], [call.tangents], steps, self.rounding
            )
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception:  # a module that only works within its network is checked with the network
            return None
        return error


def _disagreements(
    function: Callable[[Sequence[Tensor]], list[list[Tensor]]],
    inputs: Sequence[Tensor],
    directions: Sequence[Tensor],
    outputs: Sequence[Sequence[Tensor]],
    tangents: Sequence[Sequence[Tensor]],
    steps: Steps,
    rounding: float = 0.0,
) -> list[float | None]:
    """Return the smallest relative distance of each output's tangents from a finite difference; None: they agree.

    An output is a group of tensors. One that is not finite is left to the measurement, which reports it.
    """
    length = _norm(directions)
    sizes = [_norm(group) for group in outputs]
    unsettled = [i for i, size in enumerate(sizes) if length > 0 and outputs[i] and math.isfinite(size)]
    unit = (_norm(inputs) or 1.0) / (length or 1.0)
    errors: list[float | None] = [math.inf if i in unsettled else None for i in range(len(outputs))]
    for step in steps.sizes:
        if not unsettled:
            break
        h = step * unit
        ahead, behind = (
            function([x + sign * h * v for x, v in zip(inputs, directions, strict=True)]) for sign in (1, -1)
        )
        for i in tuple(unsettled):
            slopes = [(a - b) / (2 * h) for a, b in zip(ahead[i], behind[i], strict=True)]
            gap = _norm([slope - tangent for slope, tangent in zip(slopes, tangents[i], strict=True)])
            scale = max(_norm(slopes), _norm(tangents[i]))
            # both ends of the difference are rounded
            blur = max(steps.negligible * sizes[i] / unit, rounding * sizes[i] / h)
            if gap <= max(steps.tolerance * scale, blur):
                errors[i] = None
                unsettled.remove(i)
            elif math.isfinite(gap):
                errors[i] = min(errors[i] or math.inf, gap / scale)
    return errors


def _complaint(operator: str, error: float, tangents: Sequence[Tensor]) -> Note:
    if _norm(tangents) == 0:
        return Note.of("tangent-zero", operator=operator)
    if math.isfinite(error):
        return Note.of("tangent-wrong", operator=operator, error=error)
    return Note.of("tangent-not-finite", operator=operator)


@contextmanager
def _named_failure(model: Model) -> Iterator[None]:
    """Name the innermost running module when forward mode fails."""
    under_way: list[str] = []
    handles: list[torch.utils.hooks.RemovableHandle] = []
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            called = _called(module, name)
            handles += [
                module.register_forward_pre_hook(lambda *_, called=called: under_way.append(called)),
                module.register_forward_hook(lambda *_: _pop(under_way)),
            ]
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        where = under_way[-1] if under_way else type(model).__name__
        first = one_line(error).split(". ")[0]
        raise NotMeasurableError(Note.of("no-forward-mode", operator=where, error=first)) from error
    finally:
        for handle in handles:
            handle.remove()


def _pop(under_way: list[str]) -> None:  # a hook's result would replace the output
    under_way.pop()


def _called(module: nn.Module, name: str) -> str:
    return f"{name or 'the network'} ({type(module).__name__})"


def _in_double(model: Model, images: Tensor) -> tuple[Model, Tensor]:
    """Return a copy of the network in float64 with its images; the network itself where that does not run."""
    if isinstance(model, nn.Module):
        try:
            trial = copy.deepcopy(model).double()
            trial.features(images.double())
        except Exception:  # operators for float32 alone, devices without float64, no copying
            return model, images
        return trial, images.double()
    return model, images


def _dual(tensor: Tensor, tangent: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # at first use torch compiles formulas of its own in a way that it has deprecated
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
        dual: Tensor = forward_ad.make_dual(tensor.contiguous(), tangent)  # type: ignore[no-untyped-call]
    return dual


def _unpacked(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    pair = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return pair.primal, pair.tangent


def _tangent_or_zero(primal: Tensor, tangent: Tensor | None) -> Tensor:
    return torch.zeros_like(primal) if tangent is None else tangent


def _numbers(output: Any) -> list[Tensor]:
    """Return the tensors of real or complex numbers in a module's output, whatever its structure."""
    leaves = tree_leaves(output)
    return [t for t in leaves if isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())]


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(tensor)) for tensor in tensors))
