from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from secli.action.fields import Canvas, Pyramid
from secli.action.images import rescale
from secli.equivariance.error import compare
from secli.models.building import build, count_parameters
from secli.models.contract import StagedModel
from tests.models.test_registry import strokes

NAME = "mnist_pyramid_28"


def error(model: StagedModel, tap: str, factor: float, field: Pyramid | None = None) -> float:
    """The error of a tap, features of the empty picture subtracted, on smooth strokes with a margin."""
    pictures = strokes(28, 1)
    with torch.no_grad():
        empty = model.features(torch.zeros_like(pictures[:1]))[tap]

        def above(images: Tensor) -> list[Tensor]:
            return [a - b for a, b in zip(model.features(images)[tap], empty, strict=True)]

        acted = (field or model.taps[tap]).act(above(pictures), factor, Canvas(28, 28))
        norms = compare(acted, above(rescale(pictures, factor)))
    return float((norms.difference / norms.expected).mean())


@pytest.mark.parametrize("factor", [math.sqrt(0.5), 0.5])
def test_on_the_lattice_it_is_equivariant_up_to_the_pooling(factor: float) -> None:
    model = build(NAME).eval()
    field = model.taps["conv1"]
    assert isinstance(field, Pyramid)
    assert error(model, "lift", factor) < 0.002
    assert error(model, "conv1", factor) < 0.002
    assert error(model, "block1", factor) < 0.005
    # the control: the levels stand still
    still = replace(field, factors=tuple(each * 4 ** (3 - k) for k, each in enumerate(field.factors)))
    assert error(model, "conv1", 0.5, still) > 0.05


def test_the_ensemble_has_the_parameters_of_the_plain_network() -> None:
    assert count_parameters(build(NAME)) == count_parameters(build("mnist_cnn_28"))
    assert count_parameters(build(NAME, {"levels": 2, "lowest": 0})) == 494_549


def test_how_answers_are_joined_changes_them() -> None:
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        joined = [build(NAME, {"aggregate": how}).eval()(images) for how in ("max", "mean", "logsumexp")]
    largest, mean, soft = joined
    assert (largest >= mean).all()
    assert (soft >= largest).all()
    assert (soft <= largest + math.log(4) + 1e-5).all()
    assert not torch.allclose(largest, mean, atol=1e-3)


def test_one_level_alone_sees_the_picture_as_it_is() -> None:
    """Its lift is then the identity, up to the zeros around it."""
    model = build(NAME, {"levels": 1, "lowest": 0}).eval()
    images = torch.rand(1, 1, 28, 28)
    lifted = model.features(images)["lift"]
    assert isinstance(lifted, list)
    assert lifted[0].shape[-2:] == (32, 32)
    torch.testing.assert_close(lifted[0][..., 2:30, 2:30] * 0.2161, images, rtol=0, atol=1e-5)
