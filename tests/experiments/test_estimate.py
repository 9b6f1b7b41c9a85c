"""What a sweep is thought to cost: the arithmetic, the size of the images, and what finished runs teach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from secli.config import ModelSettings, TrainingSettings
from secli.experiments import estimate as rooms
from secli.experiments.estimate import (
    FACTORS,
    MEASURING,
    Cost,
    cost_of,
    estimate,
    finished_seconds,
    kindred,
    longest_path,
    protocol_sizes,
    step_memory,
)
from secli.experiments.plan import plan
from secli.models.building import build
from tests.experiments.conftest import sweep_of

COST = Cost(train=2.0, forward=0.5, memory=10.0, state=1000)


def estimated(monkeypatch: pytest.MonkeyPatch, **keys: Any) -> list[float | None]:
    monkeypatch.setattr(rooms, "cost_of", lambda run: COST)
    return [each.seconds for each in estimate(plan(sweep_of(**keys)), protocol_sizes, {})]


def test_the_seconds_are_epochs_of_training_and_validation_one_test_and_the_curves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = 2 * (64 * 2.0 + 20 * 0.5) + 30 * 0.5
    assert estimated(monkeypatch) == [bare]
    for settings, factors, images in [
        ({"factors": [1, 0.5], "images": 7}, 2, 7),
        ({"protocol": "downscale-2020"}, 6, 30),  # no more images than there are
        ({"images": 5}, FACTORS, 5),
    ]:
        assert estimated(monkeypatch, measure=settings) == [bare + MEASURING * (factors + 1) * images * 0.5]
    assert estimated(monkeypatch, datasets=["folder-scale"]) == [None]
    (each,) = estimate(plan(sweep_of()), protocol_sizes, {})
    assert each.memory == 1000 + 16 * 10.0


def test_finished_runs_tell_the_time_of_those_that_differ_in_seed_and_realisation_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "cost_of", lambda run: COST)
    data = [{"name": "digits-scale", "realisations": "0-1", "sizes": [64, 20, 30]}]
    runs = plan(sweep_of(datasets=data, seeds=[0, 1], grid={"training.augment": ["none", "scale"]}))
    assert len({kindred(run) for run in runs}) == 2
    known = finished_seconds(runs, lambda run: {0: 10.0, 1: 20.0}[run.seed] if run.data.realisation else None)
    assert set(known.values()) == {15.0}
    each = estimate(runs[:1], protocol_sizes, known)[0]
    assert (each.seconds, each.measured) == (15.0 + (2 * 20 + 30) * 0.5, True)


def test_networks_are_timed_once_and_at_the_size_of_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def cost(run: Any) -> Cost:
        sides.append(rooms._side(run))
        return COST

    monkeypatch.setattr(rooms, "cost_of", cost)
    colour = {"name": "cnn", "options": {"in_channels": 3}}
    models_and_data = [
        {"models": [colour], "datasets": ["cifar10-scale", "stl10"]},
        {"models": ["cnn"], "datasets": ["digits-scale", {"name": "folder-scale", "image_size": 40}]},
    ]
    told: list[tuple[int, int]] = []
    parts = [{"tag": str(i), **part, "seeds": [0, 1]} for i, part in enumerate(models_and_data)]
    runs = plan(sweep_of(parts=parts))
    estimate(runs, protocol_sizes, {}, lambda done, total: told.append((done, total)))
    assert sides == [32, 96, 28, 40]
    assert told == [(i, 4) for i in (1, 2, 3, 4)]


def test_a_step_is_really_timed_and_its_memory_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed is a step with gradients, then a pass without; the memory of a layer is counted by hand."""
    from secli.config import ModelSettings, TrainingSettings

    modes: list[bool] = []
    clock = rooms._timed

    def watched(work: Callable[[], object]) -> float:
        modes.append(torch.is_grad_enabled())
        return clock(work)

    monkeypatch.setattr(rooms, "_timed", watched)

    threads = torch.get_num_threads()
    (run,) = plan(sweep_of(), threads=1)
    cost = cost_of(run)
    assert torch.get_num_threads() == threads
    assert modes == [True, False]
    assert cost.train > 0
    assert cost.forward > 0
    network = build("cnn", {"widths": [2, 2, 2, 2]})
    assert cost.state == 4 * 4 * sum(p.numel() for p in network.parameters())
    assert cost.memory >= 28 * 28 * 4  # at least the picture itself
    model, training = ModelSettings(name="cnn", options={"widths": [2, 2, 2, 2]}), TrainingSettings(batch=10)
    assert step_memory(model, training) == pytest.approx(cost.state + 10 * cost.memory)
    assert step_memory(model, training, side=56) > 3 * step_memory(model, training) - 3 * cost.state

    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU())
    images, labels = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    # kept: the images, ReLU's output, log-softmax's output, the labels, the loss' total weight
    assert rooms._kept_bytes(layer, images, labels) == 8 * 4 * 4 + 8 * 3 * 4 + 8 * 3 * 4 + 8 * 8 + 4


def test_workers_take_the_runs_in_order() -> None:
    assert longest_path([3, 1, 1, 1], 2) == 3
    assert longest_path([1, 1, 1, 3], 2) == 4
    assert longest_path([1, 2], 5) == 2
    assert longest_path([], 0) == 0


def test_parts_of_a_batch_and_activations_computed_again_need_less_memory() -> None:
    model = ModelSettings(name="wrn_16_8", options={"image_size": 48, "widths": (4, 8, 12, 16)})
    usual = TrainingSettings(batch=32)

    def activations(**changes: Any) -> float:
        network = build(model.name, model.options)
        state = 16 * sum(p.numel() for p in network.parameters())
        return step_memory(model, usual.model_copy(update=changes)) - state

    whole = activations()
    assert activations(accumulate=4) == pytest.approx(whole / 4)
    assert activations(accumulate=3) == pytest.approx(whole * 11 / 32)  # parts of 10, 11 and 11 images
    again = activations(checkpoint_activations=True)
    assert 0.2 * whole < again < 0.6 * whole
    assert activations(checkpoint_activations=True, accumulate=4) == pytest.approx(again / 4)


def test_a_network_that_computes_its_activations_again_is_timed_by_itself() -> None:
    runs = plan(sweep_of(grid={"training.checkpoint_activations": [False, True]}))
    kept, again = estimate(runs, protocol_sizes, {})
    assert again.memory < kept.memory
