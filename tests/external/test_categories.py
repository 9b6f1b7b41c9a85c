"""Classes by name: categories of published weights, ImageNet's names and wnids, and what is no category."""

from __future__ import annotations

import sys

import pytest

from secli.external.categories import class_names, matched, plain_name


def test_categories_of_published_weights_are_known_by_name() -> None:
    known = class_names("torchvision:resnet18", "IMAGENET1K_V1", 1000)
    assert (known["tench"], known["great white shark"], known["toilet tissue"]) == (0, 2, 999)
    assert matched(["Tench", "GREAT_white_Shark"], known) == [0, 2]
    assert matched(["tench", "my holiday"], known) == "my holiday"


def test_wnids_are_known_with_timm() -> None:
    pytest.importorskip("timm")
    known = class_names("timm:resnet10t", "c3_in1k", 1000)
    assert matched(["n01440764", "n15075141"], known) == [0, 999]
    assert matched(["N01440764"], known) == [0]


def test_without_timm_names_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.data", None)
    known = class_names("torchvision:resnet18", "IMAGENET1K_V1", 1000)
    assert known["tench"] == 0
    assert matched(["n01440764"], known) == "n01440764"


def test_other_numbers_of_classes_have_no_names() -> None:
    assert class_names("torchvision:resnet18", "IMAGENET1K_V1", 10) == {}
    assert class_names("nets.py:build", None, 10) == {}
    assert class_names("nets.py:build", None, 1000)["tench"] == 0


def test_a_name_that_two_classes_share_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secli.external.categories._categories", lambda *_: ["crane", "cat", "Crane"])
    assert class_names("torchvision:resnet18", "V1", 3) == {"cat": 1}


def test_plain_names_differ_in_neither_case_nor_underscores() -> None:
    assert plain_name(" Great__White shark") == plain_name("great_white_SHARK") == "great white shark"
