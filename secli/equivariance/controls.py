"""Control networks of a curve: identity, pointwise, the same network untrained, a plain CNN of its size.

``identity`` and ``pointwise`` have one tap of that name, which is a floor for every panel of a plot. ``untrained`` has
the taps of the network itself, panel by panel. ``plain cnn`` has ``conv1``, ``block1``, ``block2``, ``conv3``,
``block3`` and ``logits``, like the ``mnist_*`` networks: panels of the same name correspond, and in other networks its
taps have panels of their own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from secli.action.fields import Canvas, Field, Invariant, Plane
from secli.action.images import rescale
from secli.catalogue import MODELS
from secli.config import MeasureSettings
from secli.equivariance.batching import batch_size, batches
from secli.equivariance.cell_error import TapError, squared_size
from secli.equivariance.evaluation_mode import full_precision
from secli.errors import InputError, SecliError, one_line
from secli.external.foreign_code import source_line
from secli.external.hooked_model import ExternalModel, code_of
from secli.external.targets import load_target
from secli.layers.pooling import BatchNorm
from secli.models.building import build, count_parameters, resolve_options
from secli.models.contract import Features, Model, Stage, StagedModel
from secli.models.entrance import chain, entrance
from secli.records.schema import ModelInfo

POINTWISE_CHANNELS = 16
PLAIN_TOLERANCE = 0.05
"""A plain CNN counts as of the same size when its parameters differ by at most this share."""

_KERNEL = 7
_BODY = "mnist_cnn_28"


class Pointwise(nn.Module):
    """A random 1×1 convolution and ReLU: exactly equivariant in the continuum, not on a grid.

    ``y_o(x) = max(0, Σ_c w_oc (x_c − θ_oc))``, w normal with variance 1/C and θ uniform in [0, 1], so that every
    channel has its kink among the values of pixels (a bias drawn otherwise leaves most channels linear, and
    the reading to chance). Its error is the cost of sampling a nonlinearity.

    The seed of its weights is the same everywhere, so that readings compare. They depend on the draw: 0.06 ± 0.02 over
    twenty seeds at s = 0.5 on MNIST; the default is the draw nearest to their mean. Maps (N, C, …) to (N, width, …),
    with any further axes.
    """

    def __init__(self, channels: int, width: int = POINTWISE_CHANNELS, seed: int = 2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(width, channels, generator=generator) / math.sqrt(channels))
        kinks = torch.rand(width, channels, generator=generator)
        self.bias = nn.Parameter(-(self.weight.detach() * kinks).sum(1))

    def forward(self, features: Float[Tensor, "n c *axes"]) -> Float[Tensor, "n o *axes"]:
        """Return the mixed channels, rectified."""
        mixed = self.weight @ features.flatten(2) + self.bias.unsqueeze(1)
        return mixed.relu().reshape(len(features), -1, *features.shape[2:])


class OneTap(nn.Module):
    """A network of one tap, on the image's own grid, and no classifier: its logits have one column.

    The module maps (N, C, H, W) to (N, C', H, W).
    """

    def __init__(self, tap: str, module: nn.Module) -> None:
        super().__init__()
        self.tap = tap
        self.module = module

    @property
    def taps(self) -> dict[str, Field]:
        """The one tap: a plane."""
        return {self.tap: Plane()}

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """The one stage."""
        return [(self.tap, self.module)]

    def features(self, images: Float[Tensor, "n c h w"]) -> dict[str, Features]:
        """Return the features, and their mean as the only logit."""
        features = self.module(images)
        return {self.tap: features, "logits": features.flatten(1).mean(1, keepdim=True)}

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1"]:
        """Return the mean of the features."""
        features: Tensor = self.module(images)
        return features.flatten(1).mean(1, keepdim=True)


def controls(
    model: Model,
    *,
    name: str,
    options: Mapping[str, Any],
    parameters: int,
    image_shape: tuple[int, int, int],
    classes: int,
    seed: int,
    on_missing: Callable[[str, str], None] | None = None,
) -> list[tuple[str, Model, ModelInfo]]:
    """Return the controls of a network, in eval mode: (control, network, its entry in a record).

    They are ``identity``, whose error is 0 exactly; ``pointwise``; ``untrained``, the same network with fresh weights;
    ``plain cnn``, of the same number of parameters within 5 %.

    Parameters
    ----------
    name, options
        The network's registry name with all its options, or a foreign network's name.
    parameters : int
        Number of its learned parameters.
    image_shape : tuple of int
        (C, H, W) of the images.
    seed : int
        Seed of fresh weights.
    on_missing : callable, optional
        Called with (control, reason) for a control that cannot be built; it is left out of the list.
    """
    channels, height, width = image_shape
    found: list[tuple[str, Model, ModelInfo]] = []

    def add(control: str, make: Callable[[], tuple[Model, str, Mapping[str, Any]]]) -> None:
        try:
            network, called, settings = make()
        except SecliError as error:
            if on_missing is not None:
                on_missing(control, str(error))
            return
        assert isinstance(network, nn.Module)
        size = count_parameters(network)
        info = ModelInfo(name=called, options=dict(settings), parameters=size)
        network.eval()
        found.append((control, network, info))

    def pointwise() -> tuple[Model, str, Mapping[str, Any]]:
        network = OneTap("pointwise", Pointwise(channels))
        return network, "pointwise", {"channels": POINTWISE_CHANNELS}

    add("identity", lambda: (OneTap("identity", nn.Identity()), "identity", {}))
    add("pointwise", pointwise)
    fresh = {key: value for key, value in options.items() if not key.startswith("weights")}
    add("untrained", lambda: (untrained(model, name, options, seed), name, fresh))
    add("plain cnn", lambda: plain_cnn(parameters, channels, (height, width), classes, seed, name, options))
    return found


def untrained(model: Model, name: str, options: Mapping[str, Any], seed: int) -> Model:
    """Return the same network with fresh weights.

    A registered one is built anew, and so is one of torchvision or timm. Any other is copied, because its factory
    may load weights; every module draws its own anew by ``reset_parameters``: torch's default draws, without any
    further initialisation by the network's own code. The caller's random state is restored.

    Raises
    ------
    SecliError
        When modules cannot draw their weights anew.
    """
    if name in MODELS:
        return build(name, options, seed)
    libraries = ("torchvision:", "timm:")  # they build networks without weights
    if isinstance(model, ExternalModel) and str(model.description.get("target", "")).startswith(libraries):
        return _rebuilt(model, seed)
    if not isinstance(model, nn.Module):
        raise SecliError(f"{name}: no torch module, so its weights cannot be drawn anew")
    stuck = [
        f"{path}.{weight}" if path else weight
        for path, module in model.named_modules()
        if _reset_of(module) is None
        for weight, _ in module.named_parameters(recurse=False)
    ]
    if stuck:
        listed = ", ".join(stuck[:3]) + (", …" if len(stuck) > 3 else "")
        raise SecliError(
            f"{name}: {len(stuck)} of its weights belong to modules without reset_parameters ({listed})"
        )
    try:
        with code_of(model), torch.random.fork_rng(devices=[]):
            fresh = copy.deepcopy(model)
            torch.manual_seed(seed)
            for module in fresh.modules():
                reset = _reset_of(module)
                if reset is not None:
                    reset()
    except Exception as error:  # foreign code
        raise SecliError(
            f"{name}: its weights cannot be drawn anew ({source_line(error)}: {one_line(error)})"
        ) from None
    return fresh


def _rebuilt(model: ExternalModel, seed: int) -> ExternalModel:
    """Return a foreign network with fresh weights of its library; taps and fields stay."""
    channels, height, width = model.description["input"]
    shape = (channels, height, width)
    drawn = load_target(model.description["target"], shape, None, offline=True, seed=seed)
    fresh = copy.deepcopy(model).cpu()
    fresh.network.load_state_dict(drawn.network.state_dict())
    fresh.description = {**model.description, "weights": None, "weights_sha256": None}
    return fresh


def _reset_of(module: nn.Module) -> Callable[[], None] | None:
    """Return the method that draws a module's weights anew (private in torch's attention), if there is one."""
    for name in ("reset_parameters", "_reset_parameters"):
        reset: Callable[[], None] | None = getattr(module, name, None)
        if callable(reset):
            return reset
    return None


def plain_cnn(
    parameters: int,
    channels: int,
    size: tuple[int, int],
    classes: int,
    seed: int,
    name: str = "",
    options: Mapping[str, Any] | None = None,
) -> tuple[Model, str, Mapping[str, Any]]:
    """Return a plain CNN with a number of learned parameters, within 5 %; its name and options.

    A registered network (``name``, ``options``) that takes all the options of ``mnist_cnn_28`` has its body, and where
    the sizes agree ``mnist_cnn_28`` itself, on the same grid, is the plain CNN. For all others three 7×7 convolutions,
    2w, 4w and about 6w wide, as far as they come close. ``size`` is height and width of the images; the caller's random
    state is restored.

    Raises
    ------
    SecliError
        When no width comes within 5 %, or the images are smaller than 4 pixels.
    """
    given = dict(options or {})
    if name in MODELS:
        shared = resolve_options(MODELS[_BODY])
        if all(key in given for key in shared):
            taken = {key: given[key] for key in shared}
            twin = build(_BODY, taken, seed)
            if _near(count_parameters(twin), parameters):
                return twin, _BODY, taken
    if min(size) < 4:
        raise SecliError(f"images of {size[0]}×{size[1]} pixels are too small for a plain CNN")
    widths = plain_widths(parameters, channels, classes)
    mean, std = (_per_channel(given.get(key, usual)) for key, usual in (("mean", 0.5), ("std", 0.25)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _plain(widths, channels, size, classes, mean, std)
    settings = {"widths": list(widths), "kernel": _KERNEL, "mean": mean, "std": std, "classes": classes}
    return network, "plain cnn", settings


def _per_channel(value: Any) -> Any:
    """Return a list of a record as the tuple of a model's option."""
    return tuple(value) if isinstance(value, list) else value


