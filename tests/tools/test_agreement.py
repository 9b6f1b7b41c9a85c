"""The page says what is equal to published code: every network once, by tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from secli.catalogue import MODELS
from tools.agreement import AGREEMENTS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list(MODELS.own))
def test_every_network_has_one_row(name: str) -> None:
    assert sum(each.speaks_of(name) for each in AGREEMENTS) == 1


def test_every_row_and_pattern_speaks_of_some_network() -> None:
    for each in AGREEMENTS:
        for pattern in each.networks:
            alone = type(each)((pattern,), each.equal, each.checked, each.differs)
            assert any(alone.speaks_of(name) for name in MODELS.own), pattern


@pytest.mark.parametrize("test", sorted({test for each in AGREEMENTS for test in each.checked}))
def test_the_tests_that_are_named_exist(test: str) -> None:
    file, _, function = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_what_is_said_to_be_equal_has_a_test_and_else_a_reason() -> None:
    for each in AGREEMENTS:
        assert (each.equal == "nothing is compared") is (not each.checked)
        assert each.differs
