from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from secli.cli.app import app
from secli.cli.make_data import parse_realisations
from secli.datasets import build
from secli.datasets.store import open_dataset
from secli.errors import InputError

SMALL = ["--sizes", "50", "20", "60"]


def run(*arguments: object) -> tuple[int, list[str], list[str]]:
    """Run ``secli make-data``; return the exit code and the lines of stdout and stderr."""
    result = CliRunner().invoke(app, ["make-data", *map(str, arguments)])
    return result.exit_code, result.stdout.splitlines(), result.stderr.splitlines()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(10):
            picture = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"


def test_paths_on_stdout_the_rest_on_stderr(tmp_path: Path) -> None:
    out = tmp_path / "data"
    code, paths, notes = run("digits-scale", "--out", out, "--realisations", "0-1")
    assert (code, paths) == (0, [str(out / "digits-scale" / "r0"), str(out / "digits-scale" / "r1")])
    assert notes == ["digits-scale r0: made", "digits-scale r1: made"]
    code, paths, notes = run("digits-scale", "--out", out, "--realisations", "1,0")
    assert (code, paths) == (0, [str(out / "digits-scale" / "r1"), str(out / "digits-scale" / "r0")])
    assert notes == ["digits-scale r1: complete, verified", "digits-scale r0: complete, verified"]


def test_everything_at_once(tmp_path: Path, pictures: Path) -> None:
    figure = tmp_path / "figure.png"
    arguments = (
        "--factors",
        0.5,
        2,
        "--sizes",
        8,
        4,
        6,
        "--image-size",
        12,
        "--jobs",
        2,
        "--quiet",
        "--offline",
    )
    places = (
        "--source",
        pictures,
        "--out",
        tmp_path / "data",
        "--preview",
        figure,
        "--export-png",
        tmp_path / "png",
    )
    code, paths, notes = run("folder-scale", *arguments, *places)
    assert code == 0, notes
    dataset = open_dataset(Path(paths[0]))
    assert dataset.manifest.sizes == {"train": 8, "val": 4, "test": 6}
    assert dataset.image_size == (12, 12)
    assert dataset.split("train").factors.max() > 1
    with Image.open(figure) as drawn:
        assert drawn.width > 500
    tree = tmp_path / "png" / dataset.name / "r0"
    assert len(list(tree.glob("*/*/*.png"))) == 18
    assert notes[1:] == [f"preview of {paths[0]}: {figure}", f"{dataset.name} r0: exported to {tree}"]
    code, paths, notes = run("folder-scale", *arguments, *places)
    assert (code, paths) == (2, [])
    assert (
        notes[-1]
        == f"error: --export-png {tmp_path / 'png'}: {tree} already exists; remove it, or choose another directory"
    )


def test_verify_names_the_first_damaged_file(tmp_path: Path) -> None:
    out = tmp_path / "data"
    _, made, _ = run("digits", "--out", out, "--realisations", "0,10,2", *SMALL)
    code, paths, notes = run("digits", "--out", out, "--verify")
    assert code == 0
    assert [Path(path).name for path in paths] == ["r0", "r2", "r10"]
    assert all(note.endswith("verified") for note in notes)
    assert run("digits", "--out", out, "--verify", "--realisations", "2", *SMALL)[1] == [made[2]]
    victim = Path(made[1]) / "train-labels.npy"
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    code, paths, notes = run("digits", "--out", out, "--verify")
    assert (code, paths) == (2, [])
    assert notes[-1].startswith(f"error: {victim}: damaged")
    assert run("digits", "--out", out, "--verify", "--realisations", "7", *SMALL)[0] == 2
    assert not (out / "digits").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist-scal"], "unknown dataset 'mnist-scal'; did you mean 'mnist-scale'?"),
        (
            ["mnist-scale", "--offline"],
            "mnist: no file train-images-idx3-ubyte or train-images-idx3-ubyte.gz in",
        ),
        (["mnist-scale", "--source", "nowhere"], "--source nowhere: no such directory"),
        (
            ["digits-scale", "--factors", "0", "1"],
            "--factors 0 1: a scale factor must be finite and greater than 0",
        ),
        (["digits-scale", "--factors", "-1", "1"], "--factors -1 1: a scale factor must be finite"),
        (["digits-scale", "--factors", "nan", "1"], "--factors nan 1: a scale factor must be finite"),
        (["digits-scale", "--factors", "1", "0.5"], "--factors 1 0.5: the lowest factor comes first"),
        (["digits", "--factors", "0.3", "1"], "--factors 0.3 1: digits does not rescale its images"),
        (["digits-scale", "--sizes", "5000", "0", "10"], "--sizes: 5010 images wanted"),
        (["digits-scale", "--sizes", "0", "0", "10"], "--sizes 0 0 10: at least 1 training and 1 test image"),
        (["digits-scale", "--realisations", "3-1"], "--realisations 3-1: the range 3-1 runs backwards"),
        (["digits-scale", "--realisations", "one"], "--realisations one: write a number, a range"),
        (["digits-scale", "--realisations", ""], "--realisations : write a number, a range"),
        (["digits-scale", "--image-size", "0"], "--image-size 0: a side of 1 to 4096 pixels is needed"),
        (["digits-scale", "--jobs", "0"], "--jobs 0: at least one process is needed"),
        (["digits-scale", "--preview", "figure.gif"], "--preview figure.gif: the figure's name must end in"),
        (
            ["digits-scale", "--source", "."],
            "--source .: the digits come with scikit-learn; leave --source out",
        ),
        (["folder-scale"], "--source is missing: a folder dataset is made from --source DIR"),
        (["folder-scale", "--source", "."], "no class folders in it; expected DIR/<class>/<picture>"),
        (["digits-scale", "--verify"], "--verify: no realisation of digits-scale in"),
        (["digits-scale", "--out", "file/data"], "file: is a file, not a directory to write into"),
        ([], "Missing argument 'DATASET'"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("file").write_text("stays")
    code, paths, notes = run(*arguments)
    assert (code, paths, len(notes)) == (2, [], 1), notes
    assert notes[0].startswith("error: ")
    assert message in notes[0]
    assert [path.name for path in Path().iterdir()] == ["file"]
    assert Path("file").read_text() == "stays"


def test_a_failed_download_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    code, paths, notes = run("mnist-scale")
    assert (code, paths, len(notes)) == (1, [], 1)
    assert "put that file (md5 f68b3c2dcbeaaa9fbdd348bbdeb94873) into" in notes[0]


def test_an_interrupt_exits_130_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(build, "write_dataset", interrupted)
    # a suite that was started in the background may have inherited an ignored SIGINT
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, paths, notes = run("digits-scale", "--out", tmp_path / "data")
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert (code, paths) == (130, [])
    assert notes == ["interrupted: what was whole is kept, the same command makes the rest"]


def test_realisations() -> None:
    assert parse_realisations("0-5") == (0, 1, 2, 3, 4, 5)
    assert parse_realisations("0, 2-3") == (0, 2, 3)
    with pytest.raises(InputError, match="given twice"):
        parse_realisations("1,0-2")
    with pytest.raises(InputError, match="too long"):
        parse_realisations("0-999999999")


def test_nothing_heavy_is_imported_and_grey_sets_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from secli.cli.app import app; import secli.sources.registry\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        f"app(['make-data', 'digits', '--out', {str(tmp_path)!r}], standalone_mode=False)\n"
        "assert 'sklearn' in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'digits' / 'r0'}\n"
