"""What a sweep is thought to cost: the arithmetic, the size of the images, and what finished runs teach."""

from __future__ import annotations

from typing import Any

import pytest

from secli.config import ModelSettings, TrainingSettings
from secli.errors import InputError
from secli.models.building import build
from secli.sweeps import estimate as room
from secli.sweeps.cpu_rates import Rates
from secli.sweeps.estimate import (
    FACTORS,
    MEASURING,
    Cost,
    Estimate,
    cost_of,
    distinct,
    estimate,
    finished_seconds,
    kindred,
    longest_path,
    protocol_sizes,
    step_memory,
)
from secli.sweeps.operation_counts import Counts, shapes_of
from secli.sweeps.plan import plan
from secli.training.operation_counts import Work
from tests.sweeps.conftest import sweep_of

COST = Cost(train=2.0, forward=0.5, memory=10.0)
RATES = {1: Rates(1e9, 1e8, 1e8, 1e8)}


def estimated(monkeypatch: pytest.MonkeyPatch, **keys: Any) -> list[Estimate]:
    monkeypatch.setattr(room, "cost_of", lambda *_: COST)
    return estimate(plan(sweep_of(**keys)), protocol_sizes, {}, RATES)


def test_the_seconds_are_epochs_of_training_and_validation_one_test_and_the_curves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = 2 * (64 * 2.0 + 20 * 0.5) + 30 * 0.5
    assert [each.seconds for each in estimated(monkeypatch)] == [bare]
    for settings, factors, images in [
        ({"factors": [1, 0.5], "images": 7}, 2, 7),
        ({"protocol": "downscale-2020"}, 6, 30),  # no more images than there are
        ({"images": 5}, FACTORS, 5),
    ]:
        (each,) = estimated(monkeypatch, measure=settings)
        assert each.seconds == bare + MEASURING * (factors + 1) * images * 0.5
    (each,) = estimated(monkeypatch, datasets=["folder-scale"])
    assert each.seconds is None
    assert each.memory == COST.memory


def test_finished_runs_tell_the_time_of_those_that_differ_in_seed_and_realisation_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "cost_of", lambda *_: COST)
    data = [{"name": "digits-scale", "realisations": "0-1", "sizes": [64, 20, 30]}]
    runs = plan(sweep_of(datasets=data, seeds=[0, 1], grid={"training.augment": ["none", "scale"]}))
    assert len({kindred(run) for run in runs}) == 2
    known = finished_seconds(runs, lambda run: {0: 10.0, 1: 20.0}[run.seed] if run.data.realisation else None)
    assert set(known.values()) == {15.0}
    each = estimate(runs[:1], protocol_sizes, known, RATES)[0]
    assert (each.seconds, each.measured) == (15.0 + (2 * 20 + 30) * 0.5, True)


def test_networks_are_counted_once_and_at_the_size_of_their_images() -> None:
    colour = {"name": "cnn", "options": {"in_channels": 3, "widths": [2, 2, 2, 2]}}
    grey = {"name": "cnn", "options": {"widths": [2, 2, 2, 2]}}
    models_and_data = [
        {"models": [colour], "datasets": ["cifar10-scale", "stl10"]},
        {"models": [grey], "datasets": ["digits-scale", {"name": "folder-scale", "image_size": 40}]},
    ]
    told: list[tuple[int, int]] = []
    parts = [{"tag": str(i), **part, "seeds": [0, 1]} for i, part in enumerate(models_and_data)]
    runs = plan(sweep_of(parts=parts, grid={"training.lr": [0.1, 0.01]}))
    estimates = estimate(runs, protocol_sizes, {}, RATES, lambda done, total: told.append((done, total)))
    assert distinct(runs) == 4
    assert list(dict.fromkeys(told)) == [(i, 4) for i in (1, 2, 3, 4)]
    assert {room._side(each.run) for each in estimates} == {32, 96, 28, 40}
    assert len({each.memory for each in estimates}) == 4


