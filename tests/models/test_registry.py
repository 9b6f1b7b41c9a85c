"""One file over the whole registry: every network keeps the contract, and the checks can fail."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from secli.catalogue import MODELS
from secli.fields import Field, Invariant, Plane, ScaleSpace
from secli.models.building import build, count_parameters
from secli.models.contract import Model, Stage, StagedModel

PUBLISHED_PARAMETERS = {"cnn": 34_670, "dss_v1": 20_538} | {
    name: 494_359 if "dss" in name else 494_549 for name in MODELS if name.startswith("mnist_")
}

every_model = pytest.mark.parametrize("name", list(MODELS))


@cache
def built(name: str) -> StagedModel:
    """A network in evaluation mode, which no test may change."""
    return build(name).eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def misdeclared(model: Model, pictures: Tensor) -> list[str]:
    """Say which taps' features are not what their fields declare."""
    problems = []
    features = model.features(pictures)
    if list(features) != list(model.taps):
        problems.append(f"taps {list(model.taps)}, features {list(features)}")
    for tap, field in model.taps.items():
        tensor = features[tap]
        assert isinstance(tensor, Tensor)
        if isinstance(field, ScaleSpace):
            if tensor.ndim != 5 or tensor.shape[2] != len(field.scales):
                problems.append(f"{tap}: {tuple(tensor.shape)} for {len(field.scales)} levels")
        elif isinstance(field, Plane):
            if tensor.ndim != 4:
                problems.append(f"{tap}: {tuple(tensor.shape)} for a plane")
        elif tensor.ndim != 2:
            problems.append(f"{tap}: {tuple(tensor.shape)} for an invariant")
        if isinstance(field, (Plane, ScaleSpace)):
            assert isinstance(field.stride, float)
            spanned = tensor.shape[-1] * field.stride
            # what pooling leaves out is less than a cell; the padding of the last one adds less than one
            if abs(spanned - pictures.shape[-1]) >= field.stride:
                problems.append(
                    f"{tap}: {tensor.shape[-1]} cells of {field.stride} px on {pictures.shape[-1]} px"
                )
        if not torch.isfinite(tensor).all():
            problems.append(f"{tap}: not finite")
    return problems


