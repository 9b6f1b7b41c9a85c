"""Every command's help says what its source says: no bracket, star or tag is taken for markup."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from secli.cli.app import app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def solid(text: str) -> str:
    """Return a text without white space: where its lines are broken makes no difference."""
    return re.sub(r"\s", "", text)


def shown(command: str, width: int) -> str:
    """Return the last column of all lines of a command's help, without white space."""
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": str(width)})
    assert result.exit_code == 0, result.output
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line).strip() for line in result.stdout.splitlines()]
    return solid("".join(re.split(r"\s{2,}", line)[-1] for line in lines))


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_says_what_its_source_says(name: str, width: int) -> None:
    command, text = COMMANDS[name], shown(name, width)
    for paragraph in re.split(r"\n\s*\n", inspect.getdoc(command.callback) or ""):
        assert solid(paragraph) in text
    for parameter in command.params:
        if getattr(parameter, "help", None):
            # in the source a bracket that is no markup is written \\[
            assert solid(parameter.help.replace("\\[", "[")) in text, parameter.name


def test_brackets_of_paths_are_shown() -> None:
    text = shown("make-data", 100)
    assert "OUT/DATASET/r<k>/" in text
    assert "toDIR/DATASET/r<k>/,as<split>/<class>/<index>.png" in text
    assert "afactorfromU[0.5,2]" in shown("train", 100)


def test_what_holds_when_an_option_is_left_out_is_told_in_one_way() -> None:
    told = [
        each.help or "" for command in COMMANDS.values() for each in command.params if hasattr(each, "help")
    ]
    assert len(told) > 100
    assert [text for text in told if "efault:" in text.replace("\\[default: ", "")] == []


@pytest.mark.parametrize(
    "name", [n for n, c in COMMANDS.items() if any(p.name == "format" for p in c.params)]
)
def test_every_command_refuses_an_unknown_format_in_the_same_words(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--format", "jsn"])
    assert result.exit_code == 2
    assert result.stderr == "error: unknown format --format 'jsn'; did you mean 'json'?\n"


def test_an_empty_path_is_refused_after_a_switch_too() -> None:
    for arguments in (
        ["compare", "--accuracy", ""],
        ["report", "--published", ""],
        ["equivariance", "-q", ""],
    ):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, "an empty path" in result.stderr) == (2, True), result.stderr
    result = CliRunner().invoke(app, ["compare", "--sort", ""])  # of an option it is the value
    assert "an empty path" not in result.stderr
