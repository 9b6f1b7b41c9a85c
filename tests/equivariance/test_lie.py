"""The Lie derivative reads 0 where it must, is the limit of Δ_s/(log s)², and equals a finite difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from secli.action.fields import Field, Invariant, Plane, Pyramid, ScaleSpace
from secli.action.images import rescale
from secli.config import MeasureSettings
from secli.equivariance.curves import measure_curves
from secli.equivariance.lie import lie_derivatives
from secli.errors import InputError, SecliError, UnknownNameError
from secli.layers.deformable import DeformConv
from secli.layers.gaussian import ScaleSpaceLift
from secli.models.building import build
from secli.models.contract import Features, Stage, StagedModel
from secli.records.schema import LieRow

STEP = 0.05


class Head(nn.Module):
    """Sums over the planes: three outputs that grow with the picture."""

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1).sum(1, keepdim=True) * torch.tensor([1.0, 2.0, -1.0]).to(features)


class Levels(nn.Module):
    """The same undilated convolution on every level: not equivariant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.conv(level) for level in x.unbind(2)], dim=2)


def network(*stages: tuple[nn.Module, Field]) -> StagedModel:
    taps = [Stage(f"tap{i}", module, field) for i, (module, field) in enumerate(stages)]
    return StagedModel([*taps, Stage("logits", Head(), Invariant())]).eval()


def settings(**values: object) -> MeasureSettings:
    return MeasureSettings.model_validate({"factors": (math.exp(STEP),), **values})


def lie(model: StagedModel, images: Tensor, tap: str = "tap0", **values: object) -> LieRow:
    return next(row for row in lie_derivatives(model, images, settings(**values)) if row.tap == tap)


def blobs(n: int, count: int = 3) -> Float64[Tensor, "count 1 n n"]:
    """Pictures of four Gaussian blobs each."""
    generator = torch.Generator().manual_seed(0)
    axis = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) / n
    pictures = torch.zeros(count, 1, n, n, dtype=torch.float64)
    for picture in pictures[:, 0]:
        for _ in range(4):
            x, y, width, height = torch.rand(4, generator=generator).tolist()
            down, right = (axis - 0.3 * (x - 0.5))[:, None], (axis - 0.3 * (y - 0.5))[None, :]
            picture += height * torch.exp(-(down**2 + right**2) / (2 * (0.05 + 0.05 * width) ** 2))
    return pictures


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_identity_network_reads_zero(digits: Tensor, dtype: torch.dtype) -> None:
    reading = lie(network((nn.Identity(), Plane())).to(dtype), digits.to(dtype))
    assert reading.mean == reading.low == reading.high == 0.0
    assert reading.n == 40
    assert reading.reason is None


