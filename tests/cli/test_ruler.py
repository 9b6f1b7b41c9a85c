"""The ruler's flags, each used as a person would use it, and what it answers to bad ones: one line."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from secli.cli.app import app
from secli.datasets.build import make_dataset

Measure = Callable[..., Result]

FACTORY = '''"""A network of ten lines."""

from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1))


def other():
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))


def raises():
    raise RuntimeError("no such table\\nof sizes")


def lift():
    from secli.layers import ScaleSpaceLift

    return nn.Sequential(ScaleSpaceLift(base=2.0, z=0.5, levels=4))
'''
DIGITS = ["--data", "data/digits/r0"]
OWN = ["net.py:build", "--input", "1x28x28", *DIGITS]
FEW = ["--images", "8", "--factors", "0.8"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, coloured pictures in class folders, and a file with networks."""
    place = tmp_path_factory.mktemp("ruler")
    make_dataset("digits", place / "data", jobs=1)
    generator = np.random.default_rng(0)
    for name in ("left", "right"):
        (place / "photos" / name).mkdir(parents=True)
        for k in range(2):
            small = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            small.resize((64, 64), Image.Resampling.BICUBIC).save(place / "photos" / name / f"{k}.png")
    (place / "empty").mkdir()
    (place / "net.py").write_text(FACTORY)
    return place


@pytest.fixture
def measure(home: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    monkeypatch.chdir(home)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["equivariance", *arguments, "--threads", "1", "-q"])

    return run


