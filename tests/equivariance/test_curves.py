"""The ruler, before any model: it reads 0 where it must, the truth where it is known, and FAILS on broken controls."""

import math

import pytest
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

import secli
from secli.action.fields import Canvas, Invariant, Plane, ScaleSpace
from secli.action.images import rescale
from secli.config import MeasureSettings
from secli.equivariance.curves import measure_curves
from secli.equivariance.factors import default_factors
from secli.errors import InputError, UnknownNameError
from secli.external.adapt import adapt
from secli.layers.gaussian import ScaleSpaceLift
from secli.models.contract import Stage, StagedModel
from secli.records.schema import CurveRow


class Head(nn.Module):
    """Sums over the planes: three outputs that shrink alike with the picture."""

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1).sum(1, keepdim=True) * torch.tensor([1.0, 2.0, -1.0]).to(features)


def network(module: nn.Module, field: Plane | ScaleSpace, tap: str = "tap") -> StagedModel:
    return StagedModel([Stage(tap, module, field), Stage("logits", Head(), Invariant())])


def settings(**values: object) -> MeasureSettings:
    return MeasureSettings.model_validate({"factors": (1.0, 0.5), **values})


def row(
    model: StagedModel, images: Tensor, factor: float = 0.5, tap: str = "tap", **values: object
) -> CurveRow:
    curves = measure_curves(model, images, settings(factors=(factor,), **values))
    return next(r for r in curves.rows if r.tap == tap)


class Pointwise(nn.Module):
    """A random 1×1 convolution and ReLU, exactly equivariant in the continuum."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(16, 1, 1, 1, generator=generator))
        self.bias = nn.Parameter(torch.randn(16, generator=generator) / 4)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.weight, self.bias).relu()


class Shift(nn.Module):
    """The broken control: moves the picture by three pixels, whatever its scale."""

    def forward(self, images: Tensor) -> Tensor:
        return images.roll(3, dims=-1)


@pytest.mark.parametrize("factor", [1.0, 0.8, 0.5, 1.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_identity_network_reads_zero_exactly(digits: Tensor, factor: float, dtype: torch.dtype) -> None:
    model = network(nn.Identity(), Plane()).to(dtype)
    reading = row(model, digits.to(dtype), factor)
    assert reading.mean == reading.low == reading.high == reading.median == 0.0
    assert reading.n == 40
    assert reading.compared == 1.0
    assert (reading.floor == 0.0) == (factor == 1.0)


def test_the_pointwise_control_reads_a_little_and_a_broken_one_much(digits: Tensor) -> None:
    pointwise = row(network(Pointwise(), Plane()), digits)
    broken = row(network(Shift(), Plane()), digits)
    assert pointwise.mean is not None
    assert broken.mean is not None
    assert 0 < pointwise.mean < 0.1
    assert broken.mean > 0.3
    assert pointwise.floor is not None
    assert pointwise.floor < 0.02


def test_every_network_reads_zero_at_factor_one(digits: Tensor) -> None:
    for module in (Pointwise(), Shift(), nn.Conv2d(1, 3, 5, padding=2)):
        assert row(network(module, Plane()), digits, 1.0).mean == 0.0


class TestTheGaussianLift:
    """Level k of the discrete-Gaussian lift is equivariant to the grid's limit, if L_s acts rightly."""

    lift = ScaleSpaceLift(base=2.0, z=0.5, levels=4)

    def readings(self, images: Float[Tensor, "n 1 h w"], field: ScaleSpace) -> list[float]:
        """Mean of per-image ratios at each level that is known, s = 1/2."""
        canvas = Canvas(images.shape[-2], images.shape[-1])
        acted = field.act(self.lift(images), 0.5, canvas)
        actual = self.lift(rescale(images, 0.5))
        assert acted.masks[0] is not None
        known = acted.masks[0].flatten().nonzero().flatten().tolist()
        return [self.ratio(acted.features[0][:, :, k], actual[:, :, k]) for k in known]

    @staticmethod
    def ratio(expected: Tensor, actual: Tensor) -> float:
        difference = (expected - actual).square().flatten(1).sum(1)
        return float((difference / expected.square().flatten(1).sum(1)).mean())

    def test_measured_rightly(self, digits: Tensor) -> None:
        at_28 = self.readings(digits, ScaleSpace((1, 2, 4, 8), base_blur=0.5))
        assert len(at_28) == 3
        assert max(at_28) < 0.01
        fine = nn.functional.interpolate(digits, scale_factor=4, mode="bicubic")
        assert max(self.readings(fine, ScaleSpace((1, 2, 4, 8), base_blur=0.5))) < 0.0003

    def test_ignoring_the_base_blur_is_not_l_s(self, digits: Tensor) -> None:
        right = self.readings(digits, ScaleSpace((1, 2, 4, 8), base_blur=0.5))
        wrong = self.readings(digits, ScaleSpace((1, 2, 4, 8), base_blur=0.0))
        assert wrong[0] > 5 * right[0]

    def test_only_shifting_levels_is_not_l_s(self, digits: Tensor) -> None:
        features, actual = self.lift(digits), self.lift(rescale(digits, 0.5))
        assert all(self.ratio(features[:, :, k + 1], actual[:, :, k]) > 0.3 for k in range(3))

    def test_only_rescaling_or_shifting_the_wrong_way_is_not_l_s(self, digits: Tensor) -> None:
        # the lift's own blur supplies what L_s would add, as in the field, so that only the shift is missing
        planes, actual = rescale(self.lift(digits), 0.5, blur=0.0), self.lift(rescale(digits, 0.5))
        right = max(self.readings(digits, ScaleSpace((1, 2, 4, 8), base_blur=0.5)))
        no_shift = [self.ratio(planes[:, :, k], actual[:, :, k]) for k in range(4)]
        wrong_way = [self.ratio(planes[:, :, k - 1], actual[:, :, k]) for k in range(1, 4)]
        assert min(no_shift) > 5 * right
        assert min(wrong_way) > 5 * right

    def test_the_curve_reads_the_same(self, digits: Tensor) -> None:
        model = network(self.lift, ScaleSpace((1, 2, 4, 8), base_blur=0.5))
        reading = row(model, digits)
        assert reading.mean is not None
        assert reading.mean < 0.01
        assert (reading.levels_used, reading.levels_total, reading.on_lattice) == (3, 4, True)
        assert reading.compared == 0.75
        assert row(model, digits, 0.6).on_lattice is False


