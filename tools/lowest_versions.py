"""Print the lower bounds of pyproject.toml as pip constraints: ``torch>=2.4`` becomes ``torch==2.4``.

What a user installs is held to its bound: the dependencies and the libraries of the extras. The tools of ``dev`` are
taken as pip resolves them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # pip brings its own reader of TOML
    from pip._vendor import tomli as tomllib

TOOLS = ("beartype", "hypothesis", "import-linter", "mypy", "pytest", "pytest-xdist", "ruff")
BOUND = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?\s*>=\s*(?P<version>[\w.]+)")


def constraints(pyproject: Path) -> list[str]:
    """Return ``name==version`` for every lower bound; exit when a dependency has none."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    found = {}
    for requirement in project["dependencies"]:
        match = BOUND.fullmatch(requirement)
        if match is None:
            sys.exit(f"{pyproject}: dependency '{requirement}' is not of the form name>=version")
        found[match["name"]] = match["version"]
    for extra in project["optional-dependencies"].values():
        for match in filter(None, map(BOUND.fullmatch, extra)):
            if match["name"] not in TOOLS:
                found[match["name"]] = match["version"]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


if __name__ == "__main__":
    print("\n".join(constraints(Path(__file__).resolve().parent.parent / "pyproject.toml")))