def plain_widths(parameters: int, channels: int, classes: int) -> tuple[int, int, int]:
    """Return widths of three convolutions whose network has a number of parameters, within 5 %.

    The count is quadratic in the widths, so the first one follows by a search over all that fit; the last one,
    in which the count is linear, then makes up for the rounding.

    Raises
    ------
    SecliError
        When there are none.
    """
    best: tuple[float, tuple[int, int, int]] | None = None
    for widths in _width_candidates(parameters, channels, classes):
        distance = (
            abs(math.log(plain_size(widths, channels, classes) / parameters)) if parameters else math.inf
        )
        uneven = abs(math.log(widths[2] / (3 * widths[0]))) + abs(math.log(widths[1] / (2 * widths[0])))
        # among those of the right size the one nearest to 1 : 2 : 3; else the nearest size
        near = _near(plain_size(widths, channels, classes), parameters)
        score = uneven if near else 1e3 + distance
        if best is None or score < best[0]:
            best = (score, widths)
    if best is None or not _near(plain_size(best[1], channels, classes), parameters):
        raise SecliError(
            f"no plain CNN for {channels} channels and {classes} classes has about {parameters} parameters"
        )
    return best[1]


def plain_size(widths: Sequence[int], channels: int, classes: int) -> int:
    """Return the number of parameters of the plain CNN: convolutions with bias, three batch norms, one linear layer.

    Examples
    --------
    >>> plain_size((1, 1, 1), 1, 1)
    161
    """
    area = _KERNEL**2
    a, b, c = widths
    convolutions = a * (channels * area + 1) + b * (a * area + 1) + c * (b * area + 1)
    return convolutions + 2 * (a + b + c) + classes * (4 * c + 1)


