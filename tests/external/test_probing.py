from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Plane, ScaleSpace
from secli.errors import UnknownNameError
from secli.external.adapt import adapt
from secli.external.cell_grid import Geometry, impossible
from secli.external.field_text import AsIs, Layout
from secli.external.hooked_model import ExternalModel
from secli.external.hooks import LOGITS
from secli.external.probing import probe, windowed_centroids
from secli.external.tap_list import list_taps
from secli.models.building import build


class Taps(nn.Module):
    """Named steps in a row, each a tap."""

    def __init__(self, **steps: nn.Module) -> None:
        super().__init__()
        self.steps = nn.ModuleDict(steps)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, step in self.steps.items():
            images = step(images)
            found[name] = images
        return found


def box(kernel: int, stride: int, padding: int, channels: int = 1) -> nn.Conv2d:
    """A convolution that averages its window."""
    convolution = nn.Conv2d(channels, 1, kernel, stride, padding, bias=False)
    nn.init.constant_(convolution.weight, 1 / kernel**2)
    return convolution


def test_the_centroid_of_a_cut_profile_is_that_of_the_whole_one() -> None:
    x = np.arange(40.0)
    whole = np.exp(-((x - 6.25) ** 2) / 50)
    plain = float(x @ whole / whole.sum())
    assert plain > 7  # pulled away from the end where the profile is cut
    found = windowed_centroids(np.stack([whole, whole + 0.3, np.exp(-((x - 20) ** 2) / 8)]), -0.5, 39.5)
    np.testing.assert_allclose(found, [6.25, 6.25, 20.0], atol=0.02)


def test_a_grid_that_begins_at_pixel_0_and_one_that_is_centred() -> None:
    # literal oracle: cell i of a 3×3 window with stride 2 and padding 1 looks at 2i, of a 2×2 window at 2i + 1/2
    model = Taps(same=box(3, 2, 1), pool=nn.AvgPool2d(2))
    found = probe(model, (1, 32, 32))
    assert found["same"].stride == (2.0, 2.0)
    assert found["same"].origin == (0.0, 0.0)
    assert not found["same"].centred
    assert found["same"].radius == pytest.approx(2**0.5, abs=1e-6)  # all nine pixels are needed for 95 %
    assert found["pool"].stride == (4.0, 4.0)
    assert found["pool"].origin == (1.0, 1.0)  # means of cells at 0 and 2
    found = probe(Taps(pool=nn.AvgPool2d(2)), (1, 32, 32))
    assert found["pool"][:2] == ((2.0, 2.0), (0.5, 0.5))
    assert found["pool"].radius == pytest.approx(0.5**0.5)
    assert found["pool"].centred


def test_rows_and_columns_have_their_own_stride_and_images_need_not_be_square() -> None:
    model = Taps(conv=nn.Conv2d(3, 64, (3, 5), stride=(2, 3), padding=(1, 2)))
    found = probe(model, (3, 32, 60))["conv"]
    assert found.stride == (2.0, 3.0)
    assert found.origin == (0.0, 0.0)


def test_enlarged_and_adaptively_pooled_maps() -> None:
    # cells of an image enlarged by 2 lie at −1/4, 1/4, 3/4, …; 7 bins on 21 pixels every 3 from 1
    model = Taps(up=nn.Upsample(scale_factor=2, mode="bilinear"))
    assert probe(model, (1, 24, 24))["up"][:2] == ((0.5, 0.5), (-0.25, -0.25))
    model = Taps(pool=nn.AdaptiveAvgPool2d(7))
    assert probe(model, (1, 21, 21))["pool"][:2] == ((3.0, 3.0), (1.0, 1.0))


@pytest.mark.parametrize("name", ["mnist_cnn_28", "mnist_ses_vector_28", "dss_v1"])
def test_own_models_lie_where_they_declare(name: str) -> None:
    model = build(name)
    found = probe(model, (1, 28, 28))
    checked = 0
    for tap, field in model.taps.items():
        if not isinstance(field, (Plane, ScaleSpace)) or field.stride == 16:
            continue  # the last plane of the bodies is 2×2
        assert found[tap].stride == (field.stride, field.stride), tap
        assert field.origin is None
        assert found[tap].centred, (tap, found[tap])
        checked += 1
    assert checked >= 4


def test_a_resnet_lies_at_multiples_of_its_stride() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    names = ["conv1", "maxpool", "layer1", "layer2", "layer3"]
    model = ExternalModel(resnet18(), nn.Identity(), dict.fromkeys(names, Plane()), _as_is(names))
    found = probe(model, (3, 96, 128), [*names])
    for name, stride in zip(names, (2, 4, 4, 8, 16), strict=True):
        assert found[name].stride == (stride, stride), name
        assert found[name].origin == (0.0, 0.0), name
    radii = [found[name].radius for name in names]
    assert radii == sorted(radii)
    # the effective field is smaller than the theoretical one (layer 1: 43 pixels wide), and wider than conv1's 7
    assert 7 < found["layer1"].radius < 43 / 2 * 2**0.5


def _as_is(names: list[str]) -> dict[str, Layout]:
    return {name: AsIs() for name in names}


def test_a_shifted_network_reads_differently() -> None:
    """The control: the probe must see a shift of one pixel."""

    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.roll(1, -1)

    straight = Taps(conv=nn.Conv2d(1, 16, 3, stride=4, padding=1))
    shifted = Taps(shift=Shifted(), conv=straight.steps["conv"])
    assert probe(straight, (1, 32, 32))["conv"].origin == (0.0, 0.0)
    assert probe(shifted, (1, 32, 32))["conv"].origin == (0.0, -1.0)


