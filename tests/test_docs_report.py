"""The commands of docs/report.md run as typed, on fewer pictures and after one epoch; the options it names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secli.cli.app import app

PAGE = (Path(__file__).parents[1] / "docs" / "report.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LESS = {"train": ["--epochs", "1", "-q"], "equivariance": ["--images", "4", "--threads", "1", "-q"]}


def expanded(words: list[str]) -> list[str]:
    """Return the words as a shell would hand them on."""
    return [str(found) for word in words for found in (sorted(Path().glob(word)) if "*" in word else [word])]


def test_the_commands_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [line for block in BLOCKS for line in block.splitlines()]
    assert len(commands) >= 8
    for command in commands:
        words = expanded(shlex.split(command)[1:])
        result = CliRunner().invoke(app, [*words, *LESS.get(words[0], [])])
        assert result.exit_code == 0, f"{command}: {result.stderr}"
    assert Path("report.html").is_file()
    assert sorted(path.name for path in Path("results").iterdir()) == [
        f"{stem}{end}" for stem in ("digits", "report") for end in ("-curves-1.png", "-heatmap-1.png", ".md")
    ]
    assert "Two networks on digits" in Path("results/digits.md").read_text(encoding="utf-8")


def test_every_option_the_page_names_exists() -> None:
    pages = ("report", "train", "equivariance")
    known = "".join(CliRunner().invoke(app, [one, "--help"], env={"COLUMNS": "400"}).stdout for one in pages)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert named
    assert not {option for option in named if option not in known}
