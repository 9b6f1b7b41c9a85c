"""Vector fields in the shared body: the published parameters, where norms stand, and what the options do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Invariant, Plane, VectorField
from secli.errors import InputError
from secli.layers.pooling import BatchNorm
from secli.layers.vector_field import ScalarFieldConv, VectorFieldConv, VectorFieldLift
from secli.layers.vectors import VectorNorm, VectorPool
from secli.models.building import build, count_parameters

NAMES = [f"mnist_sevf_{mode}_{size}" for mode in ("scalar", "vector") for size in (28, 56)]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_published_ones(name: str) -> None:
    model = build(name)
    assert count_parameters(model) == (494_425 if "scalar" in name else 475_407)
    names = [key for key, _ in model.named_parameters()]
    head = ["linear.weight", "linear.bias", "norm.weight", "norm.bias", "classify.weight", "classify.bias"]
    assert names[-6:] == [f"logits.{key}" for key in head]
    if "scalar" in name:
        body = ["conv1.conv", "block1.norm", "block2.conv", "block2.norm", "conv3.conv"]
        learned = {"conv": ["weight"], "norm": ["weight", "bias"]}
        assert names[:-6] == [f"{key}.{each}" for key in body for each in learned[key[-4:]]]
    else:
        assert names[:-6] == [
            "conv1.conv.weight",
            *(f"{key}.conv.weight_{each}" for key in ("block2", "conv3") for each in "uv"),
        ]


@pytest.mark.parametrize("name", NAMES)
def test_norms_stand_behind_the_first_two_blocks_only(name: str) -> None:
    model = build(name)
    kind = BatchNorm if "scalar" in name else VectorNorm
    norms = [key for key, module in model.named_modules() if isinstance(module, (BatchNorm, VectorNorm))]
    assert norms == ["block1.norm", "block2.norm"]
    assert all(isinstance(model.get_submodule(key), kind) for key in norms)


@pytest.mark.parametrize(("size", "stride"), [(28, 1.0), (56, 0.5)])
def test_vectors_stay_vectors_up_to_the_last_pooling(size: int, stride: float) -> None:
    model = build(f"mnist_sevf_vector_{size}").eval()
    taps = model.taps
    strides = dict(zip(("conv1", "block1", "block2", "conv3"), (1, 2, 4, 4), strict=True))
    for tap, times in strides.items():
        assert taps[tap] == VectorField(1 / 1.26, 2 * math.pi / 3 / 7, (-4, 3), stride * times)
    assert isinstance(taps["block3"], Plane)
    assert taps["logits"] == Invariant()
    features = model.features(torch.rand(2, 1, 28, 28))
    shapes = {tap: tuple(x.shape[1:]) for tap, x in features.items() if isinstance(x, Tensor)}
    half, quarter = size // 2, size // 4
    assert shapes == {
        "conv1": (23, 2, size, size),
        "block1": (23, 2, half, half),
        "block2": (45, 2, quarter, quarter),
        "conv3": (68, 2, quarter, quarter),
        "block3": (68, 2, 2),
        "logits": (10,),
    }
    assert isinstance(features["block3"], Tensor)
    assert float(features["block3"].detach().min()) >= 0
    assert sum(isinstance(module, VectorPool) for module in model.modules()) == 3


def test_angles_are_those_of_the_eight_resizings() -> None:
    features = build("mnist_sevf_vector_28").eval().features(torch.rand(2, 1, 28, 28))["conv1"]
    assert isinstance(features, Tensor)
    u, v = features.detach().unbind(2)
    j = torch.atan2(v, u)[torch.hypot(u, v) > 1e-3] / (2 * math.pi / 21)
    torch.testing.assert_close(j, j.round(), rtol=0, atol=1e-3)
    assert set(j.round().int().tolist()) <= set(range(-4, 4))
    assert len(set(j.round().int().tolist())) >= 6


def test_the_scalar_network_has_planes_only() -> None:
    model = build("mnist_sevf_scalar_28")
    assert all(isinstance(field, Plane) for tap, field in model.taps.items() if tap != "logits")
    assert sum(isinstance(module, ScalarFieldConv) for module in model.modules()) == 3


def test_options_reach_the_layers() -> None:
    options = {"base": 1.5, "lowest": -1, "highest": 2, "turn": "along", "size": 5}
    model = build("mnist_sevf_vector_28", options)
    layers = [m for m in model.modules() if isinstance(m, (VectorFieldLift, VectorFieldConv))]
    assert [layer.factors for layer in layers] == [pytest.approx([1 / 1.5, 1, 1.5, 2.25])] * 3
    assert [layer.size for layer in layers] == [5] * 3
    assert [layer.sense for layer in layers if isinstance(layer, VectorFieldConv)] == [1, 1]
    field = model.taps["block2"]
    assert isinstance(field, VectorField)
    assert field.base == pytest.approx(1 / 1.5)
    assert field.levels == (-1, 2)
    assert field.angle_step == pytest.approx(2 * math.pi / 9)


def test_the_sense_of_the_turn_changes_the_function_and_not_the_weights() -> None:
    published, equivariant = (build("mnist_sevf_vector_28", {"turn": t}).eval() for t in ("against", "along"))
    equivariant.load_state_dict(published.state_dict())
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        one, other = published.features(images), equivariant.features(images)
    assert torch.equal(one["conv1"], other["conv1"])  # type: ignore[arg-type]
    assert not torch.allclose(one["block2"], other["block2"], atol=1e-2)  # type: ignore[arg-type]


def test_it_learns_from_an_empty_picture_too() -> None:
    """Everywhere zero vectors, whose lengths have no derivative: every gradient is a number all the same."""
    model = build("mnist_sevf_vector_28", {"mean": 0.0}).train()
    loss = nn.functional.cross_entropy(model(torch.zeros(4, 1, 28, 28)), torch.arange(4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist_sevf_scalar_28", {"turn": "along"}, "turn needs mode=vector"),
        ("mnist_sevf_vector_28", {"turn": "with"}, "turn = 'with': input should be 'against' or 'along'"),
        ("mnist_sevf_vector_28", {"size": 4}, "the kernel size must be odd and positive, not 4"),
        ("mnist_sevf_vector_28", {"lowest": 3}, "at least two resizings are needed, not j = 3 to 3"),
        ("mnist_sevf_vector_28", {"lowest": 6, "highest": 8}, "the angles must increase within ±π"),
    ],
)
def test_bad_options_are_one_line(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def on_black(count: int) -> Tensor:
    """Return noise on a black canvas, as digits lie."""
    canvas = torch.zeros(count, 1, 28, 28, dtype=torch.float64)
    noise = torch.rand(count, 1, 10, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    canvas[..., 9:19, 10:18] = noise.float().double()
    return canvas


def apart(ties: str, images: Tensor, seed: int = 0) -> float:
    """Return how far float32 is from float64, as a share of the largest logit."""
    model = build("mnist_sevf_vector_28", {"ties": ties}, seed).eval()
    with torch.no_grad():
        single = model(images.float()).double()
        exact = model.double()(images)
    return float((single - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ties_on_a_constant_background_are_decided_alike_at_both_precisions(seed: int) -> None:
    images = on_black(4)
    assert apart("rounding", images, seed) > 1e-2
    assert apart("first", images, seed) < 1e-4


def test_the_first_of_those_that_are_tied_is_taken_and_no_other_changes() -> None:
    first, rounding = (VectorFieldLift(1, 2, 3, ties=ties).double() for ties in ("first", "rounding"))
    rounding.load_state_dict(first.state_dict())
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1)).double()
    there, here = rounding(images), first(images)
    assert float((there != here).any(dim=2).double().mean()) < 0.05, "noise has hardly a tie"
    with torch.no_grad():
        first.weight.abs_()
    u, v = first(torch.ones(1, 1, 28, 28).double())[..., 10:18, 10:18].unbind(dim=2)
    angles = torch.atan2(v, u)
    torch.testing.assert_close(angles, torch.full_like(angles, first.angles[0]))


def test_a_tie_has_a_gradient_and_survives_values_that_do_not_compare() -> None:
    layer = VectorFieldLift(1, 2, 3, ties="first")
    torch.autograd.backward(layer(torch.ones(1, 1, 12, 12)).square().sum())
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()
    assert layer(torch.full((1, 1, 12, 12), math.nan)).isnan().any()


def test_a_scalar_network_has_no_ties_to_decide() -> None:
    with pytest.raises(InputError, match="ties needs mode=vector"):
        build("mnist_sevf_scalar_28", {"ties": "first"})
