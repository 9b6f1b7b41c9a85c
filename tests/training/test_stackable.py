"""Which networks run at once, and that the trial sees when they do not give what each gives alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.layers.dropout import Dropout, Streams
from secli.models.building import build, resolve_options
from secli.training.optim import make_optimizer
from secli.training.replicas.optimizer_state import join_states, keep_replicas, state_of
from secli.training.replicas.stack import Stack, without_advice
from secli.training.replicas.stackable import cannot_stack, not_at_once

CPU = torch.device("cpu")
LONG = ("_resnet50", "wrn_", "_56")
"""Names of networks whose trial takes more than a few seconds."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * any(part in name for part in LONG))
        for name in MODELS.own
    ],
)
def test_every_network_of_the_registry_runs_at_once(name: str) -> None:
    options = resolve_options(MODELS[name])
    side = 28
    sized = {}
    if "image_size" in options:
        side = sized["image_size"] = 32 if name.startswith("wrn") else 24
    networks = [build(name, sized, seed=seed) for seed in range(2)]
    with without_advice():
        assert cannot_stack(networks, (options["in_channels"], side, side), CPU) is None


class Odd(nn.Module):
    """A linear network with something odd in front of it."""

    def __init__(self, odd: nn.Module, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.odd, self.classify = odd, nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classify(self.odd(x.flatten(1)))
        return y


class Counting(nn.Module):
    """Scales by how often it was called, which it keeps in a plain attribute."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Counting.calls += 1
        return x * Counting.calls


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Forgetting(nn.Module):
    """Replaces its buffer where it should change it."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + x.detach().mean(0)
        return x


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (nn.Dropout(0.5), "random operation"),
        (Deciding(), "data-dependent control flow"),
        (Counting(), "at once it gives another logits"),
        (Forgetting(), "at once it gives another odd.seen"),
        (nn.Sequential(Dropout(0.5), nn.BatchNorm1d(16)), None),
    ],
    ids=["torch's dropout", "deciding", "counting", "forgetting", "fine"],
)
def test_the_trial_says_what_is_in_the_way(odd: nn.Module, reason: str | None) -> None:
    found = cannot_stack([Odd(odd, seed) for seed in range(2)], (1, 4, 4), CPU)
    assert found == reason if reason is None else reason in (found or "")
    assert "\n" not in (found or "")


def test_the_trial_sees_shared_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = Streams.seed
    monkeypatch.setattr(Streams, "seed", lambda self, seeds: seed(self, [seeds[0]] * len(seeds)))
    found = cannot_stack([Odd(Dropout(0.5), seed) for seed in range(2)], (1, 4, 4), CPU)
    assert found == "at once it gives another logits"


def test_settings_for_one_network_at_a_time() -> None:
    assert not_at_once(TrainingSettings(device="cpu")) is None
    cases: list[tuple[dict[str, Any], str]] = [
        ({"precision": "16"}, "--precision 16"),
        ({"device": "mps"}, "on mps"),
        ({"accumulate": 2}, "--accumulate"),
        ({"checkpoint_activations": True}, "--checkpoint-activations"),
        ({"compile": True}, "--compile"),
    ]
    for changes, reason in cases:
        assert reason in (not_at_once(TrainingSettings.model_validate({"device": "cuda", **changes})) or "")


# ---- the optimiser over a stack


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()


IMAGES = torch.rand(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(module(images).square().sum())
    optimizer.step()


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam"},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd", "nesterov": True, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_one_optimiser_over_the_stack_is_one_for_each(changes: dict[str, Any]) -> None:
    training = TrainingSettings.model_validate({"lr": 0.01, "device": "cpu", **changes})
    networks = [network(seed) for seed in range(3)]
    stack = Stack(networks).train()
    over_all = make_optimizer(stack.parameters(), training)
    alone = [make_optimizer(each.parameters(), training) for each in networks]
    order = [0, 1, 2]

    def steps(count: int) -> None:
        for _ in range(count):
            step(stack, over_all, IMAGES[order])
            for which in order:
                step(networks[which], alone[which], IMAGES[which])
        for place, which in enumerate(order):
            for name, value in networks[which].state_dict().items():
                torch.testing.assert_close(stack.weights_of(place)[name], value, rtol=1e-9, atol=1e-11)

    steps(4)
    shapes = [parameter.shape for parameter in stack.parameters()]
    parts = [state_of(over_all, place) for place in order]
    for which, part in enumerate(parts):
        expected = alone[which].state_dict()
        assert part["param_groups"] == expected["param_groups"]
        for i, entries in expected["state"].items():
            for key, value in entries.items():
                torch.testing.assert_close(part["state"][i][key], value, rtol=1e-9, atol=1e-11)
    over_all.load_state_dict(join_states(parts, shapes))  # apart and together again
    for which, part in enumerate(parts):
        alone[which].load_state_dict(part)  # a single optimiser takes its part
    steps(2)
    keep_replicas(over_all, [2, 0])
    stack.keep([2, 0])
    order[:] = [2, 0]
    steps(3)
