"""Forward mode: the derivative of every tap along a direction, and the check that every operator has a true one.

Some operators return a zero tangent in forward mode without a word (``torchvision.ops.deform_conv2d`` does), and a
foreign ``autograd.Function`` may hold a wrong one. A Lie derivative through them would be wrong and look right.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from secli.equivariance.features import tensors
from secli.errors import SecliError
from secli.layers.chain import Chain
from secli.models.contract import Features, Model


class Steps(NamedTuple):
    """How a tangent is compared with a finite difference in one arithmetic.

    Attributes
    ----------
    sizes
        Relative step sizes, tried in turn until one agrees: kinks (ReLU, max) want small steps, rounding large ones.
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


class Derivative(NamedTuple):
    """The taps and their derivative along the direction, from one forward pass.

    Attributes
    ----------
    features
        Φ(f) at every tap.
    tangents
        J Φ(f)[v], in the same shapes; one tensor per resolution.
    """

    features: dict[str, Features]
    tangents: dict[str, list[Tensor]]


@contextmanager
def forward_mode() -> Iterator[None]:
    """Open a level of forward-mode differentiation, with attention on its plain (math) backend and no gradients."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def directional_derivative(
    model: Model, images: Float[Tensor, "n c h w"], direction: Float[Tensor, "n c h w"]
) -> Derivative:
    """Return Φ(f) and J Φ(f)[v] at every tap, by forward-mode differentiation in one pass.

    Parameters
    ----------
    model : Model
        A network, in eval mode, on the images' device.
    images, direction : tensor (N, C, H, W)
        f and v.

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
    """Check once that forward mode differentiates every operator of a network as a finite difference does.

    One image goes through the network in forward mode along a random direction, in float64 where the network runs in
    it; it is averaged with noise, because the black parts of pictures lie on the kink of ReLU. Behind every module,
    innermost first, the tangent of its output is compared with ``(m(x + h·v) − m(x − h·v)) / 2h`` for its own input
    x and tangent v, at several h; what a module computes by functions between its children is so checked with the
    module (a plain chain of modules computes nothing of its own). At last the taps are checked from the image on,
    for what happens outside all modules.

    Parameters
    ----------
    model : Model
        A network, in eval mode, on the images' device; left as it was.
    images : tensor (N, C, H, W)
        Some images it will be measured on, in the type of its weights.

    Raises
    ------
    SecliError
        When a tangent is missing, zero or wrong: the measurement cannot be done rightly, although its input was
        proper. The message names the module (its path and class) or the tap.
    """
    generator = torch.Generator().manual_seed(0)
    shape = images[:1].shape
    noise = torch.rand(shape, generator=generator)
    direction = torch.randn(shape, generator=generator).to(images)
    probe = (images[:1] + noise.to(images)) / 2
    with torch.no_grad():
        trial, probe = _in_double(model, probe)
    direction = direction.to(probe)
    steps = FINE if probe.dtype == torch.float64 else COARSE
    with ExitStack() as stack:
        watch = None
        if isinstance(trial, nn.Module):
            watch = stack.enter_context(_Watch(trial, steps))
        derivative = directional_derivative(trial, probe, direction)
    if watch is not None and watch.complaint is not None:
        raise SecliError(watch.complaint)
    _check_taps(trial, probe, direction, derivative, steps)


