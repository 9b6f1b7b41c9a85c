"""The check of forward mode: right operators pass, broken ones are caught and named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import DeformConv2d, deform_conv2d

from secli.action.fields import Field, Invariant, Plane
from secli.equivariance.forward_mode import check_tangents, directional_derivative, tangent_faults
from secli.errors import SecliError
from secli.external.field_text import AsIs
from secli.external.hooked_model import ExternalModel
from secli.layers.deformable import DeformConv
from secli.models.building import build
from secli.models.contract import Features, Stage, StagedModel


def network(module: nn.Module, field: Field | None = None) -> StagedModel:
    return StagedModel([Stage("tap", module, field or Plane())]).eval()


class Square(torch.autograd.Function):
    """x², whose tangent is multiplied by what stands in ``share``: 1 is right."""

    share = 1.0

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_forward(inputs[0])

    @classmethod
    def jvp(cls, ctx: Any, tangent: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        return cls.share * 2 * x * tangent


class Halved(Square):
    share = 0.5


class Silent(Square):
    share = 0.0


class Missing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Apply(nn.Module):
    """A leaf module around one of these functions."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function.apply(x)
        return y


class Between(nn.Module):
    """A function called between two layers, in no module of its own."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.before, self.behind, self.function = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 3), function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.behind(self.function.apply(self.before(x)))
        return y


class Deforming(nn.Module):
    """A foreign network that calls torchvision's operator directly."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.weight = nn.Conv2d(1, 18, 3), nn.Parameter(torch.randn(4, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = deform_conv2d(x, self.offset(x), self.weight)
        return y


class DeformingModule(nn.Module):
    """The same through torchvision's module."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.conv = nn.Conv2d(1, 18, 3), DeformConv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x, self.offset(x))
        return y


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


REFUSED_OR_ZERO = "(its forward-mode derivative is silently zero|it cannot be differentiated in forward mode)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Apply(Halved),
            r"tap \(Apply\): its forward-mode derivative is 50% off by a finite difference",
        ),
        (lambda: Apply(Silent), r"tap \(Apply\): its forward-mode derivative is silently zero"),
        (lambda: Between(Halved), r"tap \(Between\): its forward-mode derivative is \d+% off"),
        (lambda: Between(Silent), r"tap \(Between\): its forward-mode derivative is silently zero"),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.Sequential(nn.ReLU(), Apply(Silent))),
            r"tap\.1\.1 \(Apply\): .* silently",
        ),
        (lambda: Apply(Missing), r"tap \(Apply\): it cannot be differentiated in forward mode.*jvp"),
        (lambda: Between(Missing), r"tap \(Between\): it cannot be differentiated"),
        # torchvision's own operator: older versions refuse, newer ones give zero
        (lambda: DeformingModule(), rf"tap\.conv \(DeformConv2d\): {REFUSED_OR_ZERO}"),
        (lambda: Deforming(), rf"tap \(Deforming\): {REFUSED_OR_ZERO}"),
    ],
)
def test_a_broken_tangent_is_caught_and_named_in_one_line(
    digits: Tensor, make: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(SecliError, match=f"^{message}") as caught:
        check_tangents(network(make()), digits)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_the_error_is_innermost_although_everything_outside_is_wrong_too(digits: Tensor) -> None:
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), Apply(Halved), nn.Conv2d(2, 2, 3), nn.ReLU())
    with pytest.raises(SecliError, match=r"^tap\.0\.1 \(Apply\)"):
        check_tangents(network(nn.Sequential(inner, nn.Tanh())), digits)


class OutsideModules:
    """A network that is no torch module: only its taps can be checked."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        self.function = function

    @property
    def taps(self) -> dict[str, Field]:
        return {"first": Plane(), "second": Plane()}

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        return []

    def features(self, images: Float[Tensor, "n c h w"]) -> dict[str, Features]:
        return {"first": images.sin(), "second": self.function.apply(images.sin())}

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return images.flatten(1)


def test_what_happens_outside_all_modules_is_checked_at_the_taps(digits: Tensor) -> None:
    check_tangents(OutsideModules(Square), digits.double())
    with pytest.raises(SecliError, match=r"^tap 'second' of OutsideModules: .* 50% off"):
        check_tangents(OutsideModules(Halved), digits.double())


class Attention(nn.Module):
    """Attention over the pixels, by torch's module (twice: the fused paths differ) and by its function."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.MultiheadAttention(4, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = functional.avg_pool2d(x, 4).flatten(2).mT.repeat(1, 1, 4)
        tokens = tokens * torch.linspace(0.5, 2, 4).to(x)
        tokens = tokens + self.module(tokens, tokens, tokens, need_weights=False)[0]
        tokens = self.layer(tokens)
        return functional.scaled_dot_product_attention(tokens, tokens, tokens)


class SinglePrecisionInside(nn.Module):
    """Computes in float32 whatever it is given, as many normalisations do."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x.float(), x.shape[1:]).to(x.dtype).relu()


class OnlySingle(nn.Module):
    """Refuses float64."""

    def __init__(self, function: type[torch.autograd.Function] = Square) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(1, 4, 5), Apply(function)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise RuntimeError("not in float64")
        y: Tensor = self.function(self.conv(x).relu())
        return y


def deformed(modulated: bool) -> DeformConv:
    layer = DeformConv(1, 4, 3, padding=1, modulated=modulated)
    nn.init.normal_(layer.offset.weight, std=0.3)
    nn.init.normal_(layer.offset.bias, std=0.5)  # type: ignore[arg-type]
    return layer


