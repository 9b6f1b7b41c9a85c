"""The ruler reads right: figures known from theory or from a first experiment, each with what would spoil it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, Float64, UInt8
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from secli.action.fields import Invariant, Plane, ScaleSpace
from secli.action.images import SAMPLING_BLUR, rescale
from secli.config import MeasureSettings
from secli.equivariance.curves import measure_curves
from secli.errors import InputError
from secli.layers.gaussian import ScaleSpaceLift
from secli.models.building import build
from secli.models.contract import Stage, StagedModel
from secli.records.schema import CurveRow
from secli.sources.contract import Request
from secli.sources.registry import read_source

Images = Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]

FACTORS = (0.8, 1 / math.sqrt(3), 0.5)
STACK = (1.0, 2.0, 4.0, 8.0)


class Head(nn.Module):
    """Sums over the planes."""

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1).sum(1, keepdim=True).repeat(1, 3)


def network(module: nn.Module, field: Plane | ScaleSpace) -> StagedModel:
    return StagedModel([Stage("tap", module, field), Stage("logits", Head(), Invariant())])


def rows(model: StagedModel, images: Images, tap: str = "tap", **values: Any) -> list[CurveRow]:
    settings = MeasureSettings.model_validate({"factors": (0.5,), "taps": (tap,), **values})
    return measure_curves(model, images, settings).rows


def reading(model: StagedModel, images: Images, tap: str = "tap", **values: Any) -> float:
    (row,) = rows(model, images, tap, **values)
    assert row.mean is not None, row.reason
    return row.mean


def by_level(model: StagedModel, images: Images, **values: Any) -> list[float]:
    """Return Δ of each level that is known."""
    found = rows(model, images, per=("level",), **values)
    return [row.mean for row in found if row.level is not None and row.mean is not None]


@pytest.fixture(scope="module")
def mnist() -> UInt8[Tensor, "200 1 28 28"]:
    """The first 200 test images of MNIST, where they are at hand."""
    try:
        raw = read_source("mnist", Request(offline=True))
    except InputError as error:
        pytest.skip(f"needs MNIST in the cache: {error}")
    assert isinstance(raw.images, np.ndarray)
    return torch.from_numpy(raw.images[60000:60200].copy())[:, None]


@pytest.fixture(scope="module")
def photographs() -> Float[Tensor, "2 1 160 160"]:
    """Two sample photographs of scikit-learn, grey, their middle squares."""
    greys = [Image.fromarray(photograph).convert("L") for photograph in load_sample_images().images]
    squares = [grey.crop((107, 0, 534, 427)).resize((160, 160), Image.Resampling.LANCZOS) for grey in greys]
    return torch.from_numpy(np.stack([np.asarray(square) for square in squares]))[:, None] / 255.0


class TestTheGaussianLiftLevelByLevel:
    model = network(ScaleSpaceLift(base=2.0, z=0.5, levels=4), ScaleSpace(STACK, base_blur=0.5))

    def test_on_digits(self, digits: Tensor) -> None:
        levels = by_level(self.model, digits)
        assert len(levels) == 3
        assert max(levels) < 0.01

    def test_a_finer_grid_reads_less(self, digits: Tensor) -> None:
        fine = nn.functional.interpolate(digits, scale_factor=4, mode="bicubic").clamp(0, 1)
        assert max(by_level(self.model, fine)) < 0.0003

    def test_on_mnist(self, mnist: Tensor) -> None:
        levels = by_level(self.model, mnist)
        assert levels == pytest.approx([0.00002, 0.0033, 0.0059], abs=0.0006)
        ignored = by_level(network(ScaleSpaceLift(base=2.0, z=0.5, levels=4), ScaleSpace(STACK)), mnist)
        assert ignored == pytest.approx([0.035, 0.012, 0.004], rel=0.2)
        assert ignored[0] > 5 * levels[0]
        fine = nn.functional.interpolate(mnist.float() / 255, scale_factor=4, mode="bicubic").clamp(0, 1)
        assert max(by_level(self.model, fine)) < 0.0003

    def test_a_wrong_action_on_mnist_reads_what_it_is_known_to_read(self, mnist: Tensor) -> None:
        lift, images = ScaleSpaceLift(base=2.0, z=0.5, levels=4), mnist / 255
        features, actual = lift(images), lift(rescale(images, 0.5))
        planes = rescale(features, 0.5, blur=0.0)  # the lift's own blur supplies what L_s would add
        no_rescale = [ratio(features[:, :, k + 1], actual[:, :, k]) for k in range(3)]
        no_shift = [ratio(planes[:, :, k], actual[:, :, k]) for k in range(4)]
        wrong_way = [ratio(planes[:, :, k - 1], actual[:, :, k]) for k in range(1, 4)]
        assert no_rescale == pytest.approx([0.88, 0.68, 0.51], abs=0.03)
        assert no_shift == pytest.approx([0.07, 0.13, 0.17, 0.25], abs=0.03)
        assert min(no_rescale) > 0.4
        assert min(no_shift) > 0.05
        assert min(wrong_way) > 0.05


def ratio(expected: Tensor, actual: Tensor) -> float:
    difference = (expected - actual).square().flatten(1).sum(1)
    return float((difference / expected.square().flatten(1).sum(1)).mean())


class DifferenceOfGaussians(nn.Module):
    """Neighbouring levels of the Gaussian lift, one minus the other: equivariant, and blind to a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = ScaleSpaceLift(base=2.0, z=1.0, levels=4)

    def forward(self, images: Tensor) -> Tensor:
        levels: Tensor = self.lift(images)
        return levels[:, :, 1:] - levels[:, :, :-1]


