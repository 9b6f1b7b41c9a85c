"""Activations computed twice: the same bytes as kept ones, statistics updated once, and less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from secli.config import ModelSettings, TrainingSettings
from secli.datasets.store import ScaleDataset
from secli.errors import InputError
from secli.models.building import build
from secli.training import recompute
from secli.training.plan import resolve
from secli.training.recompute import recompute_activations, segments
from secli.training.run import train

Quick = Callable[..., TrainingSettings]
SMALL_WRN = {"image_size": 24, "widths": (4, 6, 8, 10)}
# a plain body, scale axes, dropout, residual blocks, lists of tensors, vectors with statistics of their own
NETWORKS: dict[str, dict[str, Any]] = {
    "cnn": {},
    "mnist_ses_vector_28": {},
    "wrn_16_8_ses_a": SMALL_WRN,
    "wrn_16_8": SMALL_WRN,
    "mnist_sevf_vector_28": {},
    "dss_v2": {},
}


def step(network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits, gradients and buffers of a training pass with the same random numbers every time."""
    torch.manual_seed(3)
    logits: Tensor = network.train()(images)
    torch.autograd.backward(nn.functional.cross_entropy(logits, torch.arange(len(images)) % 10))
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return logits.detach(), {**gradients, **dict(network.named_buffers())}


def pictures(network: nn.Module, options: dict[str, Any], count: int = 4) -> Tensor:
    mean = network.get_buffer(next(name for name, _ in network.named_buffers() if name.endswith("mean")))
    return torch.rand(count, mean.numel(), *[options.get("image_size", 28)] * 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_statistics_and_masks_are_those_of_the_ordinary_pass(name: str) -> None:
    kept = build(name, NETWORKS[name])
    again = copy.deepcopy(kept)
    recompute_activations(again)
    images = pictures(kept, NETWORKS[name])
    for _ in range(2):  # the second begins with statistics that are not the first ones
        logits, all_kept = step(kept, images)
        other, all_again = step(again, images)
        assert torch.equal(logits, other)
        assert all_kept.keys() == all_again.keys()
        for key, value in all_kept.items():
            assert torch.equal(value, all_again[key]), key
    assert again.state_dict().keys() == kept.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(kept.eval()(images), again.eval()(images))


def test_statistics_that_the_second_pass_updates_too_would_be_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = build("cnn")
    again = copy.deepcopy(kept)
    monkeypatch.setattr(recompute, "_statistics_kept", lambda modules: nullcontext())
    recompute_activations(again)
    images = pictures(kept, {})
    (_, right), (_, wrong) = step(kept, images), step(again, images)
    different = {name for name in right if not torch.equal(right[name], wrong[name])}
    assert different
    assert all("running" in name or "num_batches" in name for name in different)


def test_other_masks_in_the_second_pass_would_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = build("wrn_16_8", {**SMALL_WRN, "dropout": 0.5})
    again = copy.deepcopy(kept)
    unseeded = partial(checkpoint, preserve_rng_state=False)
    monkeypatch.setattr(recompute, "checkpoint", unseeded)
    recompute_activations(again)
    images = pictures(kept, SMALL_WRN)
    (_, mine), (_, other) = step(kept, images), step(again, images)
    assert not all(torch.equal(mine[name], other[name]) for name in mine)


def test_residual_blocks_are_segments_of_their_own() -> None:
    wide = build("wrn_16_8", SMALL_WRN)
    assert [type(each).__name__ for each in segments(wide)] == ["Chain"] + ["WideBlock"] * 6
    plain = build("cnn")
    assert segments(plain) == [module for _, module in plain.stages][:-1]


class _Live:
    """Counts the bytes that are kept for a backward pass, and the most there were at a time."""

    def __init__(self, network: nn.Module) -> None:
        self.weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        self.holders: dict[int, int] = {}
        self.now = self.most = 0

    def measure(self, network: nn.Module, images: Tensor) -> int:
        """Return the most bytes kept at a time in a training step."""
        save = torch.autograd.graph.saved_tensors_hooks(lambda x: _Held(self, x), lambda held: held.tensor)
        with save:
            step(network, images)
        return self.most


class _Held:
    def __init__(self, live: _Live, tensor: Tensor) -> None:
        self.live, self.tensor = live, tensor
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        if self.key in live.weights:
            self.size = 0
        if not live.holders.get(self.key):
            live.now += self.size
            live.most = max(live.most, live.now)
        live.holders[self.key] = live.holders.get(self.key, 0) + 1

    def __del__(self) -> None:
        self.live.holders[self.key] -= 1
        if not self.live.holders[self.key]:
            self.live.now -= self.size


@pytest.mark.parametrize(("name", "share"), [("wrn_16_8_ses_a", 0.25), ("wrn_16_8", 0.35), ("cnn", 0.7)])
def test_less_is_kept_when_the_backward_pass_begins(name: str, share: float) -> None:
    """What a segment needs once more comes and goes one segment at a time (see below)."""
    options = {"image_size": 48, "widths": (4, 8, 12, 16)} if name.startswith("wrn") else {}
    kept = build(name, options)
    again = copy.deepcopy(kept)
    recompute_activations(again)
    images = pictures(kept, options)
    assert _Live(again).measure(again, images) < share * _Live(kept).measure(kept, images)


def test_one_segment_at_a_time_is_computed_again() -> None:
    network = build("wrn_16_8", SMALL_WRN)
    running: list[int] = []
    recompute_activations(network)
    images = pictures(network, SMALL_WRN)
    logits = network(images)
    for number, segment in enumerate(segments(network)):
        for module in segment.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(lambda *_, number=number: running.append(number))
    torch.autograd.backward(logits.sum())
    assert running == sorted(running, reverse=True)
    assert set(running) == set(range(7))


def test_a_run_has_the_weights_of_an_ordinary_one(
    tiny: ScaleDataset, quick: Quick, digest: Callable[[Path], str], tmp_path: Path
) -> None:
    model = ModelSettings(name="mnist_cnn_28")
    changes = {"epochs": 1, "batch": 40, "optimizer": "adam"}
    ordinary, _ = train(model, tiny, quick(**changes), tmp_path)
    again, record = train(model, tiny, quick(**changes, checkpoint_activations=True), tmp_path)
    assert again != ordinary
    assert digest(again) == digest(ordinary)
    assert record.training["checkpoint_activations"] is True


def test_two_ways_to_save_memory_go_together(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    _, record = train(
        ModelSettings(name="cnn"),
        tiny,
        quick(epochs=1, accumulate=4, checkpoint_activations=True, precision="bf16"),
        tmp_path,
    )
    assert record.status == "finished"


def test_with_a_compiler_it_is_refused(quick: Quick) -> None:
    message = "training.compile and training.checkpoint_activations exclude each other"
    with pytest.raises(InputError, match=message):
        resolve(ModelSettings(name="cnn"), quick(compile=True, checkpoint_activations=True))
