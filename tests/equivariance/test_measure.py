"""``secli.measure``: what it refuses, and that it leaves the caller's network where and as it was."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secli
from secli.action.fields import Plane
from secli.equivariance.measure import checked_pixels
from secli.errors import InputError
from secli.models.contract import Stage, StagedModel


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.n, self.d = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 3, padding=1),
        )
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1  # a buffer that changes in eval mode too
        np.random.rand()  # noqa: NPY002
        torch.rand(1)
        y: Tensor = self.d(self.n(self.c(x)).relu())
        return y.mean((2, 3))


@pytest.mark.parametrize("contract", [False, True])
def test_the_network_is_left_where_and_as_it_was(digits: Tensor, contract: bool) -> None:
    network = StagedModel([Stage("c", Net().c, Plane())]) if contract else Net()
    network.train()
    list(network.children())[-1].eval()
    parameters = list(network.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    tensors = {name: (tensor, tensor.clone()) for name, tensor in network.state_dict(keep_vars=True).items()}
    modes = {module: module.training for module in network.modules()}
    states = torch.random.get_rng_state(), cast(Any, np.random.get_state())[1].tolist()  # noqa: NPY002
    frame = secli.measure(network, digits[:4], factors=[0.7])
    assert frame["mean"].notna().all()
    for name, tensor in network.state_dict(keep_vars=True).items():
        assert tensor is tensors[name][0], name
        assert torch.equal(tensor, tensors[name][1]), name
    assert {module: module.training for module in network.modules()} == modes
    assert [p.requires_grad for p in parameters] == [False, *(True for _ in parameters[1:])]
    assert parameters[1].grad is not None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1] == cast(Any, np.random.get_state())[1].tolist()  # noqa: NPY002
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.full((2, 1, 20, 20), 255.0),
            r"pixels lie between 255 and 255, not in \[0, 1\]; divide them by 255",
        ),
        (torch.linspace(-2, 2, 800).view(2, 1, 20, 20), r"between -2 and 2, .* belongs into the network"),
        (torch.zeros(2, 1, 20, 20, dtype=torch.int64), "float in .* or uint8, not int64"),
        (torch.zeros(2, 20, 20), r"\(N, C, H, W\) is needed, not \(2, 20, 20\)"),
        (torch.full((2, 1, 20, 20), torch.nan), "pixels lie between nan and nan"),
    ],
)
def test_images_that_are_no_pixels_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_pixels(images)


def test_taps_that_cannot_be_measured_are_null_rows_with_their_reasons(digits: Tensor) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spectrum, self.same, self.flat = nn.Identity(), nn.Identity(), nn.Identity()
            self.conv, self.rough = nn.Conv2d(1, 2, 3, padding=1), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            self.spectrum(torch.fft.fft2(x))
            self.same(torch.ones_like(x) * 3)
            self.rough(self.conv(x).bfloat16())
            y: Tensor = self.flat(self.conv(x).mean((2, 3)).squeeze())
            return y

    frame = secli.measure(Odd(), digits[:4], factors=[0.7], border=0.0).set_index("tap")
    reasons = frame["reason"]
    assert "its features are complex (complex64)" in reasons["spectrum"]
    assert "cannot be placed in the image (the image does not move it)" in reasons["same"]
    assert "--field 'same=channels-last'" in reasons["same"]
    assert frame["mean"].notna()[["conv", "rough"]].all()
    assert frame["warnings"]["rough"][0] == "coarse: the features are bfloat16, read as float32"
    assert "the network returns 2 for 1 images" in reasons["logits"]
    named = secli.measure(Odd(), digits[:4], factors=[0.7], taps=["sa*"])
    assert named["mean"].isna().all()
    assert named["field"].tolist() == ["unknown"]


def test_a_lazy_network_draws_its_weights_first(digits: Tensor) -> None:
    network = nn.Sequential(nn.LazyConv2d(4, 3, padding=1), nn.ReLU())
    state = torch.random.get_rng_state()
    assert secli.measure(network, digits[:2], factors=[0.7])["mean"].notna().all()
    assert torch.equal(state, torch.random.get_rng_state())


def test_weights_without_values_are_one_line(digits: Tensor) -> None:
    with pytest.raises(InputError, match="device 'meta'"):
        secli.measure(nn.Sequential(nn.Conv2d(1, 4, 3, device="meta")), digits[:2])