@pytest.mark.parametrize(
    "module",
    [
        Apply(Square),
        nn.Identity(),
        nn.Sequential(
            nn.Conv2d(1, 6, 5, bias=False), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.BatchNorm2d(6)
        ),
        nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.GELU(), nn.Upsample(scale_factor=2, mode="bicubic"), nn.Hardtanh()
        ),
        nn.Sequential(nn.Flatten(), nn.Linear(784, 9), nn.LayerNorm(9), nn.Softmax(1)),
        nn.LayerNorm((1, 28, 28), elementwise_affine=False),
        deformed(modulated=False),
        deformed(modulated=True),
        Attention(),
        SinglePrecisionInside(),
        OnlySingle(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_right_operators_pass(digits: Tensor, module: nn.Module) -> None:
    check_tangents(network(module), digits)


def test_the_check_bites_in_single_precision_too(digits: Tensor) -> None:
    with pytest.raises(SecliError, match=r"tap\.function \(Apply\): .* 50% off"):
        check_tangents(network(OnlySingle(Halved)), digits)


def test_black_pictures_lie_on_the_kink_of_relu_and_pass(digits: Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2))
    check_tangents(network(module), torch.zeros_like(digits))


@pytest.mark.parametrize("name", ["cnn", "dcn_v2", "dss_v1", "mnist_ses_vector_28", "mnist_dss_scalar_28"])
def test_networks_of_the_registry_pass(digits: Tensor, name: str) -> None:
    check_tangents(build(name).eval(), digits)


def test_a_network_whose_features_are_not_finite_is_left_to_the_measurement(digits: Tensor) -> None:
    broken = nn.Conv2d(1, 1, 1)
    nn.init.constant_(broken.weight, math.nan)
    check_tangents(network(broken), digits)


def test_the_network_is_left_as_it_was(digits: Tensor) -> None:
    model = network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = torch.backends.mha.get_fastpath_enabled()
    check_tangents(model, digits)
    directional_derivative(model, digits, digits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(tensor.dtype == before[name].dtype for name, tensor in model.state_dict().items())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert torch.is_grad_enabled()


def test_the_derivative_of_every_tap_is_its_finite_difference(digits: Tensor) -> None:
    model = StagedModel(
        [
            Stage("conv", nn.Conv2d(1, 3, 5), Plane()),
            Stage("act", nn.Softplus(), Plane()),
            Stage("out", nn.Sequential(nn.Flatten(), nn.Linear(3 * 24**2, 4)), Invariant()),
        ]
    ).double()
    images, h = digits[:3].double(), 1e-5
    direction = torch.randn(images.shape, dtype=torch.float64)
    features, tangents = directional_derivative(model, images, direction)
    with torch.no_grad():
        own, ahead, behind = (model.features(images + step * direction) for step in (0, h, -h))
    for tap in model.taps:
        output, a, b = own[tap], ahead[tap], behind[tap]
        assert isinstance(output, Tensor)
        assert isinstance(a, Tensor)
        assert isinstance(b, Tensor)
        assert torch.equal(torch.as_tensor(features[tap]), output)
        assert torch.allclose(tangents[tap][0], (a - b) / (2 * h), atol=1e-8)


def test_features_that_do_not_depend_on_the_picture_have_no_tangent(digits: Tensor) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones_like(x)

    check_tangents(network(Constant()), digits)
    assert directional_derivative(network(Constant()), digits, digits).tangents["tap"][0].abs().max() == 0


class Kept(nn.Module):
    """Goes on from features that a hook of its own keeps, and computes by functions between its layers."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 3), function
        self.kept = torch.empty(0)
        self.a.register_forward_hook(self.keep)

    def keep(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.kept = output

    def forward(self, x: Tensor) -> Tensor:
        self.a(x)
        y: Tensor = self.b(self.function.apply(self.kept))
        return y


def foreign(module: nn.Module) -> ExternalModel:
    names = {name: Plane() for name, _ in module.named_children()}
    return ExternalModel(module.eval(), nn.Identity(), names, dict.fromkeys(names, AsIs()))


@pytest.mark.parametrize("make", [Between, Kept])
def test_a_class_is_accused_only_of_what_it_does(digits: Tensor, make: Callable[..., nn.Module]) -> None:
    check_tangents(foreign(make(Square)), digits)  # its taps are read by hooks, too
    with pytest.raises(SecliError, match=rf"^network \({make.__name__}\): .* silently zero"):
        check_tangents(foreign(make(Silent)), digits)


class Late(nn.Module):
    """The operator at fault stands between its second and its third layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fault = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), Apply(Silent)
        self.third = nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.third(self.fault(self.second(self.first(x))))
        return y


def test_taps_ahead_of_the_operator_at_fault_are_not_accused(digits: Tensor) -> None:
    faults = tangent_faults(foreign(Late()), digits)
    assert list(faults) == ["fault", "third"]
    assert all(str(fault).startswith("network.fault (Apply): ") for fault in faults.values())
    assert tangent_faults(foreign(Late()), digits, ["first", "second"]) == {}


def test_half_precision_inside_is_not_taken_for_a_wrong_tangent(digits: Tensor) -> None:
    class Half(nn.Module):
        def __init__(self, function: type[torch.autograd.Function]) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3).bfloat16(), Apply(function)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.act(self.b(self.a(x).bfloat16()).float())
            return y

    check_tangents(foreign(Half(Square)), digits)
    with pytest.raises(SecliError, match="silently zero"):
        check_tangents(foreign(Half(Silent)), digits)
