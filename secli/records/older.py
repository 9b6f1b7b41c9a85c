"""Records of older schemas, brought to the next one when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from secli.records.notes import recognised

ROWS = ("rows", "accuracy", "lie", "local")
Content = dict[str, Any]


def from_1(content: Content) -> Content:
    """Return a record of version 1, whose reasons and warnings are sentences, as one of version 2: notes.

    What has another form than version 1 has is left for the schema to refuse.
    """
    for part in _with_notes(content):
        if isinstance(part.get("reason"), str):
            part["reason"] = recognised(part["reason"]).model_dump()
        if isinstance(part.get("warnings"), list):
            part["warnings"] = [
                recognised(told).model_dump() if isinstance(told, str) else told for told in part["warnings"]
            ]
    controls = content.get("controls")
    if isinstance(controls, list):
        controls = [from_1(one) if isinstance(one, dict) else one for one in controls]
        content = {**content, "controls": controls}
    return {**content, "schema_version": 2}


def _with_notes(content: Content) -> Iterator[Content]:
    """Yield the record and its rows."""
    yield content
    for name in ROWS:
        rows = content.get(name)
        yield from (row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()


# version found -> function to the next version; version 1 is the first
MIGRATIONS: dict[int, Callable[[Content], Content]] = {1: from_1}
