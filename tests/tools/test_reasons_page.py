"""The page of codes holds every one of them, as the table of codes words it."""

from pathlib import Path

from secli.records.codes import CODES
from tools.reasons_page import COMMAND, page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_command_writes() -> None:
    assert (DOCS / "reasons.md").read_text(encoding="utf-8") == page(), f"stale: {COMMAND}"


def test_every_code_has_its_line_without_formats() -> None:
    text = page()
    assert all(f"| `{code}` | " in text for code in CODES)
    assert ".2g" not in text
    assert "(N, {shape})" in text
