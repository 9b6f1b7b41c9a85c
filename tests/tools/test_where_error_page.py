"""The page on where the error comes from is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from tools.where_error_page import BEGIN, END, table

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_s_table_is_that_of_its_rows() -> None:
    rows = json.loads((DOCS / "where-error-comes-from.json").read_text(encoding="utf-8"))
    text = (DOCS / "where-error-comes-from.md").read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == table(rows)
    assert (DOCS / "where-error-comes-from.png").is_file()
