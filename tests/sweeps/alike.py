"""Two run directories that must be the same, but for what no two runs share: times, and who commanded them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OF_THE_MOMENT = {
    "seconds",
    "train_seconds",
    "images_per_second",
    "created",
    "command",
    "commit",
}


def without_times(content: Any) -> Any:
    """Return parsed JSON without what differs from run to run."""
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if key not in OF_THE_MOMENT}
    return [without_times(value) for value in content] if isinstance(content, list) else content


def contents(run: Path, named: str) -> dict[str, Any]:
    """Return what stands in a run directory, file by file; the directory's own name is written as ``named``.

    The saved state holds times too; it is left to the weights and metrics, which follow from it.
    """
    found: dict[str, Any] = {}
    for file in sorted(file for file in run.rglob("*") if file.is_file()):
        name = file.relative_to(run).as_posix()
        if file.suffix in (".json", ".jsonl"):
            text = file.read_text(encoding="utf-8").replace(str(run), named)
            lines = [text] if file.suffix == ".json" else text.splitlines()
            found[name] = [without_times(json.loads(line)) for line in lines]
        else:
            found[name] = "" if name.startswith("state/") else file.read_bytes()
    return found


def assert_alike(run: Path, other: Path) -> None:
    """Check that two run directories hold the same files with the same content."""
    mine, theirs = contents(run, "RUN"), contents(other, "RUN")
    assert mine.keys() == theirs.keys()
    for name, content in mine.items():
        assert content == theirs[name], name
