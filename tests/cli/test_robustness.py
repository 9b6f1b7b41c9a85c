"""``secli robustness``: a row per network, labels by folder, five formats, the figure, and bad input in one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from secli.cli.app import app
from secli.datasets.build import make_dataset

NETWORKS = """
import torch
from torch import nn

class Bright(nn.Module):
    '''Class 1 where the middle is bright; exact, so that no machine classifies otherwise.'''
    def __init__(self):
        super().__init__()
        self.body = nn.AvgPool2d(3, 1, 1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-8.0], [8.0]]))
            self.head.bias.copy_(torch.tensor([4.0, -4.0]))

    def forward(self, x):
        x = self.body(x.mean(1, keepdim=True))
        return self.head(x[:, :, x.shape[2] // 2, x.shape[3] // 2])

def bright():
    return Bright()

def digits():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *head)

def many():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *head)

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        assert x.shape[2] == 7, "seven rows only"
        return self.conv(x).mean((2, 3))

def fixed():
    return Fixed()

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return (self.conv(x) + torch.rand(1)).mean((2, 3))

def noisy():
    return Noisy()
"""
FEW = ["--factors", "0.7,1.4", "--threads", "1", "-q"]

Compare = Callable[..., Result]


def shade(folder: Path, level: int) -> None:
    """Six blurred discs of one brightness on grey."""
    folder.mkdir(parents=True)
    axis = np.linspace(-1, 1, 24)
    disc = np.exp(-2 * (axis[:, None] ** 2 + axis[None, :] ** 2))
    for number in range(6):
        grey = 90 + number + (level - 90) * disc
        Image.fromarray(np.repeat(grey[..., None], 3, 2).astype(np.uint8)).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("robustness")
    make_dataset("digits", place, jobs=1)
    (place / "nets.py").write_text(NETWORKS)
    for folder, names in {"discs": ("dark", "light"), "named": ("Tench", "great_white_shark")}.items():
        for name, level in zip(names, (20, 240), strict=True):
            shade(place / folder / name, level)
    return place


@pytest.fixture
def robustness(home: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    monkeypatch.chdir(home)
    return lambda *arguments: CliRunner().invoke(app, ["robustness", *arguments, *FEW])


def rows_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_folders_of_a_networks_own_classes_give_an_accuracy(robustness: Compare) -> None:
    (row,) = rows_of(robustness("nets.py:bright", "--data", "discs", "--format", "json"))
    assert row["accuracy"] == 1
    assert row["accuracy_area"] == pytest.approx(1)
    assert row["agreement_area"] == pytest.approx(1)
    assert row["consistency"] == 1
    assert row["parameters"] == 4
    assert row["flops"] == 4  # one product of 1 × 1 by 1 × 2
    assert row["images_per_second"] > 0
    assert (row["reason"], row["weights"]) == (None, None)
    assert -1 <= row["cosine"] <= 1


def test_each_network_has_its_row_or_its_reason(robustness: Compare) -> None:
    nets = ("nets.py:bright", "nets.py:fixed", "nets.py:noisy", "mnist_cnn_28", "torchvision:squeezenet1_1")
    result = robustness(*nets, "--data", "discs", "--format", "json", "--input", "squeezenet1_1:3x32x32")
    rows = {row["network"]: row for row in rows_of(result)}
    assert list(rows) == list(nets)
    assert rows["nets.py:bright"]["accuracy"] == 1
    assert "seven rows only" in rows["nets.py:fixed"]["reason"]
    assert "gives other features for the same pictures" in rows["nets.py:noisy"]["reason"]
    assert "mnist_cnn_28" in rows["mnist_cnn_28"]["reason"]
    drawn = rows["torchvision:squeezenet1_1"]
    assert (drawn["accuracy"], drawn["reason"]) == (None, "the weights are random")
    assert drawn["agreement_area"] is not None
    assert (drawn["parameters"], drawn["weights"]) == (1_235_496, "untrained, seed 0")
    assert "— accuracy: the weights are random: torchvision:squeezenet1_1." in result.stderr


def test_digits_and_another_number_of_classes(robustness: Compare) -> None:
    result = robustness("nets.py:digits", "--data", "digits/r0", "--images", "12", "--format", "json")
    (row,) = rows_of(result)
    assert 0 <= row["accuracy"] <= 1
    assert 0 <= row["accuracy_area"] <= 1
    (other,) = rows_of(
        robustness("nets.py:digits", "--data", "discs", "--input", "1x24x24", "--format", "json")
    )
    assert other["accuracy"] is None
    assert other["reason"] == "the network has 10 outputs, the images 2 classes"
    assert other["agreement_area"] is not None


def test_names_of_imagenet_are_found_among_1000_outputs(robustness: Compare) -> None:
    (row,) = rows_of(robustness("nets.py:many", "--data", "named", "--format", "json"))
    assert row["accuracy"] is not None
    (lost,) = rows_of(robustness("nets.py:many", "--data", "discs", "--format", "json"))
    assert lost["reason"] == "the folder 'dark' is none of the network's 1000 categories"


def test_labels_are_read_in_the_classes_of_published_weights(
    robustness: Compare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in for published weights: squeezenet whose class 2 (the shark) always wins."""
    import torchvision

    network = torchvision.models.squeezenet1_1()
    last = network.classifier[1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[2] = 9.0
    file = tmp_path / "published.pth"
    torch.save(network.state_dict(), file)
    monkeypatch.setattr("secli.external.torchvision_timm.fetch", lambda url, offline: file)
    asked = ("torchvision:squeezenet1_1", "--weights", "DEFAULT", "--format", "json", "--input", "3x32x32")
    (row,) = rows_of(robustness(*asked, "--data", "named"))
    assert row["accuracy"] == 0.5  # half of the pictures are sharks
    assert row["accuracy_area"] == pytest.approx(0.5)
    assert row["probability_drop"] == pytest.approx(0, abs=1e-6)
    assert row["weights"] == "IMAGENET1K_V1"
    (lost,) = rows_of(robustness(*asked, "--data", "discs"))
    assert lost["reason"] == "the folder 'dark' is none of the network's 1000 categories"


def test_rows_are_sorted(robustness: Compare) -> None:
    nets = ("nets.py:bright", "nets.py:many", "--data", "discs", "--format", "json")
    by_size = rows_of(robustness(*nets, "--sort=-parameters"))
    assert [row["network"] for row in by_size] == ["nets.py:many", "nets.py:bright"]
    by_accuracy = rows_of(robustness(*nets, "--sort", "accuracy"))
    assert [row["network"] for row in by_accuracy] == ["nets.py:bright", "nets.py:many"]


@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv", "json"])
def test_five_formats(robustness: Compare, form: str) -> None:
    result = robustness("nets.py:bright", "nets.py:many", "--data", "discs", "--format", form)
    assert result.exit_code == 0, result.output
    assert "nets.py:bright" in result.stdout.replace("\\_", "_")
    if form == "csv":
        lines = list(csv.DictReader(io.StringIO(result.stdout)))
        assert lines[0]["accuracy_percent"] == "100.0"
        assert lines[1]["accuracy_percent"] == ""
    elif form != "json":
        assert "Robustness to a change of scale" in result.stdout
        assert result.stderr == ""


def test_the_figure_and_its_caption(robustness: Compare, tmp_path: Path) -> None:
    file = tmp_path / "figure.png"
    nets = ("nets.py:bright", "nets.py:many", "--data", "discs", "--caption")
    result = robustness(*nets, "--plot", str(file), "--label", "nets.py:bright=the bright one")
    assert result.exit_code == 0, result.output
    with Image.open(file) as image:
        assert image.format == "PNG"
    caption = (tmp_path / "figure.png.txt").read_text(encoding="utf-8")
    assert caption.startswith("Area under accuracy over accuracy at s = 1")
    assert "Not drawn: nets.py:many." in caption


def test_a_factor_of_1_is_always_measured(robustness: Compare) -> None:
    result = robustness("nets.py:bright", "--data", "discs")
    assert "s = 0.7, 1, 1.4" in result.stdout


def test_when_none_can_be_measured_the_work_has_failed(robustness: Compare) -> None:
    result = robustness("nets.py:fixed", "nets.py:noisy", "--data", "discs")
    assert result.exit_code == 1
    assert "— nets.py:fixed: " in result.stdout
    assert "error: no network could be measured" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nets.py:bright"], "Missing option '--data'"),
        (["--data", "discs"], "Missing argument"),
        (["nets.py:bright", "--data", "gone"], "--data gone: no such directory"),
        (["nets.py:brigt", "--data", "discs"], "did you mean 'bright'?"),
        (["nets.py:bright", "netz.py:bright", "--data", "discs"], "no such file: netz.py"),
        (["torchvision:resnet81", "--data", "discs"], "unknown torchvision model 'resnet81'"),
        (["nets.py:bright", "runs/none", "--data", "discs"], "'runs/none' is neither a run directory"),
        (["nets.py:fixed", "--data", "discs"], "seven rows only"),
        (["nets.py:bright", "--data", "discs", "--factors", "0"], "--factors 0: a scale factor must be"),
        (["nets.py:bright", "--data", "discs", "--images", "0"], "--images"),
        (["nets.py:bright", "--data", "discs", "--batch", "-1"], "--batch"),
        (["nets.py:bright", "--data", "discs", "--depth", "2"], "--depth"),
        (["nets.py:bright", "--data", "discs", "--sort", "size"], "unknown column --sort 'size'"),
        (["nets.py:bright", "--data", "discs", "--plot", "f.gif"], "choose one of these suffixes"),
        (["nets.py:bright", "--data", "discs", "--caption"], "--caption: goes with --plot FILE"),
        (["nets.py:bright", "--data", "discs", "--label", "a=b", "--plot", "f.png"], "network --label 'a'"),
        (["nets.py:bright", "--data", "discs", "--input", "3x24"], "--input 3x24: write channels"),
        (["mnist_cnn_28", "--data", "discs", "--mean", "0.5"], "--mean: is for networks outside"),
        (["nets.py:bright", "--data", "discs", "--weights", "DEFAULT"], "--weights DEFAULT"),
        (["nets.py:bright", "--data", "discs", "--device", "tpu"], "tpu"),
        (["nets.py:bright", "--data", ""], "--data: an empty path"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(robustness: Compare, arguments: list[str], message: str) -> None:
    given = {"--factors"} & set(arguments)
    result = CliRunner().invoke(app, ["robustness", *arguments, "-q"]) if given else robustness(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
