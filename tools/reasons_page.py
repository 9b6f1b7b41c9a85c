"""Write the page of all codes of reasons and warnings: ``python -m tools.reasons_page > docs/reasons.md``."""

from __future__ import annotations

import re
import sys

from secli.records.codes import GROUPS, Code

COMMAND = "python -m tools.reasons_page > docs/reasons.md"
HEAD = f"""# Reasons and warnings

Written by `{COMMAND}`; edit `secli/records/codes.py`, not this page.

A missing value of a record has a `reason`, and a value may have `warnings`. In JSON each is a code with its data,
`{{"code": "too-few-cells", "data": {{"cells": 3.5, "least": 4}}}}`; tables, figures, CSV and `secli.measure` show its
words. Data stand in braces. Where several rows have one code and the same texts among their data, tables and figures
tell it once, with the range of each number. Records of schema version 1 hold sentences: these are recognised when they
are read, and what is not has the code `older`.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, codes in GROUPS.items():
        lines = [f"## {title}", "", "| code | words | meaning |", "| --- | --- | --- |"]
        lines += [_line(name, code) for name, code in codes.items()]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _line(name: str, code: Code) -> str:
    return f"| `{name}` | {re.sub(r':[^{}]*}', '}', code.words)} | {code.means} |"


if __name__ == "__main__":
    sys.stdout.write(page())