def without_gradient(model: nn.Module, pictures: Tensor) -> list[str]:
    """Name the parameters that the loss does not depend on."""
    labels = torch.arange(len(pictures)) % 10
    functional.cross_entropy(model(pictures), labels).backward()  # type: ignore[no-untyped-call]
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def off_centre(model: Model, size: int) -> list[str]:
    """Say which taps answer to a spot elsewhere than where their field's stride and origin place it.

    With the symmetric positive filters of ``symmetric`` the response to a small spot about which both grids are
    symmetric (pixels and cells) is symmetric about that place, through every convolution and pooling.
    """
    problems = []
    for tap, field in model.taps.items():
        if not isinstance(field, (Plane, ScaleSpace)):
            continue
        assert isinstance(field.stride, float)
        tensor = model.features(torch.zeros(1, 1, size, size))[tap]
        assert isinstance(tensor, Tensor)
        cells = tensor.shape[-1]
        if cells < 5:
            continue
        origin = (size - 1) / 2 - field.stride * (cells - 1) / 2 if field.origin is None else field.origin
        assert isinstance(origin, float)
        place = origin + field.stride * (cells // 2)
        if field.stride < 1:
            place = round(place)  # a cell within a pixel: the pixel's centre lies between two cells
        spot = torch.exp(-((torch.arange(size) - place) ** 2) / 2)
        response = model.features(torch.outer(spot, spot).view(1, 1, size, size))[tap]
        assert isinstance(response, Tensor)
        profile = (response - tensor).flatten(1, -3).sum(dim=(0, 1, 3))
        twice = round(2 * (place - origin) / field.stride)  # cell i mirrors cell twice − i
        first, last = max(0, twice - cells + 1), min(cells - 1, twice)
        window = profile[first : last + 1]
        if not window.max() > 0 or (window - window.flip(0)).abs().max() > 0.03 * window.max():
            problems.append(f"{tap}: {window.tolist()}")
    return problems


def symmetric(model: nn.Module) -> nn.Module:
    """Give every convolution one symmetric, positive filter and no bias."""
    with torch.no_grad():
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if not isinstance(weight, Tensor) or weight.ndim < 3:
                continue
            if hasattr(module, "basis"):
                weight.zero_()
                weight[..., 0] = 1  # the Gaussian of the basis
            elif weight.any():  # a deformable branch stays at zero
                weight.fill_(1 / weight[0].numel())
            if isinstance(bias := getattr(module, "bias", None), Tensor):
                bias.zero_()
    return model


def test_the_registry_holds_the_first_networks() -> None:
    assert len(MODELS) >= 18
    assert {"cnn", "dcn", "dcn_v2", "dss_v1", "mnist_cnn_28", "mnist_cnn_56"} <= set(MODELS)
    assert {f"mnist_dss_{mode}_{size}" for mode in ("vector", "scalar") for size in (28, 56)} <= set(MODELS)
    assert {
        f"mnist_ses_{mode}_{size}" for mode in ("vector", "scalar") for size in ("28", "28p", "56", "56p")
    } <= set(MODELS)


@every_model
def test_declared_parameters_are_real(name: str) -> None:
    assert count_parameters(built(name)) == MODELS[name].parameters
    assert MODELS[name].parameters == PUBLISHED_PARAMETERS.get(name, MODELS[name].parameters)


@every_model
def test_taps_are_what_their_fields_declare(name: str) -> None:
    model = built(name)
    assert isinstance(model, Model)
    assert misdeclared(model, images()) == []
    assert model.taps["logits"] == Invariant()
    assert list(model.taps)[-1] == "logits"


@every_model
def test_the_last_features_are_the_logits(name: str) -> None:
    model = built(name)
    with torch.no_grad():
        last = list(model.features(images(3)).values())[-1]
        assert isinstance(last, Tensor)
        assert torch.equal(model(images(3)), last)
    assert model(images(3)).shape == (3, 10)


@every_model
def test_stages_in_a_row_are_the_features(name: str) -> None:
    model = built(name)
    with torch.no_grad():
        current: Tensor = images()
        for (tap, module), (key, expected) in zip(
            model.stages, model.features(images()).items(), strict=True
        ):
            current = module(current)
            assert tap == key
            assert isinstance(expected, Tensor)
            assert torch.equal(current, expected)


@every_model
def test_the_empty_picture_has_finite_features(name: str) -> None:
    for tap, tensor in built(name).features(torch.zeros(1, 1, 28, 28)).items():
        assert isinstance(tensor, Tensor)
        assert torch.isfinite(tensor).all(), tap


@every_model
def test_every_parameter_has_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    assert without_gradient(build(name).train(), images(4)) == []


@every_model
def test_seeds_decide_the_weights(name: str) -> None:
    state = torch.random.get_rng_state()
    again, other = build(name, seed=0), build(name, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    first = built(name).state_dict()
    assert all(torch.equal(first[key], value) for key, value in again.state_dict().items())
    assert any(not torch.equal(first[key], value) for key, value in other.state_dict().items())


@every_model
def test_a_checkpoint_restores_the_network(name: str, tmp_path: Path) -> None:
    model, other = built(name), build(name, seed=1).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(model(images()), other(images()))


@every_model
def test_a_checkpoint_holds_only_what_is_learned(name: str) -> None:
    model = built(name)
    learned = {key for key, _ in model.named_parameters()}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert all(key in learned or key.endswith(statistics) for key in model.state_dict())


@every_model
def test_taps_lie_where_their_fields_say(name: str) -> None:
    model = symmetric(build(name, {"mean": 0.0, "std": 1.0})).eval()
    assert isinstance(model, StagedModel)
    with torch.no_grad():
        assert off_centre(model, 28) == []


@pytest.mark.parametrize("name", ["mnist_cnn_28", "mnist_dss_scalar_56", "mnist_ses_vector_28", "dss_v1"])
@pytest.mark.parametrize("size", [30, 33])
def test_taps_lie_where_their_fields_say_on_odd_planes_too(name: str, size: int) -> None:
    model = symmetric(build(name, {"mean": 0.0, "std": 1.0, "image_size": size})).eval()
    assert isinstance(model, StagedModel)
    with torch.no_grad():
        assert off_centre(model, size) == []
        assert misdeclared(model, torch.rand(2, 1, size, size)) == []


@every_model
def test_colour_images_and_other_classes(name: str) -> None:
    options = {"in_channels": 3, "classes": 7, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3]}
    with torch.no_grad():
        assert build(name, options).eval()(torch.rand(2, 3, 28, 28)).shape == (2, 7)


@every_model
def test_double_precision(name: str) -> None:
    with torch.no_grad():
        logits = built(name)(images())
        precise = build(name).eval().double()(images().double())
    assert precise.dtype == torch.float64
    torch.testing.assert_close(logits.double(), precise, rtol=1e-3, atol=1e-4)


# the controls: each check above finds what it is there to find


class Broken(nn.Module):
    """A parameter that nothing depends on, and three levels where four are declared."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).unsqueeze(2).expand(-1, -1, 3, -1, -1)


def broken(field: Field) -> StagedModel:
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 10))
    return StagedModel([Stage("levels", Broken(), field), Stage("logits", head, Invariant())])


def test_the_checks_find_a_broken_network() -> None:
    assert misdeclared(broken(ScaleSpace((1.0, 2.0, 4.0, 8.0))), images()) == [
        "levels: (2, 1, 3, 28, 28) for 4 levels"
    ]
    assert misdeclared(broken(Plane()), images()) == ["levels: (2, 1, 3, 28, 28) for a plane"]
    assert misdeclared(broken(ScaleSpace((1.0, 2.0, 4.0), stride=2.0)), images())
    assert without_gradient(broken(ScaleSpace((1.0, 2.0, 4.0))), images()) == ["levels.unused"]


class Shifted(nn.Module):
    """A stride of 2 that starts at pixel 0: its grid's centre is not the image's."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2, ::2]


@pytest.mark.parametrize(
    ("field", "right"), [(Plane(2.0), False), (Plane(2.0, 0.0), True), (Plane(2.0, 1.0), False)]
)
def test_the_check_of_places_finds_a_wrong_origin(field: Plane, right: bool) -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(14 * 14, 10))
    model = StagedModel([Stage("shifted", Shifted(), field), Stage("logits", head, Invariant())])
    with torch.no_grad():
        assert (off_centre(model, 28) == []) is right


def test_two_stages_may_not_share_a_tap() -> None:
    with pytest.raises(ValueError, match="two stages share a tap's name"):
        StagedModel([Stage("a", nn.Identity(), Plane()), Stage("a", nn.Identity(), Plane())])


@pytest.mark.parametrize(
    "name", ["cnn", "dcn_v2", "dss_v1", "mnist_cnn_28", "mnist_ses_vector_28", "mnist_dss_vector_28"]
)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    """Ten steps on eight bars at eight angles: whatever learns at all learns these."""
    grid = torch.arange(28) - 13.5
    angles = torch.arange(8) * math.pi / 8
    distance = angles.cos().view(-1, 1, 1) * grid.view(1, -1, 1) + angles.sin().view(-1, 1, 1) * grid
    bars = (distance.abs() < 2).float().unsqueeze(1)
    torch.manual_seed(0)
    model = build(name).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(10):
        loss = functional.cross_entropy(model(bars), torch.arange(8))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.6 * losses[0], losses
