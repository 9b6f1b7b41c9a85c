"""How many of secli's functions a command enters: what a reader has to follow.

    python tools/functions_entered.py compare RUN

runs the command in this process under ``sys.setprofile`` (and in every thread it starts) and prints a line per file
and the number of distinct functions. Class bodies, comprehensions and lambdas do not count.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import secli
from secli.cli.app import app

ROOM = str(Path(secli.__file__).parent)


def entered(arguments: list[str]) -> dict[str, set[str]]:
    """Return the functions that a command enters, by file below ``secli/``."""
    found: dict[str, set[str]] = defaultdict(set)
    classes: set[Any] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or code in classes or not code.co_filename.startswith(ROOM):
            return
        classes.add(code)
        if not code.co_name.startswith("<") and not _is_class_body(frame):
            found[code.co_filename.removeprefix(ROOM + "/")].add(
                code.co_qualname if hasattr(code, "co_qualname") else f"{code.co_name}:{code.co_firstlineno}"
            )

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        app(arguments, standalone_mode=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def _is_class_body(frame: FrameType) -> bool:
    """Say whether a frame runs the body of a class, which has no fast locals (CO_NEWLOCALS without CO_OPTIMIZED)."""
    return not frame.f_code.co_flags & 0x1


def main() -> None:
    """Print the functions that the command of the arguments enters."""
    found = entered(sys.argv[1:])
    for file in sorted(found):
        print(f"{len(found[file]):4d}  {file}: {', '.join(sorted(found[file]))}", file=sys.stderr)
    print(f"{sum(map(len, found.values()))} functions in {len(found)} files", file=sys.stderr)


if __name__ == "__main__":
    main()
