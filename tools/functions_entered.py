"""How many of secli's functions a command enters: what a reader has to follow.

    python tools/functions_entered.py compare RUN

runs the command in this process under ``sys.setprofile`` (and in every thread it starts) and prints a line per file
and the number of distinct functions. What runs while modules are imported does not count, nor do class bodies,
comprehensions and lambdas.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType

import secli
from secli.cli.app import app

ROOM = str(Path(secli.__file__).parent)


def entered(arguments: list[str]) -> dict[str, set[str]]:
    """Return the functions that a command enters, by file below ``secli/``."""
    found: dict[str, set[str]] = defaultdict(set)
    seen: set[CodeType] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or code in seen or not code.co_filename.startswith(ROOM):
            return
        if code.co_name.startswith("<") or _defines(frame):
            seen.add(code)
        elif not _while_importing(frame):
            seen.add(code)
            name = getattr(code, "co_qualname", f"{code.co_name}:{code.co_firstlineno}")
            found[code.co_filename.removeprefix(ROOM + "/")].add(name)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        app(arguments, standalone_mode=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def _defines(frame: FrameType) -> bool:
    """Say whether a frame runs the body of a class, which has no fast locals (no CO_OPTIMIZED)."""
    return not frame.f_code.co_flags & 0x1


def _while_importing(frame: FrameType) -> bool:
    """Say whether a frame runs because a module of the package is being imported."""
    above = frame.f_back
    while above is not None:
        if above.f_code.co_name == "<module>" and above.f_code.co_filename.startswith(ROOM):
            return True
        above = above.f_back
    return False


def main() -> None:
    """Print the functions that the command of the arguments enters."""
    found = entered(sys.argv[1:])
    for file in sorted(found):
        print(f"{len(found[file]):4d}  {file}: {', '.join(sorted(found[file]))}", file=sys.stderr)
    print(f"{sum(map(len, found.values()))} functions in {len(found)} files", file=sys.stderr)


if __name__ == "__main__":
    main()
