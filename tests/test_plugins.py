"""Models that other packages add: a real dist-info on the path, found through importlib.metadata."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secli.catalogue import MODELS
from secli.cli.app import app
from secli.errors import SecliError, UnknownNameError
from secli.models.building import build, resolve_options
from secli.models.describe import describe
from secli.training.load import load_subject

CODE = '''
from secli.catalogue.models import ModelSpec
from secli.models.cnn import cnn as _cnn

def tiny(in_channels: int = 1, classes: int = 10):
    """Return a network from elsewhere."""
    return _cnn(in_channels, classes)

def bare(**anything):
    return 3

theirs = ModelSpec("theirs", "a network with all said of it", "foreign", "Somebody 2024", "fake_pkg:tiny", 34670)
other_name = ModelSpec("another", "", "foreign", "", "fake_pkg:tiny", 1)
no_builder = ModelSpec("nobuilder", "", "foreign", "", "fake_pkg:absent", 1)
number = 3
'''
POINTS = """[secli.models]
cnn = fake_pkg:bare
tiny_of_theirs = fake_pkg:tiny
theirs = fake_pkg:theirs
gone = fake_pkg_missing:net
misnamed = fake_pkg:other_name
nobuilder = fake_pkg:no_builder
number = fake_pkg:number
nonet = fake_pkg:bare
"""


def install(folder: Path, name: str, points: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that adds models, some of them broken."""
    site = tmp_path / "site"
    install(site, "fake-pkg", POINTS)
    (site / "fake_pkg.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "fake_pkg", raising=False)
    return site


def test_names_are_known_without_importing_anything(package: Path) -> None:
    names = list(MODELS)
    assert {"tiny_of_theirs", "theirs", "gone"} <= set(names)
    assert "theirs" in MODELS
    assert "theirs" not in MODELS.own
    assert len(MODELS) == len(names)
    assert names.count("cnn") == 1
    assert "fake_pkg" not in sys.modules


def test_without_the_package_they_are_unknown() -> None:
    assert "tiny_of_theirs" not in MODELS
    with pytest.raises(UnknownNameError, match="unknown model 'tiny_of_theirs'"):
        MODELS["tiny_of_theirs"]


def test_a_specification_and_a_builder(package: Path) -> None:
    assert MODELS["theirs"].parameters == 34_670
    made = MODELS["tiny_of_theirs"]
    assert made.idea == "Return a network from elsewhere."
    assert made.builder == "fake_pkg:tiny"
    assert made.parameters is None
    assert "fake-pkg" in made.paper
    assert resolve_options(made) == {"in_channels": 1, "classes": 10}
    assert describe("tiny_of_theirs").parameters == 34_670
    assert list(load_subject("theirs").model.taps) == list(build("cnn").taps)
    with pytest.raises(UnknownNameError, match="did you mean 'theirs'"):
        MODELS["theirz"]


def test_an_own_name_is_never_replaced(package: Path) -> None:
    assert MODELS["cnn"].builder == "secli.models.cnn:cnn"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gone",
            r"'gone' of package fake-pkg \(fake_pkg_missing:net\) cannot be loaded: ModuleNotFoundError",
        ),
        ("misnamed", "cannot be used: it is a specification named 'another'"),
        ("number", "neither a ModelSpec nor a function, but int"),
        ("nobuilder", "its builder fake_pkg:absent cannot be loaded"),
        ("nonet", "its builder returned int, not a network"),
    ],
)
def test_a_broken_one_is_one_line_when_it_is_used(name: str, message: str, package: Path) -> None:
    with pytest.raises(SecliError, match=message) as caught:
        build(name)
    assert "\n" not in str(caught.value)


def test_two_packages_with_one_name(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "more", "other-pkg", "[secli.models]\ntheirs = fake_pkg:tiny\n")
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    with pytest.raises(
        SecliError, match=r"offered by the packages (other-pkg and fake-pkg|fake-pkg and other-pkg);"
    ):
        MODELS["theirs"]


def test_the_commands_see_them(package: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["models"])
    assert result.exit_code == 0, result.stderr
    assert "theirs" in result.stdout
    assert "mnist_ses_vector_28" in result.stdout
    assert "gone: left out: 'gone' of package fake-pkg" in " ".join(result.stderr.split())
    one = runner.invoke(app, ["models", "theirs"])
    assert one.exit_code == 0
    assert "Somebody 2024" in one.stdout
    broken = runner.invoke(app, ["models", "gone"])
    assert broken.exit_code == 1
    trained = runner.invoke(app, ["train", "theirs", "--data", str(package / "nowhere")])
    assert trained.exit_code == 2
    assert "nowhere" in trained.stderr  # the name was accepted, the data are missing


def test_help_does_not_load_them(package: Path) -> None:
    code = (
        "import sys; from secli.catalogue.models import MODELS; list(MODELS); 'x' in MODELS; "
        "assert 'theirs' in MODELS; assert not {'torch', 'fake_pkg'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": f"{package}:{Path.cwd()}"})