class TestFrames:
    """A photograph shrunk on its canvas gets a black frame, which is no part of it."""

    model = network(DifferenceOfGaussians(), ScaleSpace((1, 2, 4), base_blur=1.0))

    def test_the_frame_is_read_unless_the_border_masks_it(self, photographs: Tensor) -> None:
        (bare,) = rows(self.model, photographs, border=0.0)
        (framed,) = rows(self.model, photographs, border=8.0)
        assert bare.mean is not None
        assert framed.mean is not None
        assert bare.mean > 0.2
        assert framed.mean < 0.01
        assert bare.compared is not None
        assert framed.compared is not None
        assert 0.1 < framed.compared < bare.compared
        assert (bare.border, framed.border) == (0.0, 8.0)

    def test_the_warning_says_which_of_the_two_was_read(self, photographs: Tensor) -> None:
        (bare,) = rows(self.model, photographs, border=0.0)
        (framed,) = rows(self.model, photographs, border=8.0)
        assert bare.warnings != framed.warnings

    def test_pictures_on_black_need_no_border(self, digits: Tensor) -> None:
        # the picture's frame is as black as the picture's own edge
        fine = nn.functional.interpolate(digits, scale_factor=4, mode="bicubic").clamp(0, 1)
        (row,) = rows(self.model, fine)
        assert row.border == 0.0
        assert row.mean is not None
        assert row.mean < 0.01