def test_a_strided_tap_is_measured_about_its_true_centre() -> None:
    axis = torch.arange(112) - 55.5
    blob = torch.exp(-((axis[:, None] - 4) ** 2 + (axis[None, :] + 3) ** 2) / (2 * 9.0**2))[None, None]
    every_fourth = nn.MaxPool2d(1, stride=4)
    right = row(network(every_fourth, Plane(stride=4, origin=0.0)), blob)
    wrong = row(network(every_fourth, Plane(stride=4)), blob)
    assert right.mean is not None
    assert wrong.mean is not None
    assert right.mean < 0.005
    assert wrong.mean > 10 * right.mean


def literal_delta(
    model: StagedModel, image: Float64[Tensor, "c h w"], factor: float, background: str
) -> tuple[float, float]:
    """Δ and its floor for one image and a Plane tap, term by term."""
    with torch.no_grad():
        features = model.features(image[None])["tap"][0]
        empty = model.features(torch.zeros_like(image[None]))["tap"][0]
        moved = model.features(rescale(image, factor)[None])["tap"][0]
        if background == "empty":
            features, moved = features - empty, moved - empty
        numerator = denominator = floor = 0.0
        for channel in range(features.shape[0]):
            expected = rescale(features[channel], factor)
            halves = rescale(rescale(features[channel], factor**0.5), factor**0.5)
            for i in range(expected.shape[0]):
                for j in range(expected.shape[1]):
                    numerator += float(expected[i, j] - moved[channel, i, j]) ** 2
                    floor += float(expected[i, j] - halves[i, j]) ** 2
                    denominator += float(expected[i, j]) ** 2
    return numerator / denominator, floor / denominator


@pytest.mark.parametrize("background", ["empty", "none"])
@pytest.mark.parametrize("factor", [0.7, 1.2])
def test_curves_agree_with_the_literal_formula(digits: Tensor, background: str, factor: float) -> None:
    torch.manual_seed(0)
    model = network(nn.Sequential(nn.Conv2d(1, 2, 5, padding=2), nn.ReLU()), Plane()).eval()
    images = digits[:3]
    literal = [literal_delta(model.double(), image, factor, background) for image in images.double()]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        reading = row(model.to(dtype), images.to(dtype), factor, background=background)
        assert reading.mean == pytest.approx(sum(delta for delta, _ in literal) / 3, rel=tolerance)
        assert reading.floor == pytest.approx(sum(floor for _, floor in literal) / 3, rel=100 * tolerance)
        assert reading.median == pytest.approx(sorted(delta for delta, _ in literal)[1], rel=tolerance)


