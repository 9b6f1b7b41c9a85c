"""``docs/sweeps.md`` explains every key of a sweep's file, in the schema's own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from secli.config import Settings
from secli.sweeps.spec import Part, Sweep, SweptDataset, SweptModel, SweptTable

PAGE = Path(__file__).parents[2] / "docs" / "sweeps.md"


@pytest.mark.parametrize("kind", [Sweep, Part, SweptModel, SweptDataset, SweptTable])
def test_every_key_is_explained(kind: type[Settings]) -> None:
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    for name, field in kind.model_fields.items():
        assert f"| `{name}` | {field.description} |" in rows
