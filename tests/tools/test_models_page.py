"""docs/models.md is what the registry says: everything but the measured speeds is made again and compared."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from secli.catalogue import MODELS
from secli.catalogue.families import FAMILIES
from tools.models_page import main

DOCS = Path(__file__).parents[2] / "docs"
SPEED = DOCS / "models-speed.json"
pytestmark = pytest.mark.usefixtures("_described_once")


def page(*arguments: str) -> str:
    with redirect_stdout(io.StringIO()) as text:
        assert main(arguments) == 0
    return text.getvalue()


def row(**changes: Any) -> dict[str, Any]:
    measured = {"images_per_second": 1234.56, "low": 1200.4, "high": 1300.0, "repeats": 5, "batch": 32}
    place = {"device": "a machine", "threads": 2, "torch": "2.9", "command": "secli bench cnn --format json"}
    return {"model": "cnn", "mode": "train", "input": [1, 28, 28], **measured, **place, **changes}


def test_the_page_is_what_the_registry_says() -> None:
    assert (DOCS / "models.md").read_text(encoding="utf-8") == page("--speed", str(SPEED))


def test_the_page_holds_every_model_family_and_option() -> None:
    text = page()
    assert set(re.findall(r"^\| `(\w+)` \| \w+ \| \d×", text, re.MULTILINE)) == set(MODELS.own)
    for name in FAMILIES:
        assert f"## {FAMILIES[name].title}\n" in text
        assert FAMILIES[name].equation in text
    assert "| `dilation` | `floor` | floor, round, exact |" in text
    assert "| `mnist_ses_scalar_28` | `mode=scalar`, `upsampling=1`, `size=15`" in text
    assert "| `block1` | 16×4×14×14 | scale space 1,2,4,8, stride 2, base blur 0.5 |" in text
    assert "images/s" not in text


def test_tables_are_whole() -> None:
    """Every line of a table has as many cells as its header."""
    cells = None
    for line in page("dss_v1").splitlines():
        if not line.startswith("|"):
            cells = None
            continue
        count = len(re.findall(r"(?<!\\)\|", line))
        assert cells in (None, count), line
        cells = count


def test_one_model_has_a_page() -> None:
    text = page("so2_cnn")
    assert "1 networks" not in text
    assert text.count("\n## ") == 4
    assert "coefficients of rotation-steerable filters (`so2_cnn`) | all | normal |" in text
    assert "SESN" not in text


def test_speeds_stand_beside_machine_and_command(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    file.write_text(json.dumps([row(), row(mode="eval", images_per_second=9.876, low=9.1, high=10.2)]))
    text = page("--speed", str(file))
    assert "| 1 235 (1 200–1 300) | 9.88 (9.10–10.2) |\n" in text
    assert "| not measured | not measured |\n" in text
    assert (
        "- 2 timings: 5 repeats, batch 32, a machine, 2 CPU threads, torch 2.9: `secli bench cnn --format json`"
        in text
    )


@pytest.mark.parametrize("content", ["{}", "[1]", "[{}]", "no json", '[{"model": "cnn"}]'])
def test_a_file_that_is_no_benchmark_is_one_line(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "speed.json"
    file.write_text(content)
    assert main(["--speed", str(file)]) == 2
    error = capsys.readouterr().err
    assert error == f"error: --speed {file}: is not what 'secli bench MODEL --format json' prints\n"


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--speed", str(tmp_path / "nothing.json")]) == 2
    assert "No such file" in capsys.readouterr().err