def test_a_bias_counts_only_without_the_background(digits: Tensor) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 4, 3, padding=1)
    biased = network(convolution, Plane())
    bare = row(biased, digits, background="none").mean
    referenced = row(biased, digits).mean
    with torch.no_grad():
        convolution.bias.zero_()  # type: ignore[union-attr]
    unbiased = row(biased, digits, background="none").mean
    assert bare is not None
    assert referenced is not None
    assert referenced == pytest.approx(unbiased, rel=1e-3)
    assert abs(bare - referenced) > 0.05 * referenced


def test_metrics_are_what_they_say(digits: Tensor) -> None:
    torch.manual_seed(0)
    model = network(nn.Conv2d(1, 4, 3, padding=1), Plane())
    one = digits[:1]
    squared, relative, absolute = (
        row(model, one, metric=m).mean for m in ("squared", "relative", "absolute")
    )
    assert squared is not None
    assert relative is not None
    assert absolute is not None
    assert relative == pytest.approx(math.sqrt(squared), rel=1e-6)
    assert absolute != pytest.approx(relative, rel=0.1)


def test_a_dead_tap_is_null_with_its_reason_never_zero(digits: Tensor) -> None:
    dead = nn.Conv2d(1, 4, 3, padding=1)
    with torch.no_grad():
        dead.weight.zero_()
    reading = row(network(dead, Plane()), digits)
    assert reading.mean is None
    assert reading.n == 0
    assert reading.dropped == 40
    assert str(reading.reason) == "dead tap: L_sΦ(f) vanishes for all 40 images"


def test_an_empty_picture_is_left_out_and_counted(digits: Tensor) -> None:
    images = torch.cat([digits[:5], torch.zeros(2, 1, 28, 28)])
    model = network(nn.Conv2d(1, 4, 3, padding=1), Plane())
    reading = row(model, images)
    assert reading.n == 5
    assert reading.dropped == 2
    assert reading.mean == pytest.approx(row(model, images[:5]).mean, rel=1e-5)


def test_features_that_are_not_finite_are_null_with_their_reason(digits: Tensor) -> None:
    broken = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        broken.weight.fill_(math.nan)
    reading = row(network(broken, Plane()), digits)
    assert reading.mean is None
    assert str(reading.reason) == "the features of 40 of 40 images are not finite"


def test_a_map_of_fewer_than_four_cells_has_no_scale(digits: Tensor) -> None:
    reading = row(network(nn.AvgPool2d(4), Plane(stride=4)), digits)
    assert reading.mean is None
    assert str(reading.reason) == "the picture covers 3.5 cells of this tap, fewer than 4"
    assert row(network(nn.AvgPool2d(4), Plane(stride=4)), digits, 0.8).mean is not None


def test_no_level_in_common_is_null_with_its_reason(digits: Tensor) -> None:
    model = network(ScaleSpaceLift(base=2.0, z=0.5, levels=2), ScaleSpace((1, 2), base_blur=0.5))
    reading = row(model, digits, 0.3)
    assert reading.mean is None
    assert str(reading.reason) == "no scale level of this tap maps onto another at this factor (0 of 2)"


def test_accuracy_and_agreement(digits: Tensor) -> None:
    model = network(nn.Identity(), Plane())
    labels = torch.ones(40, dtype=torch.int64)
    labels[:10] = 0
    curves = measure_curves(model, digits, settings(), labels=labels)
    assert [r.factor for r in curves.accuracy] == [1.0, 0.5]
    assert all(r.accuracy == 0.75 for r in curves.accuracy)
    assert all(r.agreement == 1.0 for r in curves.accuracy)
    without = measure_curves(model, digits, settings())
    assert without.accuracy[0].accuracy is None
    assert str(without.accuracy[0].reason) == "the images have no labels"
    other = measure_curves(model, digits, settings(), labels=labels + 5)
    assert other.accuracy[0].accuracy is None
    assert str(other.accuracy[0].reason) == "the network has 3 outputs, the images 7 classes"
    counted = measure_curves(model, digits, settings(), labels=labels, classes=2)
    assert counted.accuracy[0].accuracy is None
    assert str(counted.accuracy[0].reason) == "the network has 3 outputs, the images 2 classes"


