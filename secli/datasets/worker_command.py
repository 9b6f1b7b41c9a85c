"""The command of a worker process: a fresh interpreter that imports nothing from the working directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import secli

START = """\
import sys
if sys.path[:1] == [""]: del sys.path[0]
module = sys.argv[1]
sys.path += [path for path in sys.argv[2:] if path not in sys.path]
sys.argv[:] = [module]
__import__(module, fromlist=["main"]).main()
"""
"""What a worker runs first. Python puts the working directory first on the path (-P, which would not, is of 3.11): a
file ``json.py`` there would be imported instead of Python's own. PYTHONPATH stays in force."""


def worker_command(module: str, paths: Sequence[str] = (), start: str = START) -> list[str]:
    """Return the command that runs ``main()`` of a module of this package in a new interpreter.

    ``paths`` are directories to import from after the interpreter's own, this package's being the last of them;
    ``start`` is the code that runs first.
    """
    return [sys.executable, "-c", start, module, *paths, package_home()]


def package_home() -> str:
    """Return the directory that contains this package, which need not be installed."""
    return str(Path(next(iter(secli.__path__))).resolve().parent)


@contextmanager
def safe_path() -> Iterator[None]:
    """Let processes that ``multiprocessing`` starts meanwhile import nothing from the working directory.

    Python 3.10 knows no such switch, and these processes then see that directory first, as they always did.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