def record(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_levels_stand_beside_the_whole(measure: Measure) -> None:
    content = record(
        measure("dss_v1", *DIGITS, "--images", "8", "--factors", "0.5", "--taps", "lift", "--per", "level",
                "--format", "json")
    )  # fmt: skip
    levels = {row["level"]: row["mean"] for row in content["rows"]}
    assert set(levels) == {None, 0, 1, 2, 3}
    assert levels[3] is None
    assert 0 < levels[0] < levels[2]


def test_the_lie_derivative_is_a_table_of_its_own(measure: Measure) -> None:
    arguments = ["dss_v1", *DIGITS, *FEW, "--taps", "lift,conv1", "--lie"]
    content = record(measure(*arguments, "--format", "json"))
    assert [row["tap"] for row in content["lie"]] == ["lift", "conv1"]
    assert all(row["low"] <= row["mean"] <= row["high"] and row["n"] == 8 for row in content["lie"])
    table = measure(*arguments).stdout
    assert "Lie derivative at s = 1" in table


def test_parts_are_those_asked_for(measure: Measure) -> None:
    arguments = ["dss_v1", *DIGITS, *FEW, "--taps", "lift,conv1,block1"]
    content = record(measure(*arguments, "--local", "--attribute", "conv,pool", "--format", "json"))
    kinds = {(row["kind"], row["part"]) for row in content["local"]}
    assert {("stage", "lift"), ("conv", "conv1"), ("pool", "block1.pool"), ("pointwise", "conv1")} <= kinds
    assert not {kind for kind, _ in kinds} & {"norm", "activation"}
    # the first stage alone reads what the curve reads there
    alone = next(row for row in content["local"] if (row["kind"], row["part"]) == ("stage", "lift"))
    curve = next(row for row in content["rows"] if row["tap"] == "lift")
    assert alone["mean"] == pytest.approx(curve["mean"], rel=1e-4)
    assert record(measure(*arguments, "--format", "json"))["local"] == []


def test_controls_stand_beside_the_network(measure: Measure) -> None:
    content = record(measure("cnn", *DIGITS, *FEW, "--taps", "block1", "--controls", "--format", "json"))
    controls = {control["control"]: control["rows"] for control in content["controls"]}
    assert {"identity", "pointwise"} <= set(controls)
    assert [row["mean"] for row in controls["identity"] if row["factor"] == 0.8] == [0.0]
    assert controls["pointwise"][0]["mean"] > 0


def test_pictures_are_drawn(measure: Measure, tmp_path: Path) -> None:
    heat, shown, plot = tmp_path / "heat.png", tmp_path / "shown.svg", tmp_path / "curve.pdf"
    result = measure(
        *OWN, *FEW, "--heatmap", str(heat), "--show-features", str(shown), "--plot", str(plot)
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert heat.read_bytes().startswith(b"\x89PNG")
    assert shown.read_text().startswith("<?xml")
    assert plot.read_bytes().startswith(b"%PDF")


def test_a_protocol_names_the_factors(measure: Measure) -> None:
    content = record(
        measure("cnn", *DIGITS, "--images", "4", "--protocol", "downscale-2020", "--taps", "block1",
                "--format", "json")
    )  # fmt: skip
    wanted = [1, 1 / 1.1, 1 / 1.5, 1 / 2, 1 / 2.5, 1 / 3]
    assert [row["factor"] for row in content["accuracy"]] == pytest.approx(wanted)
    assert all(row["accuracy"] is not None for row in content["accuracy"])


def test_a_border_is_left_out(measure: Measure) -> None:
    whole, cut = (
        record(measure(*OWN, *FEW, "--taps", "1", "--border", border, "--format", "json"))["rows"][0]
        for border in ("0", "3")
    )
    assert (whole["border"], cut["border"]) == (0.0, 3.0)
    assert whole["compared"] == 1.0
    assert 0.1 < cut["compared"] < 0.6


def test_taps_are_listed_with_what_was_probed(measure: Measure) -> None:
    result = measure("net.py:build", "--input", "1x28x28", "--list-taps")
    assert result.exit_code == 0, result.stderr
    pool = next(line for line in result.stdout.splitlines() if line.split()[:1] == ["2"])
    assert "MaxPool2d" in pool
    assert "4×14×14" in pool
    assert pool.split()[-4:-2] == ["2", "0.5"]
    assert pool.split()[-1] == "all"
    assert result.stdout.rstrip().endswith("on pictures on black")


def test_a_declared_field_changes_the_action(measure: Measure) -> None:
    arguments = ["net.py:lift", "--input", "1x28x28", *DIGITS, "--images", "20", "--factors", "0.5"]
    arguments += ["--taps", "0", "--format", "json"]
    right, ignored, shifted = (
        record(measure(*arguments, "--field", f"0=scale:{field}"))["rows"][0]
        for field in ("1,2,4,8,blur=0.5", "1,2,4,8", "1,1.5,2.25,3.375,blur=0.5")
    )
    # these digits touch the edge of their canvas, so even the right reading is not that of the lift alone
    assert right["mean"] < 0.03
    assert ignored["mean"] != right["mean"]
    assert shifted["mean"] > 2 * right["mean"]
    assert (right["levels_used"], right["levels_total"], right["on_lattice"]) == (3, 4, True)


def test_a_registry_name_has_its_normalisation_from_options_and_another_one_from_flags(
    measure: Measure,
) -> None:
    plain, other = (
        record(measure(*OWN, *FEW, "--taps", "1", "--format", "json", *more))
        for more in ([], ["--mean", "0.5", "--std", "0.1"])
    )
    assert plain["rows"][0]["mean"] != other["rows"][0]["mean"]


def test_weights_come_from_a_file(measure: Measure, home: Path, tmp_path: Path) -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(4, 6, 3)
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(0.01)
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    arguments = [*OWN, *FEW, "--taps", "1", "--format", "json"]
    one, two = (record(measure(*arguments, "--weights", str(file), "--seed", seed)) for seed in "01")
    fresh = record(measure(*arguments))
    assert one["rows"] == two["rows"]
    assert one["rows"] != fresh["rows"]


def test_runs_that_differ_in_seed_alone_are_one_network(measure: Measure, home: Path, tmp_path: Path) -> None:
    make_dataset("digits-scale", home / "data", jobs=1)
    runs = []
    for seed in "01":
        trained = CliRunner().invoke(
            app,
            ["train", "dss_v1", "--data", "data/digits-scale/r0", "--epochs", "1", "--set", f"training.seed={seed}",
             "--set", "model.channels=2", "--out", str(tmp_path / "runs"), "--threads", "1", "-q"],
        )  # fmt: skip
        assert trained.exit_code == 0, trained.stderr
        runs.append(trained.stdout.strip())
    content = record(measure(*runs, *FEW, "--taps", "lift,conv1", "--format", "json"))
    assert len(content["pooled"]) == 2
    single = [json.loads((Path(run) / "equivariance.json").read_text())["rows"] for run in runs]
    for row, one, two in zip(content["rows"], *single, strict=True):
        assert row["mean"] == pytest.approx((one["mean"] + two["mean"]) / 2)
        assert row["runs"] == 2
    compared = CliRunner().invoke(app, ["compare", *runs, "--format", "json"])
    assert compared.exit_code == 0, compared.stderr


def test_saved_results_are_compared(measure: Measure, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    for name in ("net.py:build", "net.py:other"):
        result = measure(name, "--input", "1x28x28", *DIGITS, "--images", "4", "--factors", "0.5",
                         "--save", str(saved))  # fmt: skip
        assert result.exit_code == 0, result.stderr
    compared = CliRunner().invoke(app, ["compare", *map(str, saved.glob("*.json")), "--format", "json"])
    assert compared.exit_code == 0, compared.stderr
    assert {row["model"] for row in json.loads(compared.stdout)} == {"net.py:build", "net.py:other"}


def test_a_network_of_torchvision_on_a_folder_of_pictures(measure: Measure) -> None:
    content = record(
        measure("torchvision:resnet18", "--input", "3x48x48", "--taps", "layer1", "--data", "photos",
                "--images", "3", "--factors", "0.9", "--border", "4", "--format", "json")
    )  # fmt: skip
    (row,) = content["rows"]
    assert row["n"] == 3
    assert row["mean"] > 0
    assert row["field"].startswith("plane, stride 4")
    assert content["accuracy"][0]["accuracy"] is None
    reason = content["accuracy"][0]["reason"]
    assert reason == {"code": "other-classes", "data": {"outputs": 1000, "classes": 2}}


def test_several_networks_share_one_answer(measure: Measure) -> None:
    result = measure("net.py:build", "net.py:other", "--input", "1x28x28", *DIGITS, *FEW, "--format", "json")
    assert [one["model"]["name"] for one in record(result)] == ["net.py:build", "net.py:other"]


class Evil:
    """What a pickle must not be allowed to do."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return (open, ("executed", "w"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.py:build", "--input", "28x28", *DIGITS], "--input 28x28: write channels, height and width"),
        ([*OWN, "--field", "0=plain"], "unknown field 'plain'; did you mean 'plane'"),
        ([*OWN, "--field", "0=plane,stride=0"], "stride=0: must be greater than 0"),
        ([*OWN, "--field", "0=scale:2,1"], "must be positive and increasing"),
        (["cnn", *DIGITS, "--attribute", "convs"], "'convs'; did you mean 'conv'"),
        (["cnn", *DIGITS, "--protocol", "downscale"], "--protocol"),
        (["cnn", *DIGITS, "--protocol", "downscale-2020", "--factors", "0.5"], "exclude each other"),
        ([*OWN, "--weights", "none.pth"], "--weights none.pth: no such file"),
        ([*OWN, "--weights", "evil.pth"], "--weights evil.pth: refused"),
        ([*OWN, "--weights", "net.py"], "--weights net.py"),
        ([*OWN, "--mean", "0.5,0.5,0.5"], "--mean"),
        ([*OWN, "--std", "0"], "--std: the values must be greater than 0"),
        ([*OWN, "--std", "one"], "--std one: write one number"),
        ([*OWN, "--taps", "conv*"], "--taps conv*: no tap matches"),
        (["cnn", *DIGITS, "--taps", "block9"], "unknown tap 'block9'"),
        (["net.py:raises", "--input", "1x28x28", *DIGITS], "RuntimeError: no such table of sizes"),
        (["net.py:bild", "--input", "1x28x28", *DIGITS], "did you mean 'build'"),
        (["gone.py:build", "--input", "1x28x28", *DIGITS], "no such file"),
        (["net.py:build", "--input", "1x28x28", "--data", "empty"], "empty"),
        (["net.py:build", "--input", "1x28x28", "--data", "gone"], "gone"),
        (["net.py:build", *DIGITS, "--input", "3x28x28"], "--input"),
        (["cnn", *DIGITS, "--border", "-1"], "--border"),
        (["cnn", *DIGITS, "--heatmap", "heat.txt"], "heat.txt"),
        (["cnn", *DIGITS, "--per", "levels"], "--per"),
        (["torchvision:resnet19", *DIGITS], "did you mean 'resnet18'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(measure: Measure, home: Path, arguments: list[str], message: str) -> None:
    (home / "evil.pth").write_bytes(pickle.dumps(Evil()))
    before = sorted(path.name for path in home.iterdir())
    result = measure(*arguments, "--images", "4")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert sorted(path.name for path in home.iterdir()) == before


def test_the_benchmark_prints_its_ratio() -> None:
    arguments = ["bench", "--equivariance", "cnn", "--images", "4", "--factors", "2", "--repeats", "1",
                 "--threads", "1", "-q"]  # fmt: skip
    content = record(CliRunner().invoke(app, [*arguments, "--format", "json"]))
    assert content["passes"] == 3
    assert content["ratio"] == pytest.approx(content["measure_s"][0] / content["forward_s"][0])
    table = CliRunner().invoke(app, arguments).stdout
    assert "3 forward passes" in table
    assert "ratio of medians" in table
    bad = CliRunner().invoke(app, [*arguments, "--format", "csv"])
    assert (bad.exit_code, bad.stderr) == (2, "error: unknown format --format 'csv'; known: json, table\n")


def test_figures_are_labelled_and_their_captions_stand_beside_them(measure: Measure, tmp_path: Path) -> None:
    plot, heat = tmp_path / "curves.svg", tmp_path / "map.svg"
    drawn = ["--plot", str(plot), "--heatmap", str(heat), "--log", "--label", "net.py:build=ours"]
    result = measure(*OWN, *FEW, *drawn, "--caption")
    assert result.exit_code == 0, result.stderr
    for file in (plot, heat):
        assert ">ours<" in file.read_text()
        assert "--border" not in file.read_text()
        assert (
            file.with_name(f"{file.name}.txt").read_text().startswith("Δ_s, squared, relative to ‖L_sΦ(f)‖²")
        )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--label", "net.py:build=x"], "--label: goes with --plot FILE or --heatmap FILE"),
        (["--caption"], "--caption: goes with --plot FILE or --heatmap FILE"),
        (["--log"], "--log: goes with --plot FILE"),
        (["--plot", "a.png", "--label", "x"], "--label x: is not of the form NET=TEXT"),
        (["--plot", "a.png", "--label", "=x"], "--label =x: is not of the form NET=TEXT"),
        (["--plot", "a.png", "--label", "net.py:biuld=x"], "net.py:build"),
    ],
)
def test_labels_and_captions_without_a_figure_are_refused(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    result = measure(*OWN, *FEW, *arguments)
    assert result.exit_code == 2, result.stderr
    assert text in result.stderr.splitlines()[-1]