def test_batches_do_not_change_the_reading_and_memory_holds_one_batch(digits: Tensor) -> None:
    torch.manual_seed(0)
    model = network(nn.Conv2d(1, 2, 3, padding=1), Plane())
    one, many = row(model, digits, batch=40), row(model, digits, batch=7)
    assert one.mean == pytest.approx(many.mean, rel=1e-5)
    assert one.low == pytest.approx(many.low, rel=1e-5)


def test_uint8_images_are_pixels_over_255(digits: Tensor) -> None:
    torch.manual_seed(0)
    model = network(nn.Conv2d(1, 2, 3, padding=1), Plane())
    coarse = (digits * 255).round().to(torch.uint8)
    assert row(model, coarse).mean == pytest.approx(row(model, coarse.float() / 255).mean, rel=1e-6)


def test_the_network_is_left_in_its_own_mode(digits: Tensor) -> None:
    model = network(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2).eval()), Plane()).train()
    modes = [module.training for module in model.modules()]
    before = torch.get_float32_matmul_precision()
    measure_curves(model, digits, settings())
    assert modes == [module.training for module in model.modules()]
    assert torch.get_float32_matmul_precision() == before


def test_default_factors_hold_the_lattice_of_the_model() -> None:
    plain = default_factors([Plane()])
    assert len(plain) == 11
    assert plain[0] == pytest.approx(3**0.25)
    assert plain[-1] == pytest.approx(1 / 3)
    assert 1.0 in plain
    merged = default_factors([Plane(), ScaleSpace((1, 2, 4, 8))])
    assert 0.5 in merged
    assert 0.25 not in merged
    assert list(merged) == sorted(merged, reverse=True)
    # 1/√3 is one of the nine already: the lattice's own value stands for both
    rounded = default_factors([ScaleSpace((1.5, 2.6, 4.5))])
    assert len(rounded) == 11
    assert 1.5 / 2.6 in rounded


def test_unknown_taps_and_no_images_are_refused(digits: Tensor) -> None:
    model = network(nn.Identity(), Plane())
    with pytest.raises(UnknownNameError, match="unknown tap 'tapp'; did you mean 'tap'"):
        measure_curves(model, digits, settings(taps=("tapp",)))
    with pytest.raises(InputError, match="no images"):
        measure_curves(model, digits[:0], settings())


def test_measure_from_python_gives_a_table(digits: Tensor) -> None:
    model = network(Pointwise(), Plane())
    frame = secli.measure(model, digits, factors=[1, 0.5], labels=torch.zeros(40, dtype=torch.int64))
    assert list(frame["tap"]) == ["tap", "tap", "logits", "logits"]
    assert frame["mean"][0] == 0
    assert 0 < frame["mean"][1] < 0.1
    assert [entry["factor"] for entry in frame.attrs["accuracy"]] == [1.0, 0.5]
    with pytest.raises(InputError, match="greater than 0, not -1"):
        secli.measure(model, digits, factors=[-1])


def test_any_module_is_measured_and_its_fields_can_be_declared(digits: Tensor) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 3, 5, padding=2), nn.MaxPool2d(2))
    frame = secli.measure(plain, digits, factors=[1, 0.5])
    assert list(dict.fromkeys(frame["tap"])) == ["0", "1"]
    assert frame[frame.tap == "1"]["field"].iloc[0].startswith("plane, stride 2")
    lift = nn.Sequential(ScaleSpaceLift(base=2.0, z=0.5, levels=4))
    for declared in ("scale:1,2,4,8,blur=0.5", ScaleSpace((1, 2, 4, 8), base_blur=0.5)):
        reading = secli.measure(lift, digits, factors=[0.5], taps=["0"], fields={"0": declared}).iloc[0]
        assert reading["mean"] < 0.01
        assert reading["levels_used"] == 3
    wrong = secli.measure(lift, digits, factors=[0.5], taps=["0"], fields={"0": "scale:1,2,4,8"}).iloc[0]
    assert wrong["mean"] > 1.5 * reading["mean"]
    with pytest.raises(InputError, match="nowhere"):
        secli.measure(lift, digits, factors=[0.5], fields={"nowhere": Plane()})


