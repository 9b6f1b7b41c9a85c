"""The work and memory of a step against counts by hand, and on the meta device against real tensors."""

from __future__ import annotations

import gc
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secli.models.building import build
from secli.models.flops import flops
from secli.models.meta_device import outline
from secli.training.operation_counts import StepWork, Work, WorkCounter
from secli.training.recompute import recompute_activations


def counted(network: nn.Module, *shape: int, device: str = "meta", passes: int = 1) -> StepWork:
    images = torch.zeros(*shape, device=device)
    labels = torch.zeros(shape[0], dtype=torch.int64, device=device)
    return WorkCounter().step(network.to(device), images, labels, passes)


def test_products_are_those_of_forward_and_backward_pass() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))
    work = counted(network, 5, 2, 8, 8)
    convolution, product = 2 * 5 * 4 * 36 * 2 * 9, 2 * 5 * 144 * 3
    assert work.forward.products == convolution + product
    # each once more for the weights' gradient; the images want none, the features do
    assert work.step.products == 2 * convolution + 3 * product


class Sampler(nn.Module):
    """Reads a picture at learned points, and transforms it."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.zeros(1, 5, 7, 2))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.grid_sample(x, self.grid.expand(len(x), -1, -1, -1), align_corners=False)
        z: Tensor = y.flatten(1) + torch.fft.rfft2(x).real.sum((1, 2, 3)).view(-1, 1)
        return z


def test_samples_and_transforms_are_counted_apart() -> None:
    work = counted(Sampler(), 3, 2, 8, 8)
    cells, points = 3 * 2 * 5 * 7, 3 * 2 * 8 * 8
    assert work.forward.samples == 8 * cells
    assert work.step.samples == 8 * cells + 24 * cells
    assert work.step.transforms == work.forward.transforms == pytest.approx(5 * points * math.log2(64))
    assert work.step.products == 0


def test_a_product_of_complex_numbers_is_four() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(5, 16, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.complex(x, x).flatten(1)
            return (y @ self.weight.mT).real

    assert counted(Complex(), 3, 1, 4, 4).forward.products == 4 * 2 * 3 * 16 * 5


def test_traffic_is_what_is_read_and_written_and_views_are_free() -> None:
    layers = [nn.Flatten(), nn.Linear(25, 6)]
    alone = counted(nn.Sequential(*layers), 4, 1, 5, 5).forward.traffic
    views = nn.Sequential(*layers, nn.Unflatten(1, (2, 3)), nn.Flatten())
    assert counted(views, 4, 1, 5, 5).forward.traffic == alone
    rectified = nn.Sequential(*layers, nn.ReLU())
    assert counted(rectified, 4, 1, 5, 5).forward.traffic - alone == 2 * 4 * 6 * 4


def test_the_peak_is_the_most_that_is_alive_at_one_moment() -> None:
    layer = nn.Sequential(nn.Flatten(), nn.Linear(400, 300, bias=False), nn.ReLU())
    for device in ("cpu", "meta"):
        work = counted(layer, 8, 1, 20, 20, device=device)
        images, hidden, labels, weights = 8 * 400 * 4, 8 * 300 * 4, 8 * 8, 400 * 300 * 4
        # when the weights' gradient is made: the images, the gradient that it is made from, and itself
        least = images + labels + hidden + weights
        assert least <= work.peak <= least + 3 * hidden, device
    # from the second pass on a gradient is there while another one is made
    twice = counted(layer, 8, 1, 20, 20, passes=2)
    assert twice.peak >= work.peak + weights
    assert twice.step.products == work.step.products
    assert twice.step.traffic == work.step.traffic + 3 * weights  # one gradient is added to the other


def test_nothing_is_kept_alive_and_no_gradient_is_left() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    first = counted(network, 2, 1, 4, 4)
    assert all(parameter.grad is None for parameter in network.parameters())
    gc.collect()
    assert counted(network, 2, 1, 4, 4) == first


NETWORKS = (
    "cnn",
    "dcn",
    "dcn_v2",
    "dss_v1",
    "dss_v2",
    "deform_dss",
    "mnist_cnn_28",
    "mnist_dss_vector_28",
    "mnist_ses_vector_28",
    "mnist_ses_scalar_28p",
)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_counted_on_the_meta_device_is_what_real_tensors_do(name: str) -> None:
    shapes = counted(outline(name), 2, 1, 28, 28)
    network = build(name)
    real = counted(network, 2, 1, 28, 28, device="cpu")
    assert shapes.forward.products == real.forward.products
    assert shapes.step.products == real.step.products
    assert shapes.step.samples == real.step.samples
    assert shapes.step.transforms == pytest.approx(real.step.transforms)
    # the gradient of a few operations is written in other operations there
    assert shapes.step.traffic == pytest.approx(real.step.traffic, rel=0.25)
    assert shapes.peak == pytest.approx(real.peak, rel=0.25)


@pytest.mark.parametrize("name", ["cnn", "dss_v1", "mnist_dss_scalar_28"])
def test_forward_products_are_those_that_are_described(name: str) -> None:
    """The count of ``secli models`` is another one, by torch's own counter."""
    network = build(name)
    expected = flops(network, torch.zeros(2, 1, 28, 28))
    assert counted(outline(name), 2, 1, 28, 28).forward.products == expected


def test_activations_that_are_computed_again_take_work_and_spare_memory() -> None:
    options = {"image_size": 48, "widths": (4, 8, 12, 16)}
    usual = counted(outline("wrn_16_8", options), 16, 3, 48, 48)
    network = outline("wrn_16_8", options)
    recompute_activations(network)
    again = counted(network, 16, 3, 48, 48)
    assert 0.2 * usual.peak < again.peak < 0.6 * usual.peak
    assert usual.step.products < again.step.products < usual.step.products + usual.forward.products


def test_a_known_operation_is_not_run_again() -> None:
    counter, network = WorkCounter(), outline("deform_dss")
    images, labels = (
        torch.zeros(2, 1, 28, 28, device="meta"),
        torch.zeros(2, dtype=torch.int64, device="meta"),
    )
    gc.disable()  # when it frees a cycle is its own affair
    try:
        first = counter.step(network, images, labels)
        known = len(counter._known)
        again = counter.step(network, images, labels)
    finally:
        gc.enable()
    assert (again.forward, again.step) == (first.forward, first.step)
    assert again.peak == pytest.approx(first.peak, rel=0.05)
    assert len(counter._known) == known


def test_work_is_added_and_multiplied() -> None:
    work = Work(1, 2, 3, 4)
    assert work * 2 == Work(2, 4, 6, 8)
    assert work * 2 - work == work
