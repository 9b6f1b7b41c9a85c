"""Surroundings, margins and explanations from the command line: what is printed, recorded and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from secli.cli.app import app
from secli.datasets.build import make_dataset

Command = Callable[..., Result]

FACTORY = '''"""Convolutions, a stride, and a classifier of one size."""

from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 6, 4, stride=2, padding=1), nn.Flatten(),
        nn.LazyLinear(3)
    )
'''
PHOTOS = ["net.py:build", "--input", "1x32x32", "--data", "photos", "--factors", "0.8"]
DIGITS = [
    "net.py:build",
    "--input",
    "1x28x28",
    "--data",
    "data/digits/r0",
    "--factors",
    "0.8",
    "--images",
    "6",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return digits, photographs large and small, and a network."""
    place = tmp_path_factory.mktemp("surround")
    make_dataset("digits", place / "data", jobs=1)
    generator = np.random.default_rng(0)
    for folder, side in (("photos", 160), ("small", 36)):
        for name in ("left", "right"):
            (place / folder / name).mkdir(parents=True)
            rough = Image.fromarray(generator.integers(40, 216, (side // 8, side // 8), dtype=np.uint8))
            rough.resize((side, side), Image.Resampling.BICUBIC).save(place / folder / name / "0.png")
    (place / "net.py").write_text(FACTORY)
    return place


@pytest.fixture
def secli(home: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(home)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--threads", "1", "-q"])

    return run


def record(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_photographs_that_are_large_enough_are_windows_by_default(secli: Command) -> None:
    found = record(secli("equivariance", *PHOTOS, "--format", "json"))
    assert found["measure"]["surround"] == "photo"
    around = found["surroundings"]
    assert (around["kind"], around["window"], around["pictures"]) == ("photo", [32, 32], [2])
    assert around["enlarged"] == [around["wanted"]]
    assert around["wanted"] % 2 == 0
    assert around["taps"] == ["0", "1", "2"]
    codes = {row["tap"]: [note["code"] for note in row["warnings"]] for row in found["rows"]}
    assert codes["logits"] == ["global"]
    assert not any(code.startswith("frame") for each in codes.values() for code in each)
    again = record(secli("equivariance", *PHOTOS, "--surround", "photo", "--format", "json"))
    assert again["rows"] == found["rows"]


def test_the_table_says_what_is_around(secli: Command) -> None:
    result = secli("equivariance", *PHOTOS)
    assert result.exit_code == 0, result.stderr
    assert "Surround: photo (windows of 32×32 in photographs); enlarged by" in result.stdout
    assert "brought to" not in result.stdout
    black = secli("equivariance", *PHOTOS, "--surround", "black")
    assert "Surround" not in black.stdout
    assert "brought to 32×32 pixels" in black.stdout


def test_small_photographs_and_digits_stay_on_black(secli: Command) -> None:
    small = [*PHOTOS[:4], "small", *PHOTOS[5:]]
    assert record(secli("equivariance", *small, "--format", "json"))["surroundings"] is None
    digits = record(secli("equivariance", *DIGITS, "--format", "json"))
    assert (digits["surroundings"], digits["measure"]["surround"]) == (None, "black")
    result = secli("equivariance", *small, "--surround", "photo")
    assert result.exit_code == 2
    assert "all 2 photographs are smaller than 40×40 pixels" in result.stderr


def test_digits_in_a_folder_are_on_black_and_patterns_of_taps_do_not_hinder_the_list(
    secli: Command, home: Path
) -> None:
    place = home / "pngs" / "one"
    if not place.exists():
        place.mkdir(parents=True)
        dot = np.zeros((28, 28), dtype=np.uint8)
        dot[10:18, 10:18] = 200
        for k in range(3):
            Image.fromarray(np.roll(dot, k, 0)).save(place / f"{k}.png")
    own = ["net.py:build", "--input", "1x28x28", "--data", "pngs", "--factors", "0.8"]
    found = record(secli("equivariance", *own, "--margin", "auto", "--explain", "--format", "json"))
    assert found["surroundings"]["kind"] == "margin"
    assert all(row["border"] == 0 for row in found["rows"])
    listed = secli("equivariance", "net.py:build", "dss_v1", *own[1:], "--taps", "dss_v1:lift", "--list-taps")
    assert listed.exit_code == 0, listed.stderr
    assert "on pictures on black" in listed.stdout


def test_compare_sets_apart_what_had_other_surroundings(secli: Command, tmp_path: Path) -> None:
    for kind in ("photo", "black"):
        saved = secli("equivariance", *PHOTOS, "--surround", kind, "--save", str(tmp_path / kind))
        assert saved.exit_code == 0, saved.stderr
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "photo"), str(tmp_path / "black")])
    assert result.exit_code == 0, result.stderr
    assert "measured otherwise: surround black, not photo" in " ".join(result.stdout.split())


def test_margins_are_told_and_whole_cells(secli: Command) -> None:
    found = record(secli("equivariance", *DIGITS, "--margin", "5", "--format", "json"))
    around = found["surroundings"]
    assert (around["kind"], around["enlarged"], around["taps"]) == ("margin", [6], ["0", "1", "2"])
    assert (
        "An empty margin of 6 px around the pictures"
        in secli("equivariance", *DIGITS, "--margin", "5").stdout
    )
    auto = record(secli("equivariance", *DIGITS, "--margin", "auto", "--format", "json"))
    assert 0 < auto["surroundings"]["enlarged"][0] <= 28
    assert auto["measure"]["margin"] == "auto"


def test_an_explanation_is_a_table_a_record_and_a_figure(secli: Command, tmp_path: Path) -> None:
    figure = tmp_path / "bars.png"
    arguments = [*DIGITS, "--explain-plot", str(figure)]
    found = record(secli("equivariance", *arguments, "--format", "json"))
    assert {row["tap"] for row in found["explained"]} == {"0", "1", "2", "logits"}
    row = found["explained"][0]
    whole = next(each["mean"] for each in found["rows"] if each["tap"] == row["tap"])
    assert row["error"] == pytest.approx(whole)
    assert row["with_margin"] is not None
    assert figure.read_bytes().startswith(b"\x89PNG")
    table = secli("equivariance", *DIGITS, "--explain").stdout
    assert "Where the error comes from" in table
    assert "canvas" in table
    assert "need not add up" in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*PHOTOS, "--surround", "white"], "surround"),
        ([*PHOTOS, "--margin", "4"], "margin: empty pixels go around pictures on black alone"),
        ([*PHOTOS, "--margin", "4", "--surround", "photo"], "exclude each other"),
        ([*DIGITS, "--margin", "4", "--border", "2"], "margin and border exclude each other"),
        ([*PHOTOS, "--explain"], "explain: empty pixels go around pictures on black alone"),
        ([*DIGITS, "--margin", "-1"], "margin"),
        ([*DIGITS, "--margin", "nan"], "margin"),
        ([*DIGITS, "--margin", "wide"], "margin"),
        ([*DIGITS, "--surround", "photo"], "photographs are smaller than"),
        (
            ["cnn", "--data", "data/digits/r0", "--surround", "photo", "--factors", "0.8"],
            "what size of pictures",
        ),
        ([*DIGITS, "--explain-plot", "bars.txt"], "a figure is written as .png, .svg, .pdf"),
        ([*PHOTOS[:-1], "0.05", "--surround", "photo"], "photographs are smaller than 640×640 pixels"),
    ],
)
def test_bad_input_is_one_line(secli: Command, arguments: list[str], words: str) -> None:
    result = secli("equivariance", *arguments)
    assert result.exit_code == 2, result.stdout
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert len(result.stderr) < 400