class DerivativeStack(nn.Module):
    """σ ∂/∂x of a Gaussian of deviation σ, sampled on the grid, for each σ: (N, 1, S, H, W)."""

    def __init__(self, scales: Sequence[float]) -> None:
        super().__init__()
        self.scales = tuple(scales)

    def forward(self, images: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 s h w"]:
        levels = []
        for sigma in self.scales:
            radius = math.ceil(5 * sigma)
            x = torch.arange(-radius, radius + 1, dtype=images.dtype)
            bell = torch.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
            slope = x / sigma * bell  # correlation with −σ g', which is convolution with σ g'
            rows_ = nn.functional.conv2d(images, bell.view(1, 1, -1, 1), padding=(radius, 0))
            levels.append(nn.functional.conv2d(rows_, slope.view(1, 1, 1, -1), padding=(0, radius)))
        return torch.stack(levels, dim=2)


def derivative_of_a_blob(
    n: int, centre: tuple[float, float], variance: float, mass: float, sigma: float
) -> Float64[Tensor, "n n"]:
    """Return ``σ ∂/∂x`` of a Gaussian blob of this variance, mass and centre (x, y), in closed form."""
    axis = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    x, y = axis[None, :] - centre[0], axis[:, None] - centre[1]
    bell = mass * torch.exp(-(x**2 + y**2) / (2 * variance)) / (2 * math.pi * variance)
    return -sigma * x / variance * bell


class TestAGaussianDerivativeOnAGaussianBlob:
    """Both sides have one closed form, so what is measured can only be the grid.

    With blob variance v, L_s blurs by z²(1 − s²): ``Φ(L_s f)`` and ``L_sΦ(f)`` at level σ are both
    ``σ ∂ₓ`` of a blob of variance ``s²v + z²(1 − s²) + σ²`` and of s² times the mass, about s times the centre.
    """

    def both(self, n: int) -> tuple[float, float, float]:
        """Return Δ as measured, and how far either side is from the closed form, squared and relative."""
        s, unit = 0.5, n / 28
        sigma, variance, centre = 0.7 * unit, (1.5 * unit) ** 2, (2.3 * unit, -1.7 * unit)
        axis = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
        bell = ((axis[None, :] - centre[0]) ** 2 + (axis[:, None] - centre[1]) ** 2) / (2 * variance)
        blob = torch.exp(-bell)[None, None]
        stack, field = DerivativeStack((sigma, 2 * sigma)), ScaleSpace((sigma, 2 * sigma))
        measured = reading(network(stack, field).double(), blob)
        truth = derivative_of_a_blob(
            n,
            (s * centre[0], s * centre[1]),
            s**2 * variance + SAMPLING_BLUR**2 * (1 - s**2) + sigma**2,
            2 * math.pi * variance * s**2,
            sigma,
        )
        expected = rescale(stack(blob)[:, :, 1], s)[0, 0]
        actual = stack(rescale(blob, s))[0, 0, 0]
        size = expected.square().sum()
        return (
            measured,
            float((expected - truth).square().sum() / size),
            float((actual - truth).square().sum() / size),
        )

    @pytest.mark.parametrize("n", [28, 56, 112])
    def test_the_reading_is_the_error_of_the_grid(self, n: int) -> None:
        measured, expected, actual = (math.sqrt(value) for value in self.both(n))
        # what one side errs and what the other errs, between adding up and cancelling
        assert abs(expected - actual) * 0.999 - 1e-9 <= measured <= (expected + actual) * 1.001
        assert 0 < measured < 0.05

    def test_it_falls_with_resolution(self) -> None:
        coarse, middle, fine = (self.both(n) for n in (28, 56, 112))
        assert middle[0] < coarse[0] / 16
        assert max(middle[0], fine[0]) < 1e-10  # as little as five deviations of a Gaussian leave out
        assert all(m < c / 16 for c, m in zip(coarse[1:], middle[1:], strict=True))
        assert all(f < m / 16 for m, f in zip(middle[1:], fine[1:], strict=True))

    def test_the_levels_the_other_way_round_are_not_l_s(self) -> None:
        axis = torch.arange(56) - 27.5
        blob = torch.exp(-((axis[None, :] - 4) ** 2 + (axis[:, None] + 3) ** 2) / 18)[None, None]
        right = reading(network(DerivativeStack((1.4, 2.8)), ScaleSpace((1.4, 2.8))), blob)
        wrong = reading(network(DerivativeStack((2.8, 1.4)), ScaleSpace((1.4, 2.8))), blob)
        assert right < 1e-5
        assert wrong > 0.2


def without_biases(model: StagedModel) -> StagedModel:
    with torch.no_grad():
        for module in model.modules():
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                bias.zero_()
    return model


def three_readings(images: Images, seeds: Sequence[int], tap: str) -> tuple[float, float, float]:
    """Return the mean over seeds of: bare, bare without biases, and the default, at s = 1/2."""
    bare = twin = default = 0.0
    for seed in seeds:
        model = build("mnist_cnn_28", {"mean": 0.0, "std": 1.0}, seed).eval()
        default += reading(model, images, tap, smallest_plane=3) / len(seeds)
        bare += reading(model, images, tap, smallest_plane=3, background="none") / len(seeds)
        twin += reading(without_biases(model), images, tap, smallest_plane=3, background="none") / len(seeds)
    return bare, twin, default


def test_the_default_background_reads_like_a_network_without_biases(digits: Tensor) -> None:
    bare, twin, default = three_readings(digits, (0, 1, 2), "block2")
    assert bare > 1.15 * twin
    assert default == pytest.approx(twin, rel=0.1)


@pytest.mark.slow
def test_the_same_on_mnist(mnist: Tensor) -> None:
    bare, twin, default = three_readings(mnist, range(6), "block2")
    assert bare > 1.2 * twin
    assert default == pytest.approx(twin, rel=0.1)


# lowest and highest of three seeds in a first experiment: tap -> factor 0.8, 1/√3, 0.5
EXPECTED: dict[str, dict[str, list[tuple[float, float] | None]]] = {
    "mnist_cnn_28": {
        "conv1": [(0.14, 0.21), (0.52, 0.84), (0.65, 1.08)],
        "block1": [(0.11, 0.17), (0.36, 0.50), (0.45, 0.62)],
        "block2": [(0.24, 0.30), (0.54, 0.62), (0.77, 0.85)],
        "conv3": [(0.48, 0.57), (1.0, 1.2), None],
    },
    "mnist_ses_scalar_28": {
        "conv1": [(0.04, 0.06), (0.14, 0.21), None],
        "block1": [(0.04, 0.06), (0.12, 0.17), None],
        "block2": [(0.13, 0.15), (0.31, 0.34), None],
        "conv3": [(0.24, 0.27), (0.56, 0.62), None],
    },
    "mnist_ses_vector_28": {
        "conv1": [None, (0.05, 0.07), None],
        "block1": [None, (0.07, 0.12), None],
        "block2": [None, (0.29, 0.34), None],
        "conv3": [None, (0.54, 0.56), None],
    },
}
OTHER_DRAWS = 0.1
"""How far outside the spread of three other draws of weights the mean of three draws may lie."""


@pytest.mark.parametrize("name", EXPECTED)
def test_readings_of_untrained_published_networks(mnist: Tensor, name: str) -> None:
    taps = tuple(EXPECTED[name])
    settings = MeasureSettings(factors=FACTORS, taps=taps, smallest_plane=3, images=100)
    sums: dict[tuple[str, float], float] = {}
    for seed in range(3):
        for row in measure_curves(build(name, seed=seed).eval(), mnist, settings).rows:
            assert row.mean is not None
            sums[row.tap, row.factor] = sums.get((row.tap, row.factor), 0.0) + row.mean / 3
    for tap, spreads in EXPECTED[name].items():
        for factor, spread in zip(FACTORS, spreads, strict=True):
            if spread is not None:
                low, high = spread
                value = sums[tap, factor]
                assert low * (1 - OTHER_DRAWS) <= value <= high * (1 + OTHER_DRAWS), (tap, factor, value)


def test_a_seven_by_seven_map_has_no_scale_at_one_half_unless_asked(digits: Tensor) -> None:
    model = build("mnist_cnn_28").eval()
    (row,) = rows(model, digits, "block2")
    assert row.mean is None
    assert str(row.reason) == "the picture covers 3.5 cells of this tap, fewer than 4"
    assert reading(model, digits, "block2", smallest_plane=3) > 0.3
