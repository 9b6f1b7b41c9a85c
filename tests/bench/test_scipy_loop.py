"""The loop with scipy that the ruler's speed is measured against does the same work, and the command prints both."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from secli.action.fields import Canvas, Plane
from secli.action.images import rescale
from secli.bench.measure_cost import zoom_cost
from secli.bench.scipy_loop import looped_error, zoomed
from secli.cli.app import app
from secli.equivariance.cell_error import TapError
from secli.models.building import build


@pytest.mark.parametrize("factor", [0.5, 1.5])  # 28 · s is whole: scipy's rounded size moves nothing
def test_the_loop_rescales_as_the_operator_does(digits: Tensor, factor: float) -> None:
    picture = digits[3, 0]
    ours = rescale(picture[None], factor)[0].numpy()
    loop = zoomed(picture.numpy(), factor, 0.5)
    assert loop.shape == ours.shape
    assert np.linalg.norm(loop - ours) < 0.06 * np.linalg.norm(ours)
    other_way = zoomed(picture.numpy(), 1 / factor, 0.5)
    assert np.linalg.norm(other_way - ours) > 0.5 * np.linalg.norm(ours)


def test_the_loop_reads_the_error_that_the_ruler_reads(digits: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    before, after = torch.rand(2, 1, 3, 28, 28, generator=generator) * digits[:1]
    cell = TapError(Plane(), 0.5, "squared", floor=False)
    cell.add(before[None, 0], after[None, 0], before[None, 0], after[None, 0], Canvas(28, 28))
    expected = float(cell.row("tap", 1).mean or 0)
    assert looped_error(before[0].numpy(), after[0].numpy(), 0.5) == pytest.approx(expected, rel=0.05)


def test_both_are_timed_in_every_round_on_the_taps_that_have_planes() -> None:
    rounds: list[tuple[int, int]] = []
    cost = zoom_cost(
        build("mnist_ses_vector_28").eval(),
        torch.rand(3, 1, 28, 28),
        repeats=2,
        looped=1,
        on_progress=lambda done, total: rounds.append((done, total)),
    )
    assert cost["zoom_taps"] == ["conv1", "block1", "block2", "conv3"]  # 2 × 2 cells and logits have no scale
    assert rounds == [(1, 2), (2, 2)]
    assert len(cost["action_us"]) == len(cost["loop_us"]) == 2
    assert cost["zoom_ratios"] == [s / f for s, f in zip(cost["loop_us"], cost["action_us"], strict=True)]
    assert cost["zoom_images"] == 1


def test_the_command_prints_both_ratios() -> None:
    arguments = [
        "bench",
        "--equivariance",
        "dss_v1",
        "--images",
        "3",
        "--factors",
        "2",
        "--repeats",
        "1",
        "-q",
    ]
    table = CliRunner().invoke(app, arguments)
    assert table.exit_code == 0, table.output
    for words in ("in batches of 3", "forward passes", "the whole curve", "a loop with scipy"):
        assert words in table.stdout
    row = json.loads(CliRunner().invoke(app, [*arguments, "--batch", "2", "--format", "json"]).stdout)
    assert (row["batch"], row["images"], row["passes"]) == (2, 3, 3)
    assert row["zoom_ratio"] == row["loop_us"][0] / row["action_us"][0]