def test_a_network_that_moves_the_picture_reads_much(digits: Tensor) -> None:
    class Shift(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.roll(3, dims=-1)

    # J Φ[G f] − G Φ(f) is 3 ∂f/∂x for a shift by three pixels
    reading = lie(network((Shift(), Plane())), digits.double()).mean
    pictures = digits[:, 0].double()
    (slope,) = torch.gradient(pictures, dim=-1)
    rough = float((9 * slope.square().sum((1, 2)) / pictures.square().sum((1, 2))).mean())
    assert reading == pytest.approx(rough, rel=0.35)


def test_it_is_the_limit_of_the_curve_for_a_smooth_network() -> None:
    model = network(
        (nn.Sequential(nn.Conv2d(1, 6, 9, padding=4), nn.Softplus()), Plane()),
        (nn.Conv2d(6, 6, 5, padding=2), Plane()),
    ).double()
    images = blobs(112)
    factors = (math.exp(STEP), math.exp(STEP / 4))
    curves = measure_curves(model, images, settings(factors=factors))
    for tap in ("tap0", "tap1"):
        limit = lie(model, images, tap).mean
        near, nearer = (
            row.mean / math.log(row.factor) ** 2
            for row in curves.rows
            if row.tap == tap and row.mean is not None
        )
        assert limit is not None
        assert limit > 0.01
        assert near == pytest.approx(limit, rel=0.1)
        assert nearer == pytest.approx(limit, rel=0.025)


def test_with_kinks_the_limit_needs_steps_below_a_pixel() -> None:
    # the crease behind a ReLU, sampled, is no smooth picture: |log s|·n/2 must stay well below one cell
    model, images = build("cnn").double().eval(), blobs(112, 2)
    curves = measure_curves(model, images, settings(factors=(math.exp(0.0005),)))
    limits = {row.tap: row.mean for row in lie_derivatives(model, images, settings())}
    assert len(limits) == 5
    for row in curves.rows:
        assert row.mean is not None
        assert row.mean / 0.0005**2 == pytest.approx(limits[row.tap], rel=0.02)


def test_it_is_the_limit_on_a_scale_space_and_the_right_lift_reads_next_to_nothing() -> None:
    # levels a factor e^0.05 apart: the curve's factor lies on the lattice, so that nothing is interpolated
    scales = tuple(math.exp(STEP * k) for k in range(7))
    lift = ScaleSpaceLift(math.exp(STEP), 3.0, 7)
    images = blobs(112)

    def model(base_blur: float) -> StagedModel:
        torch.manual_seed(0)
        field = ScaleSpace(scales, base_blur=base_blur)
        return network((lift, field), (Levels(), field)).double()

    right = model(3.0)
    lifted, convolved = (lie(right, images, tap).mean for tap in ("tap0", "tap1"))
    assert lifted is not None
    assert convolved is not None
    assert lifted < 1e-5
    assert convolved > 0.01
    curve = next(r for r in measure_curves(right, images, settings()).rows if r.tap == "tap1")
    assert curve.on_lattice
    assert curve.mean is not None
    assert curve.mean / STEP**2 == pytest.approx(convolved, rel=0.1)
    # broken controls: a forgotten base blur, no level derivative
    forgotten = lie(model(0.0), images).mean
    assert forgotten is not None
    assert forgotten > 100 * lifted
    flat = lie(network((lift, Plane())).double(), images).mean
    assert flat is not None
    assert flat > 100 * lifted


def trained_away(modulated: bool) -> DeformConv:
    layer = DeformConv(1, 4, 3, padding=1, modulated=modulated)
    nn.init.normal_(layer.offset.weight, std=0.3)
    nn.init.normal_(layer.offset.bias, std=0.5)  # type: ignore[arg-type]
    return layer


@pytest.mark.parametrize("make", ["dcn", "layer", "modulated"])
def test_deformable_layers_read_their_finite_difference(digits: Tensor, make: str) -> None:
    if make == "dcn":
        model = build("dcn").eval()
        for module in model.modules():
            if isinstance(module, DeformConv):
                nn.init.normal_(module.offset.weight, std=0.05)
                nn.init.normal_(module.offset.bias, std=0.5)  # type: ignore[arg-type]
    else:
        model = network((trained_away(make == "modulated"), Plane()))
    model, images, t = model.double(), digits[:4].double() + 0.01, 1e-6
    taps = [tap for tap, field in model.taps.items() if isinstance(field, Plane)]
    readings = {row.tap: row.mean for row in lie_derivatives(model, images, settings(border=0))}
    with torch.no_grad():
        empty = model.features(torch.zeros_like(images[:1]))
        own = model.features(images)
        ahead, behind = (model.features(rescale(images, math.exp(sign * t), 0.0)) for sign in (1, -1))
    for tap in taps:
        expected = [centred(part, empty, tap) for part in (own, ahead, behind)]
        there = rescale(expected[1], math.exp(-t), 0.0) - rescale(expected[2], math.exp(t), 0.0)
        ratio = (there / (2 * t)).square().flatten(1).sum(1) / expected[0].square().flatten(1).sum(1)
        assert readings[tap] == pytest.approx(float(ratio.mean()), rel=1e-4)
        assert float(ratio.mean()) > 0.01


def centred(features: dict[str, Features], empty: dict[str, Features], tap: str) -> Tensor:
    output, background = features[tap], empty[tap]
    assert isinstance(output, Tensor)
    assert isinstance(background, Tensor)
    return output - background


def test_torchvision_s_own_deformable_convolution_is_refused_by_name(digits: Tensor) -> None:
    from torchvision.ops import DeformConv2d

    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset, self.deform = nn.Conv2d(1, 18, 3), DeformConv2d(1, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.deform(x, self.offset(x))
            return y

    with pytest.raises(
        SecliError, match=r"tap0\.deform \(DeformConv2d\): .*(silently zero|cannot be differentiated)"
    ):
        lie(network((Foreign(), Plane())), digits)


def test_a_bias_counts_only_without_the_background(digits: Tensor) -> None:
    convolution = nn.Conv2d(1, 4, 3, padding=1)
    model = network((convolution, Plane()))
    bare, referenced = (lie(model, digits, background=background).mean for background in ("none", "empty"))
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    unbiased = lie(model, digits, background="none").mean
    assert bare is not None
    assert referenced == pytest.approx(unbiased, rel=1e-3)
    assert abs(bare - (referenced or 0.0)) > 0.05 * bare


def test_batches_do_not_change_the_reading_and_only_the_first_images_count(digits: Tensor) -> None:
    model = network((nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()), Plane()))
    steps: list[tuple[int, int]] = []
    one = lie_derivatives(model, digits, settings(batch=40, images=21))[0]
    many = lie_derivatives(
        model,
        digits[:21],
        settings(batch=8),
        on_progress=lambda done, total: steps.append((done, total)),
    )
    assert one.n == many[0].n == 21
    assert one.mean == pytest.approx(many[0].mean, rel=1e-5)
    assert one.low == pytest.approx(many[0].low, rel=1e-5)
    assert one.high == pytest.approx(many[0].high, rel=1e-5)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_wanted_taps_alone_are_measured(digits: Tensor) -> None:
    rows = lie_derivatives(build("cnn"), digits[:4], settings(taps=("block3", "block1")))
    assert [row.tap for row in rows] == ["block1", "block3"]


def test_the_mean_lies_in_its_interval_and_the_mode_is_restored(digits: Tensor) -> None:
    model = build("dss_v1").train()
    rows = lie_derivatives(model, (digits * 255).to(torch.uint8), settings())
    assert model.training
    for row in rows:
        assert row.mean is not None
        assert row.low is not None
        assert row.high is not None
        assert 0 <= row.low <= row.mean <= row.high
    assert [row.tap for row in rows] == list(model.taps)


def constant(value: float) -> nn.Conv2d:
    layer = nn.Conv2d(1, 4, 3, padding=1)
    nn.init.constant_(layer.weight, value)
    return layer


@pytest.mark.parametrize(
    ("module", "field", "reason"),
    [
        (constant(0.0), Plane(), "dead tap: Φ(f) vanishes for all 40 images"),
        (constant(math.nan), Plane(), "the features of 40 of 40 images are not finite"),
        (nn.AvgPool2d(8), Plane(stride=8), "this tap has 3 cells across, fewer than 4"),
        (
            ScaleSpaceLift(2.0, 0.5, 2),
            ScaleSpace((1, 2), base_blur=0.5),
            "no scale level of this tap has a comparable one on either side (0 of 2)",
        ),
    ],
)
def test_what_cannot_be_measured_is_null_with_its_reason(
    digits: Tensor, module: nn.Module, field: Field, reason: str
) -> None:
    row = lie(network((module, field)), digits)
    assert row.mean is row.low is row.high is None
    assert row.n == 0
    assert str(row.reason) == reason


def test_a_wide_border_leaves_too_little(digits: Tensor) -> None:
    row = lie(network((nn.Identity(), Plane())), digits, border=10)
    assert row.mean is None
    assert str(row.reason) == "only 8.2% of the cells can be compared"


def test_an_empty_picture_is_left_out_and_counted(digits: Tensor) -> None:
    model = network((nn.Conv2d(1, 4, 3, padding=1), Plane()))
    row = lie(model, torch.cat([digits[:5], torch.zeros(2, 1, 28, 28)]))
    assert (row.n, row.dropped) == (5, 2)
    assert row.mean == pytest.approx(lie(model, digits[:5]).mean, rel=1e-5)


def test_the_edge_of_a_photograph_is_masked_by_the_border() -> None:
    """A blur that is nothing near the picture's edge: there the cut picture moves, inside nothing is wrong."""
    n = 64
    axis = torch.arange(n, dtype=torch.float64)
    waves = 0.5 + 0.4 * torch.sin(axis[:, None] / 7) * torch.cos(axis[None, :] / 9)
    photograph = waves.expand(2, 1, n, n)
    blur = nn.Conv2d(1, 1, 5, padding=2, bias=False)
    nn.init.constant_(blur.weight, 1 / 25)
    model = network((blur, Plane())).double()
    masked, bare = (lie(model, photograph, border=border).mean for border in (10, 0))
    automatic = lie(model, photograph).mean
    assert masked is not None
    assert bare is not None
    assert automatic is not None
    assert bare > 20 * masked
    assert automatic < bare / 5


class Towers(nn.Module):
    """A pyramid of averages."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, nn.functional.avg_pool2d(x, 2), nn.functional.avg_pool2d(x, 4)]


class Top(nn.Module):
    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return levels[-1].flatten(1)


def test_a_pyramid_is_measured_over_all_its_levels(digits: Tensor) -> None:
    model = StagedModel(
        [Stage("pyramid", Towers(), Pyramid((1.0, 0.5, 0.25))), Stage("logits", Top(), Invariant())]
    )
    whole = lie(model, digits, "pyramid").mean
    plane = lie(network((nn.AvgPool2d(4), Plane(stride=4))), digits).mean
    assert whole is not None
    assert plane is not None
    assert 0 < whole < plane


def test_unknown_taps_and_no_images_are_refused(digits: Tensor) -> None:
    model = network((nn.Identity(), Plane()))
    with pytest.raises(UnknownNameError, match="unknown tap 'tap9'; did you mean 'tap0'"):
        lie_derivatives(model, digits, settings(taps=("tap9",)))
    with pytest.raises(InputError, match="no images"):
        lie_derivatives(model, digits[:0], settings())
