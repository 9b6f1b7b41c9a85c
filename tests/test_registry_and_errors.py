"""Unknown names suggest the near miss; duplicates are errors; exit codes are what the documentation says."""

from dataclasses import dataclass

import pytest

from secli.errors import InputError, InterruptedRunError, SecliError, UnknownNameError, suggestion
from secli.registry import Registry


@dataclass(frozen=True)
class Thing:
    name: str


def test_lookup_order_and_membership() -> None:
    things = Registry("thing", [Thing("b"), Thing("a")])
    assert list(things) == ["b", "a"]
    assert things["a"] == Thing("a")
    assert "b" in things
    assert len(things) == 2


def test_an_unknown_name_suggests_the_near_miss() -> None:
    things = Registry("thing", [Thing("mnist_cnn_28"), Thing("dss_v1")])
    with pytest.raises(UnknownNameError, match="unknown thing 'mnist_cnn28'; did you mean 'mnist_cnn_28'\\?"):
        things["mnist_cnn28"]
    with pytest.raises(UnknownNameError, match="unknown thing 'vit'; known: dss_v1, mnist_cnn_28"):
        things["vit"]


def test_a_duplicate_is_an_error() -> None:
    with pytest.raises(ValueError, match="thing 'a' is registered twice"):
        Registry("thing", [Thing("a"), Thing("a")])


def test_exit_codes() -> None:
    assert SecliError.exit_code == 1
    assert InputError.exit_code == UnknownNameError.exit_code == 2
    assert InterruptedRunError.exit_code == 130
    assert suggestion("x", []) == ""