def test_a_map_that_sees_everything_does_not_crash() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.mean((2, 3), keepdim=True)

    found = probe(Taps(patch=nn.Conv2d(1, 8, 4, stride=4), mix=Attention()), (1, 32, 32))
    assert found["mix"].stride == (4.0, 4.0)
    assert found["mix"].centred
    assert found["mix"].radius > 2 * found["patch"].radius  # as measured


def test_what_cannot_be_placed_is_left_out() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones_like(x)

    model = Taps(image=nn.Identity(), constant=Constant(), pooled=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())
    found = probe(model, (1, 16, 16))
    assert list(found) == ["image"]
    assert found["image"] == Geometry((1.0, 1.0), (0.0, 0.0), 0.0, True)
    with pytest.raises(UnknownNameError, match="did you mean 'image'"):
        probe(model, (1, 16, 16), ["imag"])


def test_the_network_and_the_random_state_are_left_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    model[0].bias.requires_grad_(False)
    wrapped = ExternalModel(model, nn.Identity(), {"1": Plane()}, _as_is(["1"])).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    probe(wrapped, (1, 12, 12), ["1"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in wrapped.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model[0]._forward_hooks
    assert LOGITS not in wrapped.taps


class Mixing(nn.Module):
    """Subtracts the mean over the batch between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(x)
        found: Tensor = self.d(y - y.mean(0, keepdim=True))
        return found


class Detached(nn.Module):
    """What no gradient passes, on cells 3 pixels apart from pixel 1 on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=3)
        self.next = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = self.next(self.conv(x))
        return found


def test_what_no_gradient_leaves_is_placed_by_its_responses() -> None:
    torch.manual_seed(0)
    names = ["conv", "next"]
    model = ExternalModel(Detached(), nn.Identity(), dict.fromkeys(names, Plane()), _as_is(names))
    found = probe(model, (1, 27, 27))
    assert {name: geometry[:2] for name, geometry in found.items()} == dict.fromkeys(
        names, ((3.0, 3.0), (1.0, 1.0))
    )
    assert found["conv"].radius == pytest.approx(2**0.5)
    assert 3 < found["next"].radius < 7


@pytest.mark.parametrize("network", [Mixing, Detached])
def test_the_list_of_taps_places_them_all_in_a_few_passes(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    progress: list[tuple[int, int]] = []
    listed = list_taps(network().eval(), (1, 27, 27), on_progress=lambda *step: progress.append(step))
    stride = 3.0 if network is Detached else 1.0
    assert [(tap.stride, tap.origin) for tap in listed] == [((stride,) * 2, ((stride - 1) / 2,) * 2)] * 2
    assert progress[-1] == (2, 2)


def test_a_network_that_mixes_pictures_is_probed_by_each_pictures_own_gradient() -> None:
    torch.manual_seed(0)
    model = adapt(Mixing().eval(), nn.Identity(), (1, 28, 28), None)
    assert model.mixes is not None
    assert "tap 'd' of a picture changes by" in str(model.mixes)
    assert {tap: field.reads_as() for tap, field in model.taps.items()} == dict.fromkeys(
        "cd", "plane, stride 1"
    )


def test_responses_and_gradients_find_the_same_grids() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = resnet18(weights=None).eval()
    names = ["conv1", "maxpool", "layer1", "layer2"]
    model = ExternalModel(network, nn.Identity(), dict.fromkeys(names, Plane()), _as_is(names))
    slowly = probe(model, (3, 64, 96), names)
    listed = {tap.name: tap for tap in list_taps(network, (3, 64, 96), taps=names)}
    for name in names:
        assert (listed[name].stride, listed[name].origin) == slowly[name][:2], name
        assert listed[name].radius == pytest.approx(slowly[name].radius, rel=0.15)


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (((1.0, 1.0), (0.0, 0.0), 1.5), None),
        (((0.5, 0.5), (-0.25, -0.25), 1.0), "28 cells 0.5 px apart would cover 14 of 28 pixels"),
        (((0.25, 0.25), (10.0, 10.0), 11.0), "28 cells 0.25 px apart would cover 7 of 28 pixels"),
        (((1.0, 1.0), (0.0, -9.0), 2.0), "its cells would lie at -9 to 18, outside of 28 pixels"),
        (((4.0, 4.0), (0.0, 0.0), 9.0), "28 cells 4 px apart would cover 112 of 28 pixels"),
        (((0.0, 1.0), (14.0, 0.0), 9.0), "neighbouring cells look at the same place"),
    ],
)
def test_a_grid_that_cannot_be_is_not_accepted(geometry: Any, reason: str | None) -> None:
    found = impossible("conv", Geometry(*geometry), (28, 28), (28, 28))
    assert (reason in str(found)) if reason else found is None


def test_enlarged_maps_crops_and_full_padding_are_possible() -> None:
    assert impossible("conv", Geometry((0.5, 0.5), (-0.25, -0.25), 1.0), (56, 56), (28, 28)) is None
    assert impossible("conv", Geometry((1.0, 1.0), (10.0, 10.0), 1.0), (8, 8), (28, 28)) is None
    assert impossible("conv", Geometry((1.0, 1.0), (-4.0, -4.0), 5.0), (36, 36), (28, 28)) is None
