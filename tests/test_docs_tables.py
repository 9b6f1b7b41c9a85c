"""The commands of docs/tables.md run as typed, on a fabricated sweep; the tables it writes down are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from secli.cli.app import app
from secli.records.schema import SWEEP_FILE, SweepRecord, SweptRun, write_record
from secli.sweeps.spec import SweptTable
from secli.tables.formats import json_rows
from secli.tables.sweep import sweep_tables
from tests.tables.fabricate import curves, data, training, write_run

PAGE = (Path(__file__).parents[1] / "docs" / "tables.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
SYSTEMS = {"cnn": "CNN", "dss_v1": "DSS v1", "mnist_cnn_28": "CNN 7×7", "mnist_ses_scalar_28": "SESN scalar"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep like the quick one, of three realisations."""
    place = tmp_path_factory.mktemp("desk")
    sweep = place / "sweeps" / "quick"
    runs = []
    for number, (name, label) in enumerate(SYSTEMS.items()):
        for augment in ("none", "scale") if "mnist" in name else ("none",):
            for r in range(3):
                key = f"{number}{r}{augment == 'scale':d}".encode().hex().ljust(12, "0")
                folder = f"{name}/mnist-scale-r{r}-s0-{key}"
                options = {"base": 2.0} if name == "dss_v1" else {}
                error = 0.05 - 0.01 * number + 0.001 * r
                record = training(name, error, realisation=r, augment=augment, options=options)
                trained_on = data("mnist-scale", r)
                measured = curves(name, realisation=r, trained_on=trained_on, options=options)
                write_run(sweep / folder, record, measured)
                tag = "table" if "mnist" in name else "curves"
                runs.append(SweptRun(key=key, run=folder, model=name, label=label, tag=tag))
    write_record(
        sweep / SWEEP_FILE,
        SweepRecord(
            name="quick",
            about="a trial",
            command="secli sweep configs/quick.yaml",
            secli="0.1.0",
            runs=runs,
            tables=[table.model_dump(mode="json") for table in documented()],
        ),
    )
    return place


def documented() -> list[SweptTable]:
    (text,) = (text for language, text in BLOCKS if language == "yaml")
    return [SweptTable.model_validate(table) for table in yaml.safe_load(text)["tables"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_as_typed(desk: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(desk)
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.stderr
    assert "mnist-scale" in result.stdout


def test_the_tables_written_down_are_made(desk: Path) -> None:
    tables = sweep_tables(desk / "sweeps" / "quick")
    named = [table for table in tables if not table.title.startswith("Set aside")]
    assert [table.title for table in named] == [
        "Errors",
        "Curves: accuracy (%)",
        "Curves: Δ(s)",
        "Ablation: model.base",
        "Ablation: lr",
        "Cost",
    ]
    assert not [note for table in named for note in table.notes if "cannot be made" in note]
    assert json_rows(named[0])


def test_every_option_the_page_names_exists() -> None:
    known = CliRunner().invoke(app, ["compare", "--help"], env={"COLUMNS": "400"}).stdout + "--save"
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert named
    assert not {option for option in named if option not in known}