def test_seconds_are_work_over_what_the_machine_does_in_a_second() -> None:
    work = Work(products=6e9, samples=2e8, transforms=1e8, traffic=3e8)
    assert RATES[1].seconds(work) == 6 + 2 + 1 + 3
    (run,) = plan(sweep_of(), threads=1)
    cost = cost_of(run, Counts(), RATES[1])
    slower = cost_of(run, Counts(), Rates(*(rate / 2 for rate in RATES[1])))
    assert cost is not None
    assert slower is not None
    assert slower.train == pytest.approx(2 * cost.train)
    assert slower.memory == cost.memory
    assert 2 * cost.forward < cost.train < 6 * cost.forward


def test_the_memory_is_that_of_weights_moments_and_step() -> None:
    model = ModelSettings(name="cnn", options={"widths": [2, 2, 2, 2]})
    weights = 4 * sum(tensor.numel() for tensor in build("cnn", model.options).state_dict().values())

    def needed(**changes: Any) -> float:
        return step_memory(model, TrainingSettings(batch=10, **changes))

    assert needed() - needed(optimizer="sgd", momentum=0) == pytest.approx(2 * weights, rel=0.05)
    assert needed() - needed(optimizer="sgd") == pytest.approx(weights, rel=0.05)
    assert needed() > 10 * 28 * 28 * 4 * 3  # pictures, the first layer's two maps
    training = TrainingSettings(batch=10)
    assert step_memory(model, training, side=56) > 3 * step_memory(model, training)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A network whose forward pass alone says that no image is large enough."""

    def refuse(*_: object) -> None:
        raise RuntimeError("kernel size can't be greater than input size\nat some line")

    monkeypatch.setattr(Counts, "_on_meta", refuse)
    return {"name": "cnn", "options": {"widths": [2, 2, 2, 5]}}


def test_a_network_that_cannot_take_its_images_is_one_line(narrow: dict[str, Any]) -> None:
    runs = plan(sweep_of(models=[narrow], datasets=[{"name": "digits", "image_size": 4}]))
    reason = r"\(kernel size can't be greater than input size\)$"
    with pytest.raises(InputError, match=rf"^digits: model cnn cannot take its 1×4×4 images {reason}"):
        estimate(runs, protocol_sizes, {}, RATES)
    with pytest.raises(InputError, match=rf"^model cnn cannot take 4×4 images {reason}"):
        step_memory(ModelSettings(**narrow), TrainingSettings(), side=4)


def test_a_size_that_is_only_guessed_is_no_error(narrow: dict[str, Any]) -> None:
    (each,) = estimate(plan(sweep_of(models=[narrow], datasets=["folder-scale"])), protocol_sizes, {}, RATES)
    assert (each.seconds, each.memory) == (None, None)


def test_on_a_gpu_the_forms_of_a_gpu_are_counted() -> None:
    options = {"in_channels": 1, "classes": 10}
    model = ModelSettings(name="mnist_ses_vector_28")
    training = TrainingSettings(batch=8)
    here = Counts().of(shapes_of(model.name, options, training, 28))
    # there the maximum over scales keeps eight bytes a cell
    assert step_memory(model, training) > here.weights * 3 + here.peak


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
    assert activations(accumulate=4) == pytest.approx(whole / 4, rel=0.1)
    assert activations(accumulate=3) == pytest.approx(whole * 11 / 32, rel=0.1)  # parts of 10, 11 and 11
    again = activations(checkpoint_activations=True)
    assert 0.2 * whole < again < 0.6 * whole
    assert activations(checkpoint_activations=True, accumulate=4) == pytest.approx(again / 4, rel=0.1)


def test_a_network_that_computes_its_activations_again_is_counted_by_itself() -> None:
    model = {"name": "wrn_16_8", "options": {"image_size": 48, "widths": [4, 8, 12, 16]}}
    data = [{"name": "stl10", "image_size": 48}]
    runs = plan(
        sweep_of(models=[model], datasets=data, grid={"training.checkpoint_activations": [False, True]})
    )
    kept, again = estimate(runs, protocol_sizes, {}, RATES)
    assert kept.memory is not None
    assert again.memory is not None
    assert again.memory < kept.memory
