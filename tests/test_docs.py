"""What the pages tell a reader to type works as typed; commands on digits run here with fewer pictures."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from secli.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/measuring.md")
FENCE = re.compile(r"^```(\w*) ?([\w.]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FEWER = ["--images", "4", "--threads", "1", "-q"]


class Block(NamedTuple):
    """One fenced block: its language, the file it is, its text."""

    language: str
    file: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall((ROOT / page).read_text(encoding="utf-8"))]


def commands(page: str) -> Iterator[str]:
    for block in blocks(page):
        if block.language == "sh":
            yield from (line for line in block.text.splitlines() if line.startswith("secli "))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the page's files and digits in it, as the reader would have it."""
    place = tmp_path_factory.mktemp("docs")
    for block in blocks("docs/measuring.md"):
        if block.file:
            (place / block.file).write_text(block.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        made = CliRunner().invoke(app, ["make-data", "digits", "--jobs", "1"])
        assert made.exit_code == 0, made.stderr
    return place


@pytest.mark.parametrize("command", list(commands("docs/measuring.md")))
def test_commands_run_as_typed(desk: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(desk)
    arguments = shlex.split(command)[1:]
    more = FEWER if arguments[0] == "equivariance" else []
    result = CliRunner().invoke(app, [*arguments, *more])
    missing = "dead.py" in command or command.endswith("--taps block2 --images 50")
    assert result.exit_code == (1 if missing else 0), result.stderr
    assert result.stdout


@pytest.mark.parametrize("page", PAGES)
def test_python_runs_as_printed(page: str) -> None:
    sizes = np.kron(load_digits().images[:4, None] / 16, np.ones((3, 3)))
    pictures = torch.nn.functional.pad(torch.from_numpy(sizes).float(), (2, 2, 2, 2))
    smooth = torch.nn.functional.avg_pool2d(pictures, 5, 1, 2)
    names: dict[str, Any] = {"pictures": smooth}
    for block in blocks(page):
        if block.language == "python" and not block.file:
            exec(compile(block.text, page, "exec"), names)


def test_the_files_of_the_page_are_python(desk: Path) -> None:
    for file in desk.glob("*.py"):
        compile(file.read_text(), str(file), "exec")
    assert {"plain.py", "lift.py", "dog.py", "pick.py", "dead.py"} <= {
        file.name for file in desk.glob("*.py")
    }


@pytest.mark.parametrize(
    ("file", "function", "declared", "tap"),
    [
        ("plain.py", "with_biases", [], "block2"),
        ("plain.py", "without_biases", ["--background", "none"], "block2"),
        ("lift.py", "right", ["--field", "lift=scale:1,2,4,8,blur=0.5", "--per", "level"], "lift"),
        ("lift.py", "planes", ["--per", "channel"], "lift"),
        (
            "dog.py",
            "build",
            ["--field", "dog=scale:1,2,4,blur=1", "--surround", "black", "--border", "0"],
            "dog",
        ),
    ],
)
def test_the_files_of_the_page_are_measured(
    desk: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    function: str,
    declared: list[str],
    tap: str,
) -> None:
    monkeypatch.chdir(desk)
    where = ["--input", "1x28x28", "--data", "data/digits/r0", "--factors", "0.8", "--taps", tap]
    result = CliRunner().invoke(app, ["equivariance", f"{file}:{function}", *where, *declared, *FEWER])
    assert result.exit_code == 0, result.stderr
    assert tap in result.stdout


def test_every_option_the_page_names_exists() -> None:
    commands = ("equivariance", "robustness", "bench", "train", "make-data")
    known = "".join(
        CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "400"}).stdout for name in commands
    )
    named = set(
        re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / "docs/measuring.md").read_text(encoding="utf-8"))
    )
    assert named
    assert not {option for option in named if option not in known}


def links(page: Path) -> list[str]:
    """Return the targets of a page's links, without those in code."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    found = re.findall(
        r"\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]:\s+(\S+)|(?:href|src)=\"([^\"]+)\"", text, re.MULTILINE
    )
    return [next(filter(None, groups)) for groups in found]


def broken_links(page: Path) -> list[str]:
    """Return a page's relative links that lead to no file."""
    relative = [link for link in links(page) if not re.match(r"[a-z][a-z+.-]*:|#", link)]
    return [link for link in relative if not (page.parent / link.partition("#")[0]).exists()]


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))],
)
def test_every_relative_link_leads_to_a_file(page: str) -> None:
    assert broken_links(ROOT / page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '[a](page.md#top) [b](https://a.b/c) [c](#top) [d](gone.md "title") ![e](gone.png) `[f](code.md)`\n\n'
        '[g]: gone/too.md\n<img src="gone.svg">\n'
    )
    assert broken_links(page) == ["gone.md", "gone.png", "gone/too.md", "gone.svg"]