def _width_candidates(parameters: int, channels: int, classes: int) -> Iterator[tuple[int, int, int]]:
    area = _KERNEL**2
    # Σ ≥ area · (2 + 6) w² for widths w, 2w, 3w
    for a in range(1, 2 + math.isqrt(parameters // (8 * area) + 1) * 2):
        for b in sorted({a, max(1, round(1.5 * a)), 2 * a, 3 * a}):
            fixed = plain_size((a, b, 0), channels, classes)
            exact = (parameters - fixed) / (b * area + 1 + 2 + 4 * classes)
            for c in {math.floor(exact), math.ceil(exact)}:
                if c >= 1:
                    yield a, b, c


def _near(size: int, target: int) -> bool:
    return abs(size - target) <= PLAIN_TOLERANCE * target


def _plain(
    widths: tuple[int, int, int],
    channels: int,
    size: tuple[int, int],
    classes: int,
    mean: Any,
    std: Any,
) -> StagedModel:
    """Assemble conv1 → block1 → block2 → conv3 → block3 → logits, for any image size."""
    a, b, c = widths
    try:
        before = entrance(channels, mean, std)
    except ValueError as error:
        raise InputError(f"plain cnn: {error}") from None

    def conv(inputs: int, outputs: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, _KERNEL, padding=_KERNEL // 2)

    def halved(times: int) -> Plane:
        stride = 2.0**times
        cells = [side // 2**times for side in size]
        # windows start at the first pixel, so an odd row or column is dropped at the far end
        centred = all(count * stride == side for count, side in zip(cells, size, strict=True))
        return Plane(stride=stride, origin=None if centred else (stride - 1) / 2)

    quarter = halved(2)
    last = Plane(stride=(4.0 * (size[0] // 4) / 2, 4.0 * (size[1] // 4) / 2))
    return StagedModel(
        [
            Stage("conv1", chain(**before, conv=conv(channels, a)), Plane()),
            Stage("block1", chain(relu=nn.ReLU(), pool=nn.MaxPool2d(2), norm=BatchNorm(a)), halved(1)),
            Stage(
                "block2",
                chain(conv=conv(a, b), relu=nn.ReLU(), pool=nn.MaxPool2d(2), norm=BatchNorm(b)),
                quarter,
            ),
            Stage("conv3", chain(conv=conv(b, c), relu=nn.ReLU()), quarter),
            Stage("block3", chain(pool=nn.AdaptiveMaxPool2d(2), norm=BatchNorm(c)), last),
            Stage("logits", chain(flatten=nn.Flatten(), classify=nn.Linear(4 * c, classes)), Invariant()),
        ]
    )


def pointwise_readings(
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    factors: Sequence[float],
    settings: MeasureSettings,
    *,
    device: torch.device | str = "cpu",
) -> dict[float, float]:
    """Return the mean error of the pointwise control by factor: a smaller Δ is below the cost of sampling a ReLU.

    The first ``settings.images`` images are taken, float in [0, 1] or uint8; a factor at which nothing could be
    measured is missing. InputError without images.
    """
    if len(images) == 0:
        raise InputError("there are no images to measure on")
    images = images[: settings.images]
    canvas = Canvas(images.shape[-2], images.shape[-1], border=settings.border or 0.0)
    control = Pointwise(images.shape[1]).to(device)
    cells = {factor: TapError(Plane(), factor, settings.metric, floor=False) for factor in factors}
    with torch.inference_mode(), full_precision():
        empty = control(torch.zeros(1, *images.shape[1:], device=device))
        if settings.background == "none":
            empty = torch.zeros_like(empty)

        def read(batch: Tensor, cells: Mapping[float, TapError]) -> None:
            base = control(batch)
            centred, own = base - empty, squared_size([base])
            for factor, cell in cells.items():
                there = control(rescale(batch, factor, canvas.blur))
                cell.add(base, there, centred, there - empty, canvas, own)

        trial = {0.7: TapError(Plane(), 0.7, settings.metric, floor=False)}
        size = batch_size(settings.batch, images, lambda few: read(few, trial), device, torch.float32)
        for batch in batches(images, size, device, torch.float32):
            read(batch, cells)
    rows = {factor: cell.row("pointwise", len(images)) for factor, cell in cells.items()}
    return {factor: row.mean for factor, row in rows.items() if row.mean is not None}
