"""Controls: what they read is known beforehand."""

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Field, Plane
from secli.catalogue import MODELS
from secli.config import MeasureSettings
from secli.equivariance.controls import (
    OneTap,
    Pointwise,
    controls,
    plain_cnn,
    plain_size,
    plain_widths,
    pointwise_readings,
    untrained,
)
from secli.equivariance.curves import measure_curves
from secli.errors import InputError, SecliError
from secli.external.load import load_external
from secli.models.building import build, count_parameters, resolve_options
from secli.models.contract import Features, Model
from secli.records.schema import ModelInfo


def of(
    name: str,
    shape: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
    missing: list[tuple[str, str]] | None = None,
    **options: object,
) -> dict[str, tuple[Model, ModelInfo]]:
    model = build(name, options, seed=1).eval()
    found = controls(
        model,
        name=name,
        options=resolve_options(MODELS[name], options),
        parameters=count_parameters(model),
        image_shape=shape,
        classes=classes,
        seed=2,
        on_missing=None if missing is None else lambda control, reason: missing.append((control, reason)),
    )
    return {control: (network, info) for control, network, info in found}


def size(model: Model) -> int:
    assert isinstance(model, nn.Module)
    return count_parameters(model)


def read(model: Model, images: Tensor, factor: float = 0.5) -> dict[str, float | None]:
    rows = measure_curves(model, images, MeasureSettings(factors=(factor,))).rows
    return {row.tap: row.mean for row in rows}


@pytest.mark.parametrize("name", ["mnist_ses_vector_28", "cnn", "dss_v1"])
def test_there_are_four_and_all_are_measured_like_any_network(digits: Tensor, name: str) -> None:
    found = of(name)
    assert list(found) == ["identity", "pointwise", "untrained", "plain cnn"]
    for control, (model, info) in found.items():
        assert isinstance(model, nn.Module)
        assert not model.training
        assert info.parameters == count_parameters(model)
        readings = read(model, digits[:6])
        assert list(readings) == list(model.taps)
        if control in ("identity", "pointwise"):
            assert list(model.taps) == [control]
    assert read(found["identity"][0], digits)["identity"] == 0.0
    assert found["untrained"][1].name == name
    assert list(found["untrained"][0].taps) == list(build(name).taps)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.3])
def test_the_identity_reads_zero_exactly(digits: Tensor, factor: float) -> None:
    assert read(OneTap("identity", nn.Identity()), digits, factor) == {"identity": 0.0}


def test_the_pointwise_control_reads_little_and_more_at_smaller_factors(digits: Tensor) -> None:
    model = OneTap("pointwise", Pointwise(1))
    near, far = read(model, digits, 0.8)["pointwise"], read(model, digits, 0.5)["pointwise"]
    assert near is not None
    assert far is not None
    assert 0 < near < far < 0.1
    # it falls as the picture is refined: nothing but the grid costs it anything
    fine = nn.functional.interpolate(digits, scale_factor=3, mode="bicubic")
    finer = read(model, fine)["pointwise"]
    assert finer is not None
    assert finer < far / 2


def test_the_pointwise_control_is_the_formula_on_any_axes() -> None:
    module = Pointwise(3, width=4)
    x = torch.randn(2, 3, 5, 6, 7)
    y = module(x)
    assert y.shape == (2, 4, 5, 6, 7)
    at = module.weight @ x[1, :, 2, 3, 4] + module.bias
    assert torch.allclose(y[1, :, 2, 3, 4], at.clamp(min=0), atol=1e-6)


def test_every_kink_lies_among_the_values_of_pixels() -> None:
    module = Pointwise(1)
    kinks = -module.bias / module.weight[:, 0]
    assert bool(((kinks >= 0) & (kinks <= 1)).all())


def test_readings_by_factor_are_those_of_the_control(digits: Tensor) -> None:
    for values in ({}, {"metric": "relative"}, {"background": "none"}, {"batch": 7}):
        settings = MeasureSettings.model_validate({"factors": (1.0, 0.8, 0.5), **values})
        readings = pointwise_readings(digits, (1.0, 0.8, 0.5), settings)
        curve = measure_curves(OneTap("pointwise", Pointwise(1)), digits, settings)
        assert readings == pytest.approx({row.factor: row.mean for row in curve.rows}, rel=1e-5)
        assert readings[1.0] == 0.0


def test_a_factor_that_cannot_be_measured_is_missing(digits: Tensor) -> None:
    assert list(pointwise_readings(digits, (0.5, 0.1), MeasureSettings())) == [0.5]
    with pytest.raises(InputError, match="no images"):
        pointwise_readings(digits[:0], (0.5,), MeasureSettings())


def test_identity_and_pointwise_have_no_accuracy(digits: Tensor) -> None:
    labels = torch.arange(40) % 10
    for module in (nn.Identity(), Pointwise(1)):
        curves = measure_curves(OneTap("tap", module), digits, MeasureSettings(factors=(0.5,)), labels=labels)
        assert curves.accuracy[0].accuracy is None
        assert str(curves.accuracy[0].reason) == "the network has 1 outputs, the images 10 classes"


