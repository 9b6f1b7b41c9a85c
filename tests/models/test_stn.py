"""The network behind a spatial transformer: it starts as cnn, and learns to move its pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secli.action.fields import Invariant, Plane
from secli.equivariance.forward_mode import check_tangents
from secli.layers.spatial_transformer import SpatialTransformer
from secli.models.building import build, count_parameters


def transformer_of(model: nn.Module) -> SpatialTransformer:
    return next(module for module in model.modules() if isinstance(module, SpatialTransformer))


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(3, 1, 28, 28)


def test_it_starts_as_cnn(pictures: Tensor) -> None:
    moving, plain = build("stn_cnn").eval(), build("cnn").eval()
    weights = {key: value for key, value in moving.state_dict().items() if not key.startswith("transformed.")}
    plain.load_state_dict(weights)
    with torch.no_grad():
        assert torch.equal(moving.features(pictures)["transformed"], pictures)  # type: ignore[arg-type]
        assert torch.equal(moving(pictures), plain(pictures))
        # the check can fail: a picture that is moved is answered otherwise
        transformer_of(moving).linear.bias[2] = 0.3
        assert not torch.allclose(moving(pictures), plain(pictures), atol=1e-3)


def test_its_taps() -> None:
    taps = build("stn_cnn").taps
    assert list(taps) == ["transformed", "block1", "block2", "block3", "block4", "logits"]
    assert [type(field) for field in taps.values()] == [Plane] * 5 + [Invariant]
    localiser = 8 * 25 + 8 + 10 * 8 * 25 + 10 + 160 * 6 + 6
    assert count_parameters(build("stn_cnn")) == 34_670 + localiser == 37_854


@pytest.mark.parametrize("size", [(28, 28), (17, 40), (4, 4), (96, 96)])
def test_any_image_size(size: tuple[int, int]) -> None:
    model = build("stn_cnn", {"in_channels": 3}).eval()
    nn.init.normal_(transformer_of(model).linear.weight, std=0.1)
    with torch.no_grad():
        assert model(torch.rand(2, 3, *size)).shape == (2, 10)


def test_black_comes_in_from_outside_before_the_normalisation() -> None:
    """White pictures pushed half out of sight: pixels outside are black, not of the mean's grey."""
    model = build("stn_cnn", {"mean": 0.5, "std": 0.25}).eval()
    with torch.no_grad():
        transformer_of(model).linear.bias[2] = 1.0
        moved = model.features(torch.ones(1, 1, 28, 28))["transformed"]
        half = torch.zeros(1, 1, 28, 28)
        half[..., :14] = 1
        torch.testing.assert_close(moved, half)
        plain = build("cnn", {"mean": 0.5, "std": 0.25}).eval()
        weights = {k: v for k, v in model.state_dict().items() if not k.startswith("transformed.")}
        plain.load_state_dict(weights)
        torch.testing.assert_close(model(torch.ones(1, 1, 28, 28)), plain(half))


def test_every_parameter_learns_from_the_second_step_on(pictures: Tensor) -> None:
    """The zero linear map keeps the gradient from the localiser once; after one step nothing is left out."""
    model = build("stn_cnn").train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    silent = []
    for _ in range(2):
        optimiser.zero_grad()
        functional.cross_entropy(model(pictures), torch.arange(3)).backward()  # type: ignore[no-untyped-call]
        silent.append({name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()})
        optimiser.step()
    assert all(name.startswith("transformed.localiser.") for name in silent[0])
    assert silent[1] == set()


def spots() -> tuple[Tensor, Tensor]:
    """Spots at four corners of an invisible square."""
    grid = torch.arange(28.0)
    places = [(a, b) for a in (8.0, 19.0) for b in (8.0, 19.0)]
    shapes = [
        torch.exp(-((grid.view(-1, 1) - a) ** 2 + (grid - b) ** 2) / 8).view(1, 28, 28) for a, b in places
    ]
    return torch.stack(shapes), torch.tensor(places)


def test_the_transformer_learns_to_bring_spots_to_the_centre() -> None:
    pictures, _ = spots()
    target = torch.exp(-((torch.arange(28.0).view(-1, 1) - 13.5) ** 2 + (torch.arange(28.0) - 13.5) ** 2) / 8)
    layer = transformer_of(build("stn_cnn"))
    optimiser = torch.optim.Adam(layer.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (layer(pictures) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0], losses


def test_its_tangents_are_right_at_the_start_and_later(pictures: Tensor) -> None:
    model = build("stn_cnn").eval()
    check_tangents(model, pictures)
    nn.init.normal_(transformer_of(model).linear.weight, std=0.1)
    check_tangents(model, pictures)
