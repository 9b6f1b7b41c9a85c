"""A small seeded part of the campaigns that need no more than bad input: ``make campaign`` tries hundreds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns import bad_input, hostile_names
from tests.campaigns.bad_input import Case
from tests.campaigns.forked import Ended, warm
from tests.campaigns.standing import Standing, stand_up


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Standing:
    warm()
    return stand_up(tmp_path_factory.mktemp("campaign") / "standing")


def test_bad_input_is_refused_in_a_line_and_changes_nothing(standing: Standing, tmp_path: Path) -> None:
    survived, lost = bad_input.campaign(16, 1, tmp_path, standing)
    assert not lost
    assert survived == 16


def test_hostile_names_harm_nobody(standing: Standing, tmp_path: Path) -> None:
    tried, lost = hostile_names.campaign(8, 1, tmp_path, standing)
    assert not lost
    assert tried == 8


GOOD = Ended(2, 0.1, 0.1, "", "error: no\n")


@pytest.mark.parametrize(
    ("ended", "gone", "told"),
    [
        (GOOD, [], None),
        (Ended(0, 0.1, 0.1, "", ""), [], "exit code 0"),
        (Ended(70, 0.1, 0.1, "", "error: this is a bug in secli"), [], "traceback"),
        (Ended(1, 0.1, 0.1, "", "Traceback (most recent call last)\n"), [], "traceback"),
        (Ended(2, 30.0, 25.0, "", "error: no\n"), [], "25 s of work"),
        (Ended(-9, 60.0, 0.1, "", ""), [], "s of work"),
        (Ended(2, 0.1, 0.1, "", f"error: {'x' * 500}\n"), [], "a line of 507"),
        (Ended(2, 0.1, 0.1, "", "no\n"), [], "no line that says why"),
        (Ended(2, 0.1, 0.1, "", "error: \x1b[31m\n"), [], "control character"),
        (GOOD, ["record.json"], "changed: record.json"),
    ],
)
def test_what_is_promised_is_what_is_judged(ended: Ended, gone: list[str], told: str | None) -> None:
    found = bad_input.problems(Case(("compare",), "", must_fail=True), ended, gone)
    assert (found == []) if told is None else any(told in each for each in found)
