"""Tables as JSON: numbers unrounded, fractions as fractions, null where there is no value."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from secli.tables.statistic import Statistic
from secli.tables.table import Table

# what a terminal obeys: other controls and marks of direction; JSON's own escapes hold the rest
_OBEYED = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def dump_json(content: Any) -> str:
    """Write JSON as all commands do: readable, UTF-8, no NaN."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # within strings alone, where \\u009b is the same character and no terminal obeys it
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def json_rows(table: Table) -> list[dict[str, Any]]:
    """Return the rows as JSON objects; a statistic is ``{mean, std, n}``."""
    table = table.machine or table
    keys = [column.key for column in table.columns]
    values = [
        [asdict(v) if isinstance(v := cell.value, Statistic) else v for cell in row] for row in table.rows
    ]
    return [dict(zip(keys, row, strict=True)) for row in values]


def document(tables: Sequence[Table], **more: Any) -> dict[str, Any]:
    """Return several tables as one JSON object: ``{..., tables: [{title, rows, notes}]}``."""
    listed = [{"title": one.title, "rows": json_rows(one), "notes": list(one.notes)} for one in tables]
    return {**more, "tables": listed}
