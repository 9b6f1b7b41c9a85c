from __future__ import annotations

import subprocess
import sys

import pytest

from secli.catalogue import MODELS
from secli.catalogue.families import FAMILIES, Family


def test_every_model_belongs_to_a_family_and_every_family_has_one() -> None:
    assert {MODELS[name].family for name in MODELS.own} == set(FAMILIES)


@pytest.mark.parametrize("family", [FAMILIES[name] for name in FAMILIES], ids=lambda family: family.name)
def test_a_family_says_what_it_is(family: Family) -> None:
    assert family.title[0].isupper()
    # two sentences, whole ones
    assert family.idea.count(". ") == 1, family.idea
    assert family.idea.endswith(".")
    assert "=" in family.equation
    assert family.paper
    assert all(each.endswith(".") and "\n" not in each for each in family.differs)


def test_the_families_answer_without_torch() -> None:
    program = "import sys; import secli.catalogue.families; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
