"""A batch in parts: the same step without batch norms, parts large enough with them, the same on several devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from secli.config import ModelSettings, TrainingSettings
from secli.datasets.loading import pixels, to_device
from secli.datasets.store import ScaleDataset
from secli.errors import InputError
from secli.models.building import build
from secli.records.schema import ModelInfo
from secli.training.devices import make_fabric
from secli.training.epoch import image_order
from secli.training.fit import Fit, Job
from secli.training.optim import make_optimizer
from secli.training.plan import batch_bounds, build_for, parts_of, resolve
from secli.training.run import load_run, train

Quick = Callable[..., TrainingSettings]
CNN = ModelSettings(name="cnn")


@pytest.fixture
def unnormed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the batch norms out of every network that is built for training."""

    def without(name: str, options: dict[str, object], seed: int) -> nn.Module:
        network = build(name, options, seed=seed)
        for module in list(network.modules()):
            for child, layer in list(module.named_children()):
                if isinstance(layer, nn.BatchNorm2d):
                    setattr(module, child, nn.Identity())
        return network

    monkeypatch.setattr("secli.training.fit.build", without)


def fit_of(tiny: ScaleDataset, training: TrainingSettings, run: Path) -> Fit:
    info = ModelInfo(name="cnn", options={}, parameters=0)
    return Fit(
        make_fabric(training), Job(run, info, tiny, training, resume=False), lambda event: None, lambda: False
    )


def after_steps(fit: Fit) -> list[Tensor]:
    """Return the weights after every step of an epoch, one after the other."""
    count = len(fit.train_labels)
    weights = []
    fit.order = image_order(count, 0, 1)
    fit.network.train()
    while fit.step < len(fit.bounds):
        fit._take_step()
        weights.append(nn.utils.parameters_to_vector(fit.network.parameters()).detach())
    return weights


def furthest(one: list[Tensor], other: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("parts", [2, 3, 5, 16])
def test_without_batch_norms_the_parts_give_the_step_of_the_whole(
    tiny: ScaleDataset, quick: Quick, unnormed: None, tmp_path: Path, parts: int
) -> None:
    whole = fit_of(tiny, quick(weight_decay=0.01), tmp_path)
    cut = fit_of(tiny, quick(weight_decay=0.01, accumulate=parts), tmp_path)
    begun = nn.utils.parameters_to_vector(whole.network.parameters()).detach()
    one, other = after_steps(whole), after_steps(cut)
    assert furthest(one, other) < 1e-6 < 1e-3 < furthest([begun], one[-1:])
    torch.testing.assert_close(whole.losses, cut.losses)
    assert whole.wrong == cut.wrong


def test_means_of_parts_would_be_told_apart(
    tiny: ScaleDataset, quick: Quick, unnormed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = after_steps(fit_of(tiny, quick(), tmp_path))
    cut = fit_of(tiny, quick(accumulate=3), tmp_path)  # 16 images in parts of 5, 5 and 6
    right = cut._pass_through

    def unweighted(within: range, batch: int) -> None:
        right(within, 3 * len(within))

    monkeypatch.setattr(cut, "_pass_through", unweighted)
    assert furthest(whole, after_steps(cut)) > 1e-5


def test_batch_norms_see_the_parts(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    whole = after_steps(fit_of(tiny, quick(), tmp_path))
    cut = fit_of(tiny, quick(accumulate=2), tmp_path)
    assert furthest(whole, after_steps(cut)) > 1e-4
    (norm, *_) = [each for each in cut.network.modules() if isinstance(each, nn.BatchNorm2d)]
    assert norm.num_batches_tracked == 4 * 2 + 1  # the last batch has 17 images, so one part more


@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 64), st.integers(1, 3), st.booleans())
def test_no_part_is_too_small_or_larger_than_it_must_be(
    images: int, batch: int, accumulate: int, devices: int, normed: bool
) -> None:
    least = devices * (2 if normed else 1)
    assume(images >= least and batch >= least * accumulate)
    for start, end in batch_bounds(images, batch, least):
        parts = parts_of(end - start, batch, accumulate, least)
        if end - start == batch:
            assert parts == accumulate
        for rank in range(devices):
            mine = range(start + rank, end, devices)
            cuts = [mine[k * len(mine) // parts : (k + 1) * len(mine) // parts] for k in range(parts)]
            assert [place for cut in cuts for place in cut] == list(mine)
            assert min(len(cut) for cut in cuts) * devices >= least
            usual = -(-batch // (devices * accumulate))
            assert max(len(cut) for cut in cuts) <= max(usual, 2 * least // devices - 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 17}, "training.accumulate = 17: a batch of 16 images has no more parts than images"),
        (
            {"accumulate": 9},
            r"training.accumulate = 9: each part of a batch of 16 needs 2 images \(two for the batch norm\); "
            "give at most 8",
        ),
        (
            {"accumulate": 8, "devices": 2},
            r"each part of a batch of 16 needs 4 images \(two for the batch norm on each of 2 devices\)",
        ),
    ],
)
def test_parts_that_are_too_small_are_refused(
    tiny: ScaleDataset, quick: Quick, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_for(tiny, resolve(CNN, quick(**changes)))


def test_the_largest_number_of_parts_trains(
    tiny: ScaleDataset, quick: Quick, digest: Callable[[Path], str], tmp_path: Path
) -> None:
    settings = quick(epochs=1, accumulate=8, augment="scale")
    runs = [train(CNN, tiny, settings, tmp_path / name) for name in ("a", "b")]
    assert digest(runs[0][0]) == digest(runs[1][0])
    assert runs[0][1].training["accumulate"] == 8
    load_run(runs[0][0])


@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_is_that_of_the_formula(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, devices: int
) -> None:
    """One step on 65 images; every device takes every n-th image of the order, its share cut in three parts."""
    settings = quick(epochs=1, batch=64, accumulate=2, devices=devices, threads=devices)
    run, _ = train(CNN, tiny, settings, tmp_path)
    trained, _ = load_run(run)
    network, (images, labels) = build("cnn").train(), to_device(tiny.split("train"))
    order = image_order(65, 0, 1)
    for rank in range(devices):
        share = list(range(rank, 65, devices))
        for part in range(3):
            places = order[share[part * len(share) // 3 : (part + 1) * len(share) // 3]]
            loss = nn.functional.cross_entropy(
                network(pixels(images[places])), labels[places], reduction="sum"
            )
            torch.autograd.backward(loss / 65)
    make_optimizer(network.parameters(), settings).step()
    for ours, theirs in zip(trained.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
