from __future__ import annotations

import pytest

from secli.catalogue import MODELS
from secli.errors import UnknownNameError
from secli.models.describe import allowed_values, describe, describe_options, describe_training, summary


def test_a_description_comes_from_the_built_network() -> None:
    description = describe("mnist_ses_vector_56")
    assert description.parameters == 494_549
    assert description.input == (1, 28, 28)
    taps = {tap.name: tap for tap in description.taps}
    assert taps["conv1"].shape == (32, 4, 56, 56)
    assert taps["conv1"].field.startswith("scale space 2,2.52,3.17,4")
    assert taps["logits"].shape == (10,)


def test_options_carry_the_catalogues_defaults() -> None:
    defaults = {option.name: option.default for option in describe_options("mnist_ses_scalar_56p")}
    assert (defaults["min_scale"], defaults["upsampling"], defaults["mode"]) == (1.0, 2, "scalar")
    allowed = {option.name: option.allowed for option in describe_options("dss_v1")}
    assert allowed["dilation"] == "floor, round, exact"
    assert allowed["base"] == "number, > 1, ≤ 8"
    assert allowed["drop_top"] == "true, false"
    assert allowed["mean"] == "number or list of number"
    assert allowed["levels"] == "integer, 1 to 16"


def test_training_is_the_papers() -> None:
    settings = {option.name: option.default for option in describe_training("cnn")}
    assert (settings["optimizer"], settings["lr"], settings["gamma"]) == ("sgd", 0.01, 0.5)
    settings = {option.name: option.default for option in describe_training("mnist_cnn_28")}
    assert (settings["optimizer"], settings["batch"], settings["milestones"]) == ("adam", 128, (20, 40))


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_has_words(name: str) -> None:
    assert len(MODELS[name].idea) < 80
    assert summary(name).endswith(".")
    assert "\n" not in summary(name)


def test_an_unknown_model_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'dss_v1x'; did you mean 'dss_v1'\?"):
        describe("dss_v1x")


def test_unranged_types() -> None:
    assert allowed_values({"type": "string"}) == "string"
    assert allowed_values({}) == "any"
