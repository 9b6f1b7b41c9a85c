"""The untrained networks: one table of what architectures promise, and the page that holds it."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from secli.action.fields import Invariant, Plane, ScaleSpace
from secli.catalogue import MODELS
from secli.cli.app import app
from secli.layers.deformable import DeformConv
from secli.models.building import build
from tools.untrained_page import (
    BEGIN,
    END,
    VARIANTS,
    block,
    draw_offsets,
    main,
    measured_networks,
    not_below,
    plain_of,
    read_as_plane,
    reference,
    replaced,
)

DOCS = Path(__file__).parents[2] / "docs"


def run(*arguments: str, code: int = 0) -> str:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert main(arguments) == code, err.getvalue()
    return err.getvalue() if code else out.getvalue()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    made = CliRunner().invoke(app, ["make-data", "digits", "--out", str(place), "--jobs", "1"])
    assert made.exit_code == 0, made.stderr
    return place / "digits" / "r0"


@pytest.fixture(scope="module")
def measured(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("cnn", "dss_v1", "mnist_cnn_28")
    options = (
        "--data",
        str(digits),
        "--images",
        "5",
        "--seeds",
        "2",
        "--border",
        "0",
        "--threads",
        "1",
    )
    file = tmp_path_factory.mktemp("rows") / "rows.json"
    file.write_text(run(*names, *options, "--format", "json"))
    return file


def test_rows_are_the_mean_over_seeds_with_its_range(measured: Path) -> None:
    rows = json.loads(measured.read_text())
    assert {row["model"] for row in rows} == {"cnn", "dss_v1", "mnist_cnn_28"}
    assert all((row["seeds"], row["images"], row["variant"]) == (2, 5, "") for row in rows)
    for row in rows:
        if row["mean"] is None:
            assert row["reason"]
        else:
            assert 0 < row["low"] <= row["mean"] <= row["high"]
    first = {row["tap"]: row for row in rows if row["model"] == "dss_v1" and row["factor"] == 0.5}
    assert first["lift"]["mean"] < first["conv1"]["mean"] < 0.2
    assert "logits" not in first


def test_the_table_is_printed_from_rows_and_put_into_a_page(measured: Path, tmp_path: Path) -> None:
    text = run("--rows", str(measured))
    assert text.startswith(BEGIN)
    assert text.rstrip().endswith(END)
    assert "| `cnn` | `block1` | 0." in text
    assert "too small" in text
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    assert run("--rows", str(measured), "--page", str(page)) == ""
    found = page.read_text()
    assert found.startswith("before\n")
    assert found.endswith("\n\nafter\n")
    assert "old" not in found
    page.write_text("no markers")
    assert "the page needs the lines" in run("--rows", str(measured), "--page", str(page), code=2)


@pytest.mark.parametrize("content", ["[]", "{}", "[1]", "[{}]", "no json"])
def test_rows_of_anything_else_are_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(content)
    assert "is not what --format json prints" in run("--rows", str(file), code=2)


def test_pictures_or_rows_are_needed() -> None:
    assert run(code=2).startswith("error: --data or --rows")


def test_by_default_every_network_of_small_grey_pictures_is_measured() -> None:
    wanted = measured_networks()
    own = {each.model for each in wanted if not each.variant}
    left = {name for name in MODELS.own if name not in own}
    assert left == {name for name in MODELS.own if name.startswith("wrn_") or name.endswith("resnet50")}
    assert [each for each in wanted if each.variant] == list(VARIANTS)
    assert len({(each.model, each.variant) for each in wanted}) == len(wanted)


def test_the_page_holds_every_network_and_says_what_the_rows_say() -> None:
    rows = json.loads((DOCS / "untrained.json").read_text(encoding="utf-8"))
    page = (DOCS / "untrained.md").read_text(encoding="utf-8")
    assert {(row["model"], row["variant"]) for row in rows} == {
        (each.model, each.variant) for each in measured_networks()
    }
    for model in {row["model"] for row in rows}:
        taps = [tap for tap, field in build(model).taps.items() if not isinstance(field, Invariant)]
        assert list(dict.fromkeys(row["tap"] for row in rows if row["model"] == model)) == taps
    command = page.partition(BEGIN)[2].strip().split("`")[1]
    assert replaced(page, block(rows, command)) == page


def test_every_network_stands_beside_the_plain_one_of_its_body() -> None:
    assert plain_of("mnist_disco_56p") == "mnist_cnn_56"
    assert plain_of("mnist_sevf_vector_28") == "mnist_cnn_28"
    assert plain_of("dcn") == "cnn"
    plain: dict[str, Any] = {"model": "cnn", "variant": "", "tap": "block1", "factor": 0.5, "mean": 0.2}
    other = plain | {"model": "dss_v1", "tap": "conv1", "mean": 0.3}
    rows = [plain, other, plain | {"model": "dcn", "mean": 0.1}]
    assert reference(rows, other) is plain
    assert [not_below(rows, row) for row in rows] == [False, True, False]
    assert not not_below(rows, other | {"tap": "lift"})
    assert not not_below(rows, other | {"mean": None})


def test_random_offsets_move_taps_by_one_cell() -> None:
    images = torch.rand(4, 1, 28, 28)
    for name in ("dcn", "dcn_v2"):
        model = build(name).eval()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        draw_offsets(model, images, seed=0)
        layers = [module for module in model.modules() if isinstance(module, DeformConv)]
        sizes: list[float] = []
        handles = [
            layer.offset.register_forward_hook(
                lambda module, args, out, layer=layer, sizes=sizes: sizes.append(
                    float(out[:, : layer.shifts].detach().square().mean().sqrt())
                )
            )
            for layer in layers
        ]
        with torch.no_grad():
            model(images)
        for handle in handles:
            handle.remove()
        assert sizes == pytest.approx([1.0] * len(layers), rel=1e-3)
        changed = {k for k, value in model.state_dict().items() if not torch.equal(value, before[k])}
        assert changed
        assert all("offset.weight" in key for key in changed)
        for layer in layers:
            assert not layer.offset.weight[layer.shifts :].any()


def test_a_scale_space_read_as_a_plane_keeps_grid_and_features() -> None:
    model = build("mnist_xu_28").eval()
    flat = read_as_plane(model)
    space, plane = model.taps["block1"], flat.taps["block1"]
    assert isinstance(space, ScaleSpace)
    assert plane == Plane(space.stride, space.origin)
    assert isinstance(flat.taps["logits"], Invariant)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(model(x), flat(x))