class TestPlainCnn:
    def test_a_network_of_the_shared_body_gets_its_twin(self) -> None:
        model, info = of("mnist_ses_vector_56")["plain cnn"]
        assert info.name == "mnist_cnn_28"
        assert info.options["upsampling"] == 2
        assert info.parameters == 494_549
        assert list(model.taps) == ["conv1", "block1", "block2", "conv3", "block3", "logits"]

    @pytest.mark.parametrize("parameters", [900, 4_000, 20_538, 34_670, 494_549, 11_000_000])
    @pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 2), (3, 37)])
    def test_widths_come_within_five_per_cent(self, parameters: int, channels: int, classes: int) -> None:
        widths = plain_widths(parameters, channels, classes)
        assert plain_size(widths, channels, classes) == pytest.approx(parameters, rel=0.05)
        if parameters >= 20_000:
            assert widths[1] == pytest.approx(2 * widths[0], rel=0.1)
            assert widths[2] == pytest.approx(3 * widths[0], rel=0.2)

    @pytest.mark.parametrize("size_", [(28, 28), (32, 48), (37, 21), (8, 8), (5, 4)])
    def test_any_image_size_channels_and_classes(self, size_: tuple[int, int]) -> None:
        model, _, options = plain_cnn(60_000, 3, size_, 7, seed=0)
        assert options["classes"] == 7
        assert size(model) == pytest.approx(60_000, rel=0.05)
        assert model(torch.rand(2, 3, *size_)).shape == (2, 7)
        assert size(model) == plain_size(options["widths"], 3, 7)

    def test_its_taps_lie_where_they_say(self) -> None:
        # 30 pixels: pooled twice, two columns are left out at the far end
        model, _, _ = plain_cnn(60_000, 1, (30, 30), 2, seed=0)
        assert model.taps["block1"] == Plane(stride=2.0)
        assert model.taps["block2"] == Plane(stride=4.0, origin=1.5)
        square, _, _ = plain_cnn(60_000, 1, (28, 28), 2, seed=0)
        assert square.taps["block2"] == Plane(stride=4.0)

    def test_the_seed_decides_and_the_callers_random_state_stays(self) -> None:
        torch.manual_seed(5)
        state = torch.get_rng_state()
        one, other, again = (plain_cnn(9_000, 1, (28, 28), 10, seed=seed)[0] for seed in (0, 1, 0))
        assert torch.equal(torch.get_rng_state(), state)
        x = torch.rand(1, 1, 28, 28)
        assert not torch.equal(one(x), other(x))
        assert torch.equal(one(x), again(x))

    @pytest.mark.parametrize(
        ("parameters", "size_", "classes", "message"),
        [
            (100, (28, 28), 1000, "no plain CNN for 1 channels and 1000 classes has about 100 parameters"),
            (0, (28, 28), 10, "no plain CNN for 1 channels and 10 classes has about 0 parameters"),
            (9_000, (3, 28), 10, "images of 3×28 pixels are too small for a plain CNN"),
        ],
    )
    def test_what_cannot_be_had_is_said(
        self, parameters: int, size_: tuple[int, int], classes: int, message: str
    ) -> None:
        with pytest.raises(SecliError) as error:
            plain_cnn(parameters, 1, size_, classes, seed=0)
        assert str(error.value) == message


class Own(nn.Module):
    """A network outside the registry."""

    def __init__(self, bare: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        if bare:
            self.token = nn.Parameter(torch.zeros(1))

    @property
    def taps(self) -> dict[str, Field]:
        return {"norm": Plane()}

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        return []

    def features(self, images: Tensor) -> dict[str, Features]:
        x = self.norm(self.conv(images))
        return {"norm": x, "logits": x.mean((2, 3))}

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)["logits"]  # type: ignore[return-value]


class TestUntrained:
    def test_a_registered_network_is_built_from_the_seed(self) -> None:
        model = build("cnn", seed=3)
        fresh = untrained(model, "cnn", resolve_options(MODELS["cnn"]), 4)
        wanted = build("cnn", seed=4)
        assert isinstance(fresh, nn.Module)
        for key, value in fresh.state_dict().items():
            assert torch.equal(value, wanted.state_dict()[key])

    def test_a_foreign_one_is_copied_and_drawn_anew(self) -> None:
        model = Own(bare=False)
        model.norm.running_mean.fill_(3.0)  # type: ignore[union-attr]
        before = {key: value.clone() for key, value in model.state_dict().items()}
        torch.manual_seed(5)
        state = torch.get_rng_state()
        fresh, again = (untrained(model, "own", {}, 4) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state)
        assert isinstance(fresh, Own)
        assert isinstance(again, Own)
        assert not torch.equal(fresh.conv.weight, model.conv.weight)
        assert torch.equal(fresh.conv.weight, again.conv.weight)
        assert float(fresh.norm.running_mean.abs().max()) == 0.0  # type: ignore[union-attr]
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())

    def test_weights_that_nothing_draws_are_named(self) -> None:
        missing: list[tuple[str, str]] = []
        found = controls(
            Own(bare=True),
            name="own",
            options={},
            parameters=9_000,
            image_shape=(1, 28, 28),
            classes=4,
            seed=0,
            on_missing=lambda control, reason: missing.append((control, reason)),
        )
        assert [control for control, _, _ in found] == ["identity", "pointwise", "plain cnn"]
        reason = "own: 1 of its weights belong to modules without reset_parameters (token)"
        assert missing == [("untrained", reason)]

    def test_a_published_architecture_is_drawn_as_its_library_draws_it(self) -> None:
        name, shape = "torchvision:resnet18", (3, 32, 32)
        model, same = (load_external(name, taps=["layer1"], input_shape=shape, seed=seed) for seed in (0, 7))
        fresh = untrained(model, name, {}, 7)
        assert isinstance(fresh, nn.Module)
        assert fresh.taps == model.taps
        weights, wanted, old = (
            dict(network.named_parameters())["network.conv1.weight"] for network in (fresh, same, model)
        )
        assert torch.equal(weights, wanted)
        assert not torch.equal(weights, old)