def _check_taps(trial: Model, probe: Tensor, direction: Tensor, derivative: Derivative, steps: Steps) -> None:
    def features(inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        with torch.no_grad():
            outputs = trial.features(inputs[0])
        return [tensors(outputs[tap]) for tap in derivative.tangents]

    own = [tensors(derivative.features[tap]) for tap in derivative.tangents]
    groups = list(derivative.tangents.values())
    errors = _disagreements(features, [probe], [direction], own, groups, steps)
    for (tap, tangents), error in zip(derivative.tangents.items(), errors, strict=True):
        if error is not None:
            raise SecliError(_complaint(f"tap '{tap}' of {type(trial).__name__}", error, tangents))


class _Watch:
    """Hooks on every module of a network that compare its tangents with finite differences, innermost first."""

    def __init__(self, network: nn.Module, steps: Steps) -> None:
        self.network = network
        self.steps = steps
        self.names = {module: name for name, module in network.named_modules()}
        self.inputs: list[tuple[Any, list[Tensor | None]]] = []  # of the modules under way, outermost first
        self.checked: set[nn.Module] = set()
        self.complaint: str | None = None
        self.busy = False
        self.handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> _Watch:
        for module in self.names:
            if type(module) in (nn.Sequential, Chain):
                continue
            self.handles += [
                module.register_forward_pre_hook(self.before, with_kwargs=True, prepend=True),
                module.register_forward_hook(self.behind, with_kwargs=True),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the inputs and their tangents, because a module may overwrite them."""
        if self.busy:
            return
        leaves, shape = tree_flatten((args, kwargs))
        pairs = [_unpacked(leaf) if isinstance(leaf, Tensor) else (leaf, None) for leaf in leaves]
        primals = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf, _ in pairs]
        tangents = [None if tangent is None else tangent.clone() for _, tangent in pairs]
        self.inputs.append((tree_unflatten(primals, shape), tangents))

    def behind(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Compare the tangents of the output, once per module."""
        if self.busy:
            return
        inputs, directions = self.inputs.pop()
        if self.complaint is None and module not in self.checked and any(d is not None for d in directions):
            self.checked.add(module)
            self.busy = True
            try:
                self.complaint = self.compare(module, inputs, directions, output)
            finally:
                self.busy = False

    def compare(
        self, module: nn.Module, inputs: Any, directions: Sequence[Tensor | None], output: Any
    ) -> str | None:
        """Return what is wrong with a module's tangents, or None."""
        leaves, shape = tree_flatten(inputs)
        moving = [i for i, tangent in enumerate(directions) if tangent is not None]

        def run(values: Sequence[Tensor]) -> list[list[Tensor]]:
            fresh = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            for i, value in zip(moving, values, strict=True):
                fresh[i] = value
            args, kwargs = tree_unflatten(fresh, shape)
            return [_numbers(module(*args, **kwargs))]

        pairs = [_unpacked(tensor) for tensor in _numbers(output)]
        tangents = [_tangent_or_zero(primal, tangent) for primal, tangent in pairs]
        ways = [tangent for tangent in directions if tangent is not None]
        primals = [primal for primal, _ in pairs]
        (error,) = _disagreements(run, [leaves[i] for i in moving], ways, [primals], [tangents], self.steps)
        if error is None:
            return None
        return _complaint(_called(module, self.names[module]), error, tangents)


def _disagreements(
    function: Callable[[Sequence[Tensor]], list[list[Tensor]]],
    inputs: Sequence[Tensor],
    directions: Sequence[Tensor],
    outputs: Sequence[Sequence[Tensor]],
    tangents: Sequence[Sequence[Tensor]],
    steps: Steps,
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
            if gap <= max(steps.tolerance * scale, steps.negligible * sizes[i] / unit):
                errors[i] = None
                unsettled.remove(i)
            elif math.isfinite(gap):
                errors[i] = min(errors[i] or math.inf, gap / scale)
    return errors


def _complaint(where: str, error: float, tangents: Sequence[Tensor]) -> str:
    if _norm(tangents) == 0:
        finding = "is silently zero"
    elif math.isfinite(error):
        finding = f"is {error:.0%} off"
    else:
        finding = "is not finite"
    return (
        f"{where}: its forward-mode derivative {finding} by a finite difference, so no Lie derivative can be measured "
        "through it; give it an operator that forward mode differentiates, or leave the Lie derivative out"
    )


@contextmanager
def _named_failure(model: Model) -> Iterator[None]:
    """Name the innermost module under way when forward mode fails."""
    under_way: list[str] = []
    handles: list[torch.utils.hooks.RemovableHandle] = []
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            called = _called(module, name)
            handles += [
                module.register_forward_pre_hook(lambda *_, called=called: under_way.append(called)),
                module.register_forward_hook(lambda *_: _left(under_way)),
            ]
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        where = under_way[-1] if under_way else type(model).__name__
        reason = str(error).split("\n")[0].split(". ")[0]
        raise SecliError(
            f"{where}: it cannot be differentiated in forward mode, so no Lie derivative can be measured ({reason})"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _left(under_way: list[str]) -> None:
    under_way.pop()


def _called(module: nn.Module, name: str) -> str:
    return f"{name or 'the network'} ({type(module).__name__})"


def _in_double(model: Model, images: Tensor) -> tuple[Model, Tensor]:
    """Return a copy of the network in float64 with its images; the network as it is where that does not run."""
    if isinstance(model, nn.Module):
        try:
            trial = copy.deepcopy(model).double()
            trial.features(images.double())
        except (RuntimeError, TypeError):  # operators for float32 alone, devices without float64, no copying
            return model, images
        return trial, images.double()
    return model, images


def _dual(tensor: Tensor, tangent: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # at first use torch compiles formulas of its own in a way that it warns of itself
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