def test_weights_too_coarse_to_measure_are_refused(digits: Tensor) -> None:
    with pytest.raises(
        InputError, match=r"weights are bfloat16, too coarse to measure with; use \.float\(\) first"
    ):
        row(network(nn.Conv2d(1, 1, 3), Plane()).bfloat16(), digits)


def test_pictures_that_reach_their_edge_are_warned_about_though_the_source_is_black(digits: Tensor) -> None:
    tight = nn.functional.interpolate(digits[..., 8:20, 8:20], size=(28, 28), mode="bicubic").clamp(0, 1)
    model = network(nn.Conv2d(1, 2, 3, padding=1), Plane())

    def said(images: Tensor, factor: float, **values: object) -> str:
        rows = measure_curves(model, images, settings(factors=(factor,), **values), on_black=True).rows
        return "; ".join(map(str, rows[0].warnings))

    assert "framed" in said(tight, 0.6)
    assert "framed" not in said(digits, 0.6)
    assert "framed" not in said(tight, 0.6, border=2.0)
    assert "cut: the magnified pictures" in said(digits, 2.0)
    assert "cut" not in said(digits, 1.05)


class Wide(nn.Module):
    """Two taps of a radius of 9 and 9 pixels, and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 19, padding=9)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x).relu().mean((2, 3))
        return y


def test_a_border_narrower_than_the_receptive_field_is_marked() -> None:
    torch.manual_seed(0)
    photographs = torch.rand(3, 1, 64, 64)
    model = adapt(Wide().eval(), nn.Identity(), (1, 64, 64), ["conv", "logits"])

    def codes(border: float | None, images: Tensor = photographs, factor: float = 0.8) -> dict[str, set[str]]:
        measured = measure_curves(model, images, settings(factors=(factor,), border=border))
        return {row.tap: {note.code for note in row.warnings} for row in measured.rows}

    frames = {"framed", "narrow-border", "framed-output", "cut", "cut-output"}
    assert {tap: found & frames for tap, found in codes(2.0).items()} == {
        "conv": {"narrow-border"},
        "logits": {"framed-output"},
    }
    assert codes(0.0)["conv"] & frames == {"framed"}
    assert codes(None)["conv"] & frames == set()
    assert codes(12.0)["conv"] & frames == set()
    assert codes(2.0, factor=1.2)["logits"] & frames == {"cut-output"}
    black = nn.functional.pad(photographs[..., :40, :40], [12] * 4)
    assert codes(2.0, black) == {"conv": set(), "logits": set()}


def test_the_smallest_plane_can_be_chosen(digits: Tensor) -> None:
    model = network(nn.AvgPool2d(4), Plane(stride=4))
    assert row(model, digits, smallest_plane=3).mean is not None
    assert row(model, digits, smallest_plane=3.6).mean is None
    # twelve cells at one third are four, whatever floating point makes of it
    assert (
        row(network(nn.AvgPool2d(2, padding=0), Plane(stride=2)), digits[..., 2:26, 2:26], 1 / 3).mean
        is not None
    )


def test_levels_and_channels_by_themselves(digits: Tensor) -> None:
    model = network(ScaleSpaceLift(base=2.0, z=0.5, levels=3), ScaleSpace((1, 2, 4), base_blur=0.5))
    rows = measure_curves(
        model, digits, settings(factors=(0.5,), per=("level", "channel"), taps=("tap",))
    ).rows
    assert [(r.level, r.channel) for r in rows] == [(None, None), (0, None), (1, None), (2, None), (None, 0)]
    whole, first, second, third, channel = rows
    assert first.mean is not None
    assert second.mean is not None
    assert whole.mean is not None
    assert min(first.mean, second.mean) < whole.mean < max(first.mean, second.mean)
    assert third.mean is None
    assert str(third.reason) == "L_s would take this level from off the stack"
    assert channel.mean == pytest.approx(whole.mean)


def test_the_floor_is_that_of_the_first_images_whatever_the_batch(
    digits: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secli.equivariance.cell_error.FLOORED", 10)
    model = network(Pointwise(), Plane())
    first = row(model, digits[:10]).floor
    assert row(model, digits, batch=5).floor == pytest.approx(first, rel=1e-5)
    assert row(model, digits, batch=5).n == 40
