"""Where the embedding is read: the input of the layer that makes the logits, or the deepest tap over its plane."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secli.action.images import rescale
from secli.config import MeasureSettings
from secli.equivariance.curves import Curves, measure_curves
from secli.equivariance.embedding import EmbeddingReader, pooled
from secli.external.adapt import adapt
from secli.models.building import build
from secli.models.contract import Model


def adapted(network: nn.Module) -> Model:
    return adapt(network.eval(), nn.Identity(), (1, 12, 12), None)


def convolved() -> nn.Module:
    """Class scores by a convolution, as squeezenet has them."""
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def linear() -> nn.Sequential:
    hidden = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), hidden, nn.Linear(4, 2))


def measured(model: Model, images: Tensor) -> Curves:
    return measure_curves(model, images, MeasureSettings(factors=(1.0, 0.7), border=0))


def test_it_is_what_goes_into_the_last_linear_layer() -> None:
    network, images = linear(), torch.rand(4, 1, 12, 12)
    model = adapted(network)
    reader = EmbeddingReader(model)
    with reader.listening(), torch.no_grad():
        found = reader.read(model.features(images))
        assert found is not None
        assert torch.equal(found, network[:-1](images))
        assert reader.place == "input of 4"
    assert not any(module._forward_hooks for module in network.modules())


def test_without_such_a_layer_it_is_the_deepest_tap_over_its_plane() -> None:
    model, images = adapted(convolved()), torch.rand(4, 1, 12, 12)
    reader = EmbeddingReader(model)
    with reader.listening(), torch.no_grad():
        features = model.features(images)
        found = reader.read(features)
    tap = [name for name in features if name != "logits"][-1]
    assert reader.place == f"mean over the plane of {tap}"
    assert found is not None
    assert torch.equal(found, pooled(features[tap]))


def test_a_hidden_linear_layer_is_not_taken_for_the_last() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.gate = nn.Conv2d(1, 3, 3), nn.Linear(3, 3)

        def forward(self, images: Tensor) -> Tensor:
            maps = self.body(images)
            return torch.cat([self.gate(maps.mean((2, 3))), maps.mean((2, 3))], 1)

    model = adapted(Gated())
    reader = EmbeddingReader(model)
    with reader.listening(), torch.no_grad():
        reader.read(model.features(torch.rand(2, 1, 12, 12)))
    assert reader.place is not None
    assert reader.place.startswith("mean over the plane of ")


def test_a_tap_is_pooled_over_its_plane_alone() -> None:
    maps, levels = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 6, 4, 5)
    assert pooled(maps).tolist() == [[float(maps[n, c].mean()) for c in range(3)] for n in range(2)]
    assert pooled(levels).shape == (2, 18)
    assert pooled([maps, maps]).shape == (2, 6)
    assert torch.equal(pooled(torch.ones(2, 7)), torch.ones(2, 7))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_curve_has_its_cosine_whatever_the_batch(batch: int) -> None:
    images = torch.rand(5, 1, 12, 12)
    network = linear()
    asked = MeasureSettings(factors=(1.0, 0.7), border=0, batch=batch)
    curves = measure_curves(adapted(network), images, asked)
    with torch.no_grad():
        one, other = (network[:-1](rescale(images, factor)) for factor in (1.0, 0.7))
    expected = torch.nn.functional.cosine_similarity(one.double(), other.double()).mean()
    assert curves.embedding == "input of 4"
    assert curves.accuracy[0].cosine == pytest.approx(1)
    assert curves.accuracy[1].cosine == pytest.approx(float(expected), abs=1e-5)


def test_networks_of_the_registry_have_one_too() -> None:
    curves = measured(build("dss_v1", {"channels": 4}).eval(), torch.rand(3, 1, 28, 28))
    assert curves.embedding is not None
    assert all(row.cosine is not None and -1 <= row.cosine <= 1 for row in curves.accuracy)
    assert [row.consistency is None for row in curves.accuracy] == [True, False]


def test_an_embedding_that_vanishes_has_no_cosine() -> None:
    body = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    silent = nn.Sequential(body, nn.Threshold(1e9, 0.0), nn.Linear(1, 2))
    curves = measure_curves(
        adapt(silent.eval(), nn.Identity(), (1, 12, 12), ["0.0"], [], "net"),
        torch.rand(3, 1, 12, 12),
        MeasureSettings(factors=(0.7,), border=0),
    )
    assert [row.cosine for row in curves.accuracy] == [None]
