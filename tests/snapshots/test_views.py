"""What users see of stored runs stays as it is; ``tests.snapshots.views`` writes a wanted change."""

from __future__ import annotations

import pytest

from tests.snapshots.views import SEEN, views

pytestmark = pytest.mark.usefixtures("_described_once")


@pytest.mark.parametrize("name", views())
def test_it_looks_as_it_did(name: str) -> None:
    assert views()[name]() == (SEEN / name).read_text(encoding="utf-8")


def test_no_view_is_left_over() -> None:
    assert {path.name for path in SEEN.iterdir()} == set(views())
