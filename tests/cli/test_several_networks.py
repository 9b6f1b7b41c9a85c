"""Several networks in one call: each takes the patterns, fields and sizes that are for it; nothing is taken by none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from secli.cli.app import app
from secli.cli.networks import addressee
from secli.datasets.build import make_dataset
from secli.errors import InputError

NETWORKS = """
from torch import nn

def small():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *head)

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.body(self.stem(x).relu()).mean((2, 3)))

def named():
    return Named()
"""

Measure = Callable[..., Result]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("several")
    make_dataset("digits", place, jobs=1)
    (place / "nets.py").write_text(NETWORKS)
    return place


@pytest.fixture
def measure(home: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    monkeypatch.chdir(home)
    few = ["--data", "digits/r0", "--factors", "0.7", "--images", "6", "--threads", "1"]
    return lambda *arguments: CliRunner().invoke(app, ["equivariance", *arguments, *few])


def taps_of(result: Result) -> dict[str, list[str]]:
    """Return the taps that were measured of each network."""
    assert result.exit_code == 0, result.output
    return {
        record["model"]["name"]: list(dict.fromkeys(row["tap"] for row in record["rows"]))
        for record in json.loads(result.stdout)
    }


def test_patterns_go_to_the_networks_that_have_such_taps(measure: Measure) -> None:
    nets = ("nets.py:small", "nets.py:named", "mnist_cnn_28", "--format", "json")
    assert taps_of(measure(*nets, "--taps", "0,1,stem,conv1")) == {
        "nets.py:small": ["0", "1"],
        "nets.py:named": ["stem"],
        "mnist_cnn_28": ["conv1"],
    }
    found = measure(*nets, "--taps", "named:body,mnist_cnn_28:block*,nets.py:small:0")
    assert taps_of(found) == {
        "nets.py:small": ["0"],
        "nets.py:named": ["body"],
        "mnist_cnn_28": ["block1", "block2", "block3"],
    }
    lacking = measure(*nets, "--taps", "body,conv1")
    assert taps_of(lacking)["nets.py:named"] == ["body"]
    assert taps_of(lacking)["mnist_cnn_28"] == ["conv1"]
    assert "0" in taps_of(lacking)["nets.py:small"]
    assert "remark: nets.py:small has none of the taps asked for: all of its own" in lacking.stderr


def test_fields_go_to_the_networks_that_have_such_taps(measure: Measure) -> None:
    fields = ("--field", "body=plane,stride=1,origin=13.5", "--field", "small:0=plane,stride=1,origin=13.5")
    result = measure("nets.py:small", "nets.py:named", "mnist_cnn_28", *fields, "--format", "json")
    taps = taps_of(result)
    assert "body" in taps["nets.py:named"]
    assert "0" in taps["nets.py:small"]


def test_sizes_may_differ_and_are_stated(measure: Measure) -> None:
    nets = ("nets.py:small", "nets.py:named", "--taps", "0,stem")
    result = measure(*nets, "--input", "named:1x40x36,1x28x28")
    assert result.exit_code == 0, result.output
    assert "brought to 40×36 pixels" in " ".join(result.stdout.split())
    assert " ".join(result.stdout.split()).count("brought to") == 1
    records = json.loads(measure(*nets, "--input", "named:1x40x36", "--format", "json").stdout)
    assert [record["data"]["resized"] for record in records] == [None, [40, 36]]
    lines = measure(*nets, "--input", "named:1x40x36", "--format", "csv").stdout.splitlines()
    assert {line.split(",")[0]: line.split(",")[-1] for line in lines} == {
        "network": "resized",
        "nets.py:small (untrained seed 0)": "",
        "nets.py:named (untrained seed 0)": "40×36",
    }


def test_compare_sets_apart_what_was_measured_at_another_size(measure: Measure, tmp_path: Path) -> None:
    for size in ("28x28", "40x40"):
        saved = measure(
            "nets.py:small", "--taps", "0", "--input", f"1x{size}", "--save", str(tmp_path / size)
        )
        assert saved.exit_code == 0, saved.output
    other = measure("nets.py:named", "--taps", "stem", "--save", str(tmp_path / "28x28"))
    assert other.exit_code == 0, other.output
    by = ["--by", "model,model.input"]
    result = CliRunner().invoke(
        app, ["compare", str(tmp_path), *by, "--format", "csv"], env={"COLUMNS": "300"}
    )
    assert result.exit_code == 0, result.output
    assert "its Δ does not belong with the others: size 40×40, not as stored" in result.stderr
    assert "[1, 40, 40]" not in result.stdout
    assert result.stdout.count("[1, 28, 28]") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--taps", "stem,nowhere"), "--taps nowhere: no tap of any of the 3 networks matches"),
        (("--taps", "small:stem"), "--taps stem: no tap matches"),
        (("--taps", "mnist_cnn_28:conv9"), "--taps conv9: unknown tap 'conv9'; did you mean 'conv3'"),
        (("--taps", "other:conv1"), "--taps other:conv1: no tap of any"),
        (("--field", "nowhere=plane"), "--field nowhere=plane: no tap of any of the 3 networks matches"),
        (("--field", "mnist_cnn_28:conv1=plane"), "the taps of mnist_cnn_28 have their fields"),
        (("--input", "mnist_cnn_28:1x28x28"), "--input: mnist_cnn_28 takes the pictures as they are"),
        (("--input", "1x28x28,1x32x32"), "two sizes for all networks"),
        (("--input", "other:1x28x28"), "--input other:1x28x28: write channels, height and width"),
        (("--input", "1x99999x28"), "--input 1x99999x28: at most"),
    ],
)
def test_what_no_network_takes_is_the_error(
    measure: Measure, arguments: tuple[str, str], message: str
) -> None:
    result = measure("nets.py:small", "nets.py:named", "mnist_cnn_28", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_two_networks_of_one_name_are_told_apart_by_their_whole_names() -> None:
    targets = ["a.py:build", "b.py:build", "net.py:scale"]
    assert addressee("b.py:build:conv1", targets) == ("b.py:build", "conv1")
    assert addressee("scale:1,2,4", targets) == (None, "scale:1,2,4")
    assert addressee("net.py:scale:scale:1,2", targets) == ("net.py:scale", "scale:1,2")
    with pytest.raises(
        InputError, match=r"a\.py:build and b\.py:build are both called build; write a\.py:build"
    ):
        addressee("build:conv1", targets)


@pytest.mark.parametrize("option", ["--input", "--mean"])
def test_what_is_for_foreign_networks_is_refused_without_one(measure: Measure, option: str) -> None:
    result = measure("mnist_cnn_28", option, {"--input": "1x28x28", "--mean": "0.5"}[option])
    assert result.exit_code == 2
    assert f"{option}: mnist_cnn_28 takes the pictures as they are" in result.stderr
