"""``secli equivariance``: runs and registry names, results written into the run, bad input refused in one line."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from secli.cli.app import app
from secli.cli.unscaled_data import twin_of
from secli.datasets.build import make_dataset
from secli.datasets.store import open_dataset
from secli.errors import InputError
from secli.records.schema import EquivarianceRecord, read_record

Measure = Callable[..., Result]

FEW = ["--factors", "1,0.5", "--images", "12", "--batch", "5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits at their own scale and rescaled, and one run on the latter."""
    home = tmp_path_factory.mktemp("measure")
    for name in ("digits", "digits-scale"):
        make_dataset(name, home / "data", jobs=1)
    trained = CliRunner().invoke(
        app,
        [
            "train",
            "dss_v1",
            "--data",
            f"{home}/data/digits-scale/r0",
            "--epochs",
            "1",
            "--out",
            f"{home}/runs",
            "-q",
            "--threads",
            "1",
        ],
    )
    assert trained.exit_code == 0, trained.stderr
    (home / "run").symlink_to(trained.stdout.strip())
    return home


@pytest.fixture
def measure(place: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    monkeypatch.chdir(place)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["equivariance", *arguments, "--threads", "1"])

    return run


def refused(result: Result, text: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


def test_a_run_is_measured_on_the_unscaled_twin_of_its_data(measure: Measure, place: Path) -> None:
    result = measure("run", *FEW, "--force")
    assert result.exit_code == 0, result.stderr
    record = read_record(place / "run" / "equivariance.json")
    assert isinstance(record, EquivarianceRecord)
    assert record.data.name == "digits"
    assert record.trained
    assert record.trained_on is not None
    assert record.trained_on.name == "digits-scale"
    assert {row.tap for row in record.rows} == {
        "lift",
        "conv1",
        "block1",
        "conv2",
        "block2",
        "pool",
        "logits",
    }
    assert [row.factor for row in record.accuracy] == [1.0, 0.5]
    assert record.accuracy[0].agreement == 1.0
    assert all(row.mean == 0 for row in record.rows if row.factor == 1 and row.mean is not None)
    assert (place / "run" / "equivariance.png").read_bytes().startswith(b"\x89PNG")
    lines = (place / "run" / "equivariance.csv").read_text().splitlines()
    assert sum(",error," in line for line in lines) == len(record.rows)
    assert "block2" in result.stdout
    assert "Accuracy" in result.stdout
    # and compare reads it
    table = CliRunner().invoke(app, ["compare", "run", "--format", "json"])
    assert json.loads(table.stdout)[0]["delta_at"][0]["factor"] == 0.5


@pytest.mark.parametrize(("name", "twin"), [("fashion-scale", "fashion-mnist"), ("digits-scale", "digits")])
def test_the_twin_is_of_the_same_source_whatever_its_name(
    measure: Measure, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, twin: str
) -> None:
    """The twin is missing here, so the error names where it would stand; "fashion" is no dataset."""
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    record = json.loads((run / "record.json").read_text())
    record["data"].update(name=name, path=str(Path("data") / name / "r0"))
    (run / "record.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    refused(measure("run", *FEW, "--force"), f"--data: {Path('data') / twin / 'r0'}, the pictures of")


def test_the_twin_of_custom_sizes_is_found_and_its_making_told(
    tmp_path: Path,
) -> None:
    sizes, side = (40, 20, 30), 24
    (scaled,) = make_dataset(
        "digits-scale", tmp_path, (3,), factors=(0.5, 1), sizes=sizes, image_size=side, jobs=1
    )
    info = open_dataset(scaled.path).info()
    with pytest.raises(InputError, match="does not exist") as caught:
        twin_of(info)
    command = str(caught.value).split("'")[1]
    assert command.startswith(
        "secli make-data digits --sizes 40 20 30 --image-size 24 --realisations 3 --out "
    )
    made = CliRunner().invoke(app, command.split()[1:])
    assert made.exit_code == 0, made.output
    assert str(twin_of(info)) == made.stdout.strip()
    # a record that does not know the parameters is read with the manifest, as long as that stands
    older = info.model_copy(update={"parameters": {}})
    assert twin_of(older) == twin_of(info)
    gone = older.model_copy(update={"path": str(tmp_path / "gone" / info.name / "r3")})
    with pytest.raises(InputError, match="gone, and its record does not say its sizes"):
        twin_of(gone)


def test_the_twin_of_other_factors_is_the_standard_one_and_of_own_pictures_theirs(tmp_path: Path) -> None:
    (factors,) = make_dataset("digits-scale", tmp_path, factors=(0.5, 2), jobs=1)
    (plain,) = make_dataset("digits", tmp_path, jobs=1)
    assert twin_of(open_dataset(factors.path).info()) == plain.path
    for name in ("ant", "bee"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for k in range(10):
            Image.new("L", (8, 8), 20 * k).save(tmp_path / "p" / name / f"{k}.png")
    (scaled,) = make_dataset("folder-scale", tmp_path, source=tmp_path / "p", jobs=1)
    (own,) = make_dataset("folder", tmp_path, source=tmp_path / "p", jobs=1)
    assert twin_of(open_dataset(scaled.path).info()) == own.path


def test_a_registry_name_needs_data_and_takes_options(measure: Measure, place: Path, tmp_path: Path) -> None:
    refused(measure("cnn", *FEW), "--data: give the images to measure cnn on")
    result = measure(
        "dss_v1", "--set", "model.channels=4", "--data", "data/digits/r0", *FEW, "--save", str(tmp_path / "out"),
        "--format", "json", "--seed", "3",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert content["model"]["options"]["channels"] == 4
    assert content["seed"] == 3
    assert content["trained"] is False
    assert set(content["rows"][0]) >= {"tap", "field", "factor", "mean", "low", "high", "floor", "n", "levels_used",
                                       "levels_total", "on_lattice", "reason"}  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"dss_v1-s3.{end}" for end in ("csv", "json", "png")
    ]


def test_several_networks_share_table_and_plot(measure: Measure, tmp_path: Path) -> None:
    plot = tmp_path / "curves.svg"
    result = measure(
        "run", "cnn", "--data", "data/digits/r0", *FEW, "--format", "json", "--plot", str(plot), "--force"
    )
    assert result.exit_code == 0, result.stderr
    assert [entry["model"]["name"] for entry in json.loads(result.stdout)] == ["dss_v1", "cnn"]
    assert plot.read_text().startswith("<?xml")


def test_the_same_seed_reads_the_same(measure: Measure) -> None:
    readings = []
    for _ in range(2):
        result = measure("cnn", "--data", "data/digits/r0", *FEW, "--format", "csv", "-q")
        readings.append(result.stdout)
    assert readings[0] == readings[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dss-v1"], "'dss-v1' is neither a run directory nor a registered model; did you mean 'dss_v1'?"),
        (["data"], "no record.json in it"),
        (["cnn", "--data", "nowhere"], "nowhere"),
        (["cnn", "--data", "data/digits/r0", "--factors", "0"], "greater than 0, not 0"),
        (["cnn", "--data", "data/digits/r0", "--factors", "-1"], "greater than 0, not -1"),
        (["cnn", "--data", "data/digits/r0", "--factors", "nan"], "not nan"),
        (["cnn", "--data", "data/digits/r0", "--taps", "block9"], "unknown tap 'block9'; did you mean"),
        (["cnn", "--data", "data/digits/r0", "--images", "0"], "--images"),
        (["cnn", "--data", "data/digits/r0", "--metric", "cubed"], "--metric"),
        (["cnn", "--data", "data/digits/r0", "--set", "model.chanels=3"], "unknown key 'chanels'"),
        (["cnn", "--data", "data/digits/r0", "--set", "model.in_channels=3"], "--set model.in_channels=1"),
        (["cnn", "--data", "data/digits/r0", "--format", "tex"], "tex"),
        (["cnn", "--data", "data/digits/r0", "--plot", "curves.gif"], ".gif"),
        (["cnn", "--data", "data/digits/r0", "--device", "tpu"], "device"),
        (["run", "--set", "model.channels=3"], "leave --set out"),
        (["cnn", "--data", "data/digits/r0", "--config", "none.yaml"], "none.yaml: no such file"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_line(measure: Measure, arguments: list[str], message: str) -> None:
    refused(measure(*arguments), message)


def test_a_measurement_is_replaced_only_when_asked(measure: Measure, place: Path, tmp_path: Path) -> None:
    assert measure("run", *FEW, "--force").exit_code == 0
    before = (place / "run" / "equivariance.json").read_bytes()
    refused(measure("run", *FEW), "a measurement stands here already; add --force")
    refused(measure("run", "--factors", "0", "--force"), "--factors 0")
    assert measure("run", *FEW, "--save", str(tmp_path / "apart")).exit_code == 0
    assert (place / "run" / "equivariance.json").read_bytes() == before
    assert measure("run", "--factors", "0.9", "--images", "5", "--force").exit_code == 0
    assert (place / "run" / "equivariance.json").read_bytes() != before


def test_an_unfinished_run_is_not_measured(measure: Measure, place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "interrupted"
    shutil.copytree(place / "run", copy)
    record = json.loads((copy / "record.json").read_text())
    (copy / "record.json").write_text(json.dumps({**record, "status": "interrupted", "results": None}))
    refused(measure(str(copy), "--data", "data/digits/r0", *FEW, "--force"), "interrupted")


def test_a_network_that_does_not_repeat_itself_is_refused(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        "import torch\n\nclass Noisy(torch.nn.Conv2d):\n"
        "    def forward(self, x):\n        return super().forward(x) + torch.randn(1)\n\n"
        "def build():\n    return torch.nn.Sequential(Noisy(1, 2, 3), torch.nn.ReLU())\n"
    )
    refused(
        measure(f"{tmp_path}/noisy.py:build", "--data", "data/digits/r0", *FEW),
        "other features for the same pictures",
    )


def test_rescaled_images_are_remarked_upon(measure: Measure) -> None:
    result = measure("cnn", "--data", "data/digits-scale/r0", *FEW)
    assert result.exit_code == 0
    assert "remark: the images of data/digits-scale/r0 are rescaled already" in result.stderr


@pytest.fixture
def measured(measure: Measure, place: Path, tmp_path: Path) -> Path:
    """A run with a whole measurement."""
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    result = measure(str(run), "--data", "data/digits/r0", *FEW, "--force")
    assert result.exit_code == 0, result.stderr
    return run


@pytest.mark.parametrize("missing", [["csv", "png"], ["json"]])
def test_what_a_killed_command_left_does_not_block_the_next(
    measure: Measure, measured: Path, missing: list[str]
) -> None:
    for end in missing:
        (measured / f"equivariance.{end}").unlink()
    again = measure(str(measured), "--data", "data/digits/r0", *FEW)
    assert again.exit_code == 0, again.stderr
    assert sorted(path.name for path in measured.glob("*equivariance*")) == [
        f"equivariance.{end}" for end in ("csv", "json", "png")
    ]
    refused(measure(str(measured), "--data", "data/digits/r0", *FEW), "a measurement stands here already")


def test_half_a_record_does_not_block_the_next_either(measure: Measure, measured: Path) -> None:
    (measured / "equivariance.json").write_text('{"schema_version": 1, ')
    (measured / "equivariance.png").unlink()
    again = measure(str(measured), "--data", "data/digits/r0", *FEW)
    assert again.exit_code == 0, again.stderr
    assert isinstance(read_record(measured / "equivariance.json"), EquivarianceRecord)


def test_a_record_of_another_measurement_is_not_lost(measure: Measure, measured: Path) -> None:
    """As a sweep writes it: without a table and a picture."""
    for end in ("csv", "png"):
        (measured / f"equivariance.{end}").unlink()
    before = (measured / "equivariance.json").read_bytes()
    other = measure(str(measured), "--data", "data/digits/r0", *FEW, "--metric", "relative")
    refused(other, "a measurement stands here already; add --force")
    assert (measured / "equivariance.json").read_bytes() == before


def test_a_measurement_without_room_leaves_the_old_one_whole(
    measure: Measure, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in measured.glob("*") if path.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    result = measure(str(measured), "--data", "data/digits/r0", *FEW, "--force")
    assert result.exit_code == 1
    assert f"{measured}/equivariance.png: no space left on device" in result.stderr
    assert {path.name: path.read_bytes() for path in measured.glob("*") if path.is_file()} == before


def test_outputs_that_cannot_be_written_are_refused_before_anything_is_measured(
    measure: Measure, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("secli.cli.results.measure_watched", measured)
    (tmp_path / "file").write_text("")
    for option, path in (("--plot", "a.png"), ("--heatmap", "a.png"), ("--save", "there")):
        at = str(tmp_path / "file" / path)
        refused(measure("run", *FEW, "--force", option, at), "file: is a file, not a directory to write into")
    refused(measure("run", *FEW, "--force", "--plot", f"{tmp_path / ('n' * 300)}.png"), "too long")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("ValueError('not so many')", "ValueError: not so many"),
        (
            "FileNotFoundError(2, 'no such file', 'w.bin')",
            "FileNotFoundError: [Errno 2] no such file: 'w.bin'",
        ),
        ("Mute()", "Mute: Mute"),
    ],
)
def test_a_network_that_fails_in_a_later_pass_is_no_bug_of_ours(
    measure: Measure, tmp_path: Path, raised: str, told: str
) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Mute(RuntimeError):\n    def __str__(self): raise ValueError\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(1, 2, 3, padding=1)\n"
        "    def forward(self, x):\n"
        f"        if len(x) == 5: raise {raised}\n"
        "        return self.conv(x)\n"
    )
    result = measure(f"{tmp_path}/net.py:Net", "--data", "data/digits/r0", *FEW, "-q")
    refused(result, f"net.py:9: {told}")
