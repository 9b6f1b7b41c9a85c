"""``secli demo --all``: every network once. The whole registry is a long check; two networks stand for it here."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from secli.catalogue import MODELS
from secli.cli.app import app
from secli.cli.demo_all import demo_all, draw_pictures


def test_pictures_of_ten_kinds_are_drawn_once(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures", seed=0)
    files = sorted((tmp_path / "pictures").rglob("*.png"))
    assert len(files) == 10 * (2 + 1 + 1)
    for file in files:
        with Image.open(file) as image:
            assert (image.mode, image.size) == ("RGB", (96, 96))
    assert len({file.read_bytes() for file in files}) == len(files)
    before = files[0].stat().st_mtime_ns
    draw_pictures(tmp_path / "pictures", seed=1)
    assert files[0].stat().st_mtime_ns == before


@pytest.mark.slow
def test_networks_of_both_kinds_of_pictures_stand_in_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo_all(tmp_path, seed=0, jobs=2, quiet=True, names=["cnn", "dss_v1"])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.startswith(("cnn", "dss_v1"))}
    assert set(rows) == {"cnn", "dss_v1"}
    assert rows["cnn"][1].startswith("digits-scale")
    assert all(float(row[4]) > 0 for row in rows.values())  # Δ was measured


@pytest.mark.slow
def test_every_network_trains_and_is_measured(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--all", "--out", str(tmp_path), "--threads", "1", "--quiet"])
    assert result.exit_code == 0, result.output
    shown = {line.split()[0] for line in result.stdout.splitlines() if line.strip()}
    assert set(MODELS.own) <= shown
