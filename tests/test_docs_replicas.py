"""What the page on replicas tells a reader to type works as typed; the training is cut short here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secli.cli.app import app
from secli.datasets.build import make_dataset

PAGE = (Path(__file__).parents[1] / "docs/replicas.md").read_text(encoding="utf-8")
SHORTER = {
    "train": ["--epochs", "1", "--batch", "16", "--device", "cpu", "--threads", "1", "-q"],
    "bench": ["--device", "cpu", "--threads", "1", "-q"],
    "compare": [],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def expanded(word: str) -> list[str]:
    """Return what a shell would make of a word."""
    return sorted(str(found) for found in Path().glob(word)) if word.endswith("*") else [word]


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


def test_commands_and_python_run_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made, *others = commands()
    assert made == "secli make-data digits-scale --realisations 0-2"
    make_dataset("digits-scale", Path("fewer"), realisations=(0, 1, 2), sizes=(32, 10, 10), jobs=1)
    (fewer,) = Path("fewer").iterdir()  # named by its sizes
    Path("data").mkdir()
    fewer.rename("data/digits-scale")
    for command in others:
        name, *arguments = shlex.split(command)[1:]
        named = [found for each in arguments for found in expanded(each)]
        result = CliRunner().invoke(app, [name, *named, *SHORTER[name]])
        assert result.exit_code == 0, (command, result.stderr)
        assert result.stdout
    (program,) = blocks("python")
    exec(compile(program, "docs/replicas.md", "exec"), {})


def test_every_option_the_page_names_exists() -> None:
    known = "".join(
        CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "400"}).stdout
        for name in ("train", "bench", "make-data")
    )
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert {"--replicas", "--at-once"} <= named
    assert not {option for option in named if option not in known}
