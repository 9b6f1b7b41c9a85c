"""The house as docs/architecture.md draws it: its rooms and files exist, a class's name is its own, no room swells."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "secli"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rooms() -> dict[str, list[Path]]:
    """Return the files of each room: a package below ``secli/``, or a module of the ground floor by itself."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        found[file.relative_to(PACKAGE).parts[0].removesuffix(".py")].append(file)
    return found


def test_the_page_names_every_room_and_no_other() -> None:
    table = "".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    named = {name.rstrip("/") for name in re.findall(r"`(\w+/?)`", table)}
    assert named == set(rooms()) - {"__init__", "__main__"}


def test_files_that_the_page_names_exist() -> None:
    files = re.findall(r"`((?:\w+/)*\w+\.py)`", PAGE)
    assert len(files) > 10
    assert [file for file in files if not (PACKAGE / file).is_file() and not (ROOT / file).is_file()] == []


def test_no_two_public_classes_share_a_name() -> None:
    where = defaultdict(list)
    for files in rooms().values():
        for file in files:
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    where[node.name].append(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in where.items() if len(files) > 1} == {}


def test_no_room_holds_more_than_15_per_cent_of_the_lines() -> None:
    lines = Counter(
        {room: sum(len(file.read_bytes().splitlines()) for file in files) for room, files in rooms().items()}
    )
    room, most = lines.most_common(1)[0]
    assert most < 0.15 * lines.total(), room
