"""Attribution: a part is blamed for what it adds itself, wherever it stands, and for nothing else."""

import math

import pytest
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

import secli
from secli.action.fields import Canvas, Field, Invariant, Plane, ScaleSpace, VectorField
from secli.action.images import rescale
from secli.catalogue import MODELS
from secli.config import MeasureSettings
from secli.equivariance.attribution import local_errors
from secli.equivariance.curves import measure_curves
from secli.equivariance.evaluation_mode import measuring
from secli.equivariance.inner_layers import KINDS, Probe, kind_of, layers_of
from secli.equivariance.layer_fields import LayerReading, axis_grid, layer_reading
from secli.equivariance.local_error import Fed, feed, reach
from secli.errors import InputError, UnknownNameError
from secli.layers.dss import DSSConv
from secli.layers.fast.forms import FORMS, without_forms
from secli.layers.gaussian import ScaleSpaceLift
from secli.layers.pooling import ScalePool, SpatialPool
from secli.models.building import build
from secli.models.contract import Features, Stage, StagedModel
from secli.records.schema import LocalRow

ZEROS = 1e-9


class Head(nn.Module):
    """Sums over the planes."""

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1).sum(1, keepdim=True)


class Shift(nn.Module):
    """Broken: moves the picture by three pixels, whatever its scale."""

    def forward(self, images: Tensor) -> Tensor:
        return images.roll(3, dims=-1)


class Mix(nn.Module):
    """Exactly equivariant: a fixed linear map of the channels, cell by cell, and a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(inputs)
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.conv(features)
        return output


def chain(*stages: tuple[str, nn.Module, Field]) -> StagedModel:
    return StagedModel([*(Stage(*stage) for stage in stages), Stage("logits", Head(), Invariant())])


def measured(
    model: object, images: Tensor, factor: float = 0.5, kinds: tuple[str, ...] = (), **values: object
) -> dict[tuple[str, str], LocalRow]:
    settings = MeasureSettings.model_validate({"factors": (factor,), **values})
    rows = local_errors(model, images, settings, kinds=kinds)  # type: ignore[arg-type]
    found = {(row.part, row.kind): row for row in rows}
    assert len(found) == len(rows)
    return found


def mean(rows: dict[tuple[str, str], LocalRow], part: str, kind: str = "stage") -> float:
    value = rows[part, kind].mean
    assert value is not None, rows[part, kind].reason
    return value


class TestStages:
    @pytest.mark.parametrize("factor", [1.0, 0.8, 0.5, 1.4])
    def test_the_identity_reads_zero(self, digits: Tensor, factor: float) -> None:
        rows = measured(
            chain(("first", nn.Identity(), Plane()), ("second", nn.Identity(), Plane())), digits, factor
        )
        assert mean(rows, "first") == 0.0
        assert mean(rows, "second") < ZEROS
        assert rows["first", "stage"].n == 40
        assert rows["first", "stage"].compared == 1.0

    def test_every_stage_reads_zero_at_factor_one(self, digits: Tensor) -> None:
        rows = measured(build("mnist_cnn_28"), digits[:4], 1.0)
        stages = [row for (_, kind), row in rows.items() if kind == "stage"]
        assert [row.mean for row in stages[:4]] == [0.0] * 4

    def test_what_is_pointwise_and_linear_adds_nothing_however_late_it_comes(self, digits: Tensor) -> None:
        model = chain(("mix", Mix(1, 3), Plane()), ("shift", Shift(), Plane()), ("again", Mix(3, 5), Plane()))
        rows = measured(model, digits)
        assert mean(rows, "mix") < ZEROS
        assert mean(rows, "again") < ZEROS

    def test_the_broken_stage_is_found_among_good_ones(self, digits: Tensor) -> None:
        model = chain(
            ("one", Mix(1, 3), Plane()),
            ("two", nn.Identity(), Plane()),
            ("three", Shift(), Plane()),
            ("four", Mix(3, 3), Plane()),
        )
        rows = measured(model, digits)
        assert mean(rows, "three") > 0.3
        assert max(mean(rows, part) for part in ("one", "two", "four")) < ZEROS
        # the curve, which accumulates, blames the last one as much
        settings = MeasureSettings(factors=(0.5,), taps=("four",))
        cumulative = measure_curves(model, digits, settings).rows[0].mean
        assert cumulative is not None
        assert cumulative > 0.3

    @pytest.mark.parametrize("before", [False, True])
    def test_a_subsampler_is_small_about_its_true_centre_only(self, before: bool) -> None:
        axis = torch.arange(112) - 55.5
        blob = torch.exp(-((axis[:, None] - 4) ** 2 + (axis[None, :] + 3) ** 2) / (2 * 9.0**2))[None, None]
        fourth = nn.MaxPool2d(1, stride=4)
        stages: list[tuple[str, nn.Module, Field]] = [("before", Mix(1, 2), Plane())] if before else []
        right = mean(measured(chain(*stages, ("pool", fourth, Plane(stride=4, origin=0.0))), blob), "pool")
        wrong = mean(measured(chain(*stages, ("pool", fourth, Plane(stride=4))), blob), "pool")
        assert right < 0.005
        assert wrong > 10 * right

    def test_the_first_stage_reads_what_the_curve_reads(self, digits: Tensor) -> None:
        model = secli.load_model("mnist_ses_vector_28")
        settings = MeasureSettings(factors=(3**-0.5,), taps=("conv1",))
        curve = measure_curves(model, digits[:8], settings).rows[0]
        rows = measured(model, digits[:8], 3**-0.5)
        assert mean(rows, "conv1") == pytest.approx(curve.mean, rel=1e-5)
        assert rows["conv1", "stage"].compared == curve.compared == pytest.approx(2 / 3)

    def test_metric_background_and_batches_are_those_of_the_curve(self, digits: Tensor) -> None:
        torch.manual_seed(0)
        stages: tuple[tuple[str, nn.Module, Field], ...] = (
            ("one", nn.Conv2d(1, 3, 5, padding=2), Plane()),
            ("two", nn.Conv2d(3, 2, 3, padding=1), Plane()),
        )
        model = chain(*stages)
        squared = measured(model, digits[:1])
        relative = measured(model, digits[:1], metric="relative")
        assert mean(relative, "two") == pytest.approx(math.sqrt(mean(squared, "two")))
        bare, referenced = measured(model, digits, background="none"), measured(model, digits)
        assert abs(mean(bare, "two") - mean(referenced, "two")) > 0.05 * mean(referenced, "two")
        small = measured(model, digits, batch=7)
        assert mean(small, "two") == pytest.approx(mean(referenced, "two"), rel=1e-4)
        assert small["two", "stage"].low == pytest.approx(referenced["two", "stage"].low, rel=1e-4)

    def test_taps_pick_stages(self, digits: Tensor) -> None:
        model = build("mnist_cnn_28")
        assert {part for part, _ in measured(model, digits[:2], taps=("block1",))} == {"block1"}

    def test_a_stage_fed_with_too_small_a_map_is_null_with_its_reason(self, digits: Tensor) -> None:
        model = chain(("pool", nn.AvgPool2d(4), Plane(stride=4)), ("mix", Mix(1, 2), Plane(stride=4)))
        row = measured(model, digits)["mix", "stage"]
        assert (row.mean, row.n, str(row.reason)) == (
            None,
            0,
            "the picture covers 3.5 cells before this part, fewer than 4",
        )

    def test_a_dead_stage_is_null_with_its_reason(self, digits: Tensor) -> None:
        dead = Mix(1, 2)
        nn.init.zeros_(dead.conv.weight)
        row = measured(chain(("dead", dead, Plane())), digits)["dead", "stage"]
        assert row.mean is None
        assert str(row.reason) == "dead tap: L_sΦ(f) vanishes for all 40 images"

    def test_a_border_is_left_out_behind_a_stage_but_not_before_it(self) -> None:
        axis = torch.linspace(0, 9, 48)
        photograph = (1.2 + torch.sin(axis)[:, None] * torch.cos(axis)[None, :])[None, None] / 3
        # a small blur hardly changes the picture itself, but it smears the frame
        blur = nn.AvgPool2d(5, stride=1, padding=2)
        model = chain(("mix", Mix(1, 1), Plane()), ("edges", blur, Plane()))
        framed = measured(model, photograph, 0.8, border=0.0)
        inside = measured(model, photograph, 0.8, border=9.0)
        assert mean(framed, "edges") > 5 * mean(inside, "edges")
        assert inside["edges", "stage"].compared == pytest.approx((20 / 48) ** 2)


class TestUnknownLevels:
    levels = ScaleSpace((1, 2, 4, 8), base_blur=0.5)

    def test_they_repeat_the_nearest_known_one(self, digits: Tensor) -> None:
        features = ScaleSpaceLift(2.0, 0.5, 4)(digits[:3])
        fed = feed(self.levels, features, torch.zeros(1, 1, 4, 28, 28), 0.25, Canvas(28, 28))
        assert fed is not None
        assert isinstance(fed.features, Tensor)
        unknown = fed.unknown[0]
        assert unknown is not None
        assert unknown.flatten().tolist() == [False, False, True, True]
        acted = self.levels.act(features, 0.25, Canvas(28, 28)).features[0]
        for level, source in ((0, 0), (1, 1), (2, 1), (3, 1)):
            assert torch.equal(fed.features[:, :, level], acted[:, :, source])

    def test_at_factor_one_features_are_fed_to_the_bit(self, digits: Tensor) -> None:
        features = torch.rand(2, 3, 9, 9) + 100
        fed = feed(Plane(), features, torch.rand(1, 3, 9, 9), 1.0, Canvas(9, 9))
        assert fed is not None
        assert fed.features is features

    @pytest.mark.parametrize(("interaction", "reached"), [(1, [3]), (2, [2, 3]), (3, [1, 2, 3])])
    def test_an_interaction_carries_them_down_the_stack(self, interaction: int, reached: list[int]) -> None:
        torch.manual_seed(0)
        conv = DSSConv(2, 3, 3, 2.0, levels=4, interaction=interaction)
        unknown = torch.tensor([False, False, False, True]).view(1, 1, 4, 1, 1)
        with torch.no_grad():
            (mask,) = reach(conv, Fed(torch.randn(2, 2, 4, 9, 9), [unknown]), self.levels, 2)
        assert mask is not None
        assert mask.flatten().nonzero().flatten().tolist() == reached

    def test_a_relu_does_not_hide_them_and_what_stays_alone_is_not_masked(self) -> None:
        unknown = torch.tensor([False, True]).view(1, 1, 2, 1, 1)
        still = -100 + torch.randn(2, 1, 2, 5, 5)
        field = ScaleSpace((1, 2))
        (mask,) = reach(torch.relu, Fed(still, [unknown]), field, 2)  # type: ignore[arg-type]
        assert mask is not None
        assert mask.flatten().tolist() == [False, True]
        first = nn.AvgPool3d((1, 3, 3), stride=(2, 1, 1))  # it never reads level 1
        (none,) = reach(first, Fed(still, [unknown]), field, 2)
        assert none is None

    def test_a_stage_is_compared_where_they_do_not_reach(self, digits: Tensor) -> None:
        torch.manual_seed(0)
        conv = DSSConv(1, 2, 3, 2.0, levels=4, interaction=2)
        model = chain(("lift", ScaleSpaceLift(2.0, 0.5, 4), self.levels), ("conv", conv, self.levels))
        rows = measured(model, digits)
        # s = ½ leaves three of the four levels known, and interaction with a neighbour two
        assert rows["lift", "stage"].compared == 0.75
        assert rows["conv", "stage"].compared == 0.5
        assert mean(rows, "lift") < 0.01

    def test_the_fill_does_not_show(self, digits: Tensor) -> None:
        """Levels that depend on unknown ones would read whatever was filled in; masked, they read nothing."""
        torch.manual_seed(0)

        class Neighbour(nn.Module):
            """Exactly equivariant, cell by cell: each level takes the one above it, the last one itself."""

            def forward(self, x: Tensor) -> Tensor:
                return torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)

        field = ScaleSpace((1, 2, 4, 8), base_blur=0.5)
        model = chain(("lift", ScaleSpaceLift(2.0, 0.5, 4), field), ("up", Neighbour(), field))
        rows = measured(model, digits)
        assert rows["up", "stage"].compared == 0.5
        assert mean(rows, "up") < ZEROS

    def test_behind_a_maximum_over_scale_nothing_is_left(self, digits: Tensor) -> None:
        model = chain(("lift", ScaleSpaceLift(2.0, 0.5, 4), self.levels), ("pool", ScalePool(), Plane()))
        row = measured(model, digits)["pool", "stage"]
        assert row.mean is None
        assert str(row.reason) == "scale levels that L_s cannot know reach everything behind this part"

    def test_no_known_level_at_all(self, digits: Tensor) -> None:
        field = ScaleSpace((1, 2), base_blur=0.5)
        model = chain(("lift", ScaleSpaceLift(2.0, 0.5, 2), field), ("same", nn.Identity(), field))
        row = measured(model, digits, 0.3)["same", "stage"]
        assert str(row.reason) == "no scale level before this part maps onto another at this factor"

    def test_vectors_that_leave_the_range_are_masked_one_by_one(self, digits: Tensor) -> None:
        class Vectors(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                angle = torch.linspace(0, 1, x.shape[-1]).expand_as(x)
                return torch.stack([x * angle.cos(), x * angle.sin()], dim=2)

        class Double(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return 2 * x

        field = VectorField(base=2.0, angle_step=0.5, levels=(0, 2))
        model = chain(("vectors", Vectors(), field), ("twice", Double(), field))
        rows = measured(model, digits)
        share = rows["twice", "stage"].compared
        assert share is not None
        assert 0.1 < share < 0.99
        assert mean(rows, "twice") < ZEROS
        assert ("twice", "pointwise") not in rows


class TestLayers:
    def test_an_unknown_kind_is_named_with_its_near_miss(self, digits: Tensor) -> None:
        with pytest.raises(UnknownNameError, match=r"^unknown kind of layer 'pol'; did you mean 'pool'\?$"):
            measured(build("cnn"), digits[:2], kinds=("pol",))

    def test_an_unknown_tap_is_named(self, digits: Tensor) -> None:
        with pytest.raises(UnknownNameError, match="unknown tap 'block9'; did you mean 'block"):
            measured(build("cnn"), digits[:2], taps=("block9",))

    def test_no_images(self, digits: Tensor) -> None:
        with pytest.raises(InputError, match="no images"):
            measured(build("cnn"), digits[:0])

    def test_what_is_no_module_has_no_layers(self, digits: Tensor) -> None:
        class Bare:
            taps = {"same": Plane()}  # noqa: RUF012
            stages: list[tuple[str, nn.Module]] = []  # noqa: RUF012

            def features(self, images: Tensor) -> dict[str, Features]:
                return {"same": images}

            def __call__(self, images: Tensor) -> Tensor:
                return images.flatten(1)

        with pytest.raises(InputError, match="it is no torch module"):
            measured(Bare(), digits[:2], kinds=("conv",))
        assert measured(Bare(), digits[:2]) == {}

    def test_kinds_of_layers(self) -> None:
        expected = {
            "conv": [nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 3), ScaleSpaceLift(2.0, 0.5, 2)],
            "pool": [nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), SpatialPool(2), ScalePool()],
            "norm": [nn.BatchNorm2d(2), nn.LayerNorm(2), nn.GroupNorm(1, 2)],
            "activation": [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.PReLU(), nn.Sigmoid(), nn.Hardswish()],
        }
        for kind, modules in expected.items():
            assert [kind_of(module) for module in modules] == [kind] * len(modules)

        class Mine(nn.Conv2d):
            """A convolution of another name."""

        class MyNorm(nn.Conv2d):
            """What is named as another kind is of that kind."""

        assert (kind_of(Mine(1, 1, 3)), kind_of(MyNorm(1, 1, 3))) == ("conv", "norm")
        others = [nn.Linear(2, 2), nn.Identity(), nn.Dropout(), nn.Softmax(dim=1), Mix(1, 1)]
        assert [kind_of(module) for module in others] == [None] * len(others)

    @pytest.mark.parametrize("name", ["mnist_ses_scalar_28", "mnist_ses_vector_28"])
    def test_faster_forms_hide_no_layer_and_change_no_reading(self, digits: Tensor, name: str) -> None:
        """Levels that are never joined, and a pooling before ReLU, would be layers that nobody sees."""
        torch.manual_seed(0)
        model = build(name)
        kinds = ("conv", "pool", "activation")
        fast = measured(model, digits[:4], 0.8, kinds=kinds)
        with without_forms(*FORMS):
            plain = measured(model, digits[:4], 0.8, kinds=kinds)
        assert list(fast) == list(plain)
        assert ("conv3.conv.ses", "conv") in fast
        assert ("conv3.conv.pool", "pool") in fast
        for part, row in fast.items():
            expected = plain[part].mean
            if expected is None:
                assert row.mean is None, part
            else:
                assert row.mean == pytest.approx(expected, rel=1e-3, abs=1e-9), part

    def test_a_layer_s_inner_branch_is_no_layer_of_its_own(self) -> None:
        found = layers_of(build("dcn"), ("conv",))
        assert list(found) == ["block1.conv", "block2.conv", "block3.conv", "block4.conv"]

    @pytest.mark.parametrize("background", ["empty", "none"])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
    def test_a_convolution_agrees_with_the_literal_formula(
        self, digits: Tensor, background: str, dtype: torch.dtype, tolerance: float
    ) -> None:
        torch.manual_seed(0)
        first, second = nn.Conv2d(1, 2, 5, padding=2), nn.Conv2d(2, 3, 3, stride=2, padding=1)
        stage = nn.Sequential(nn.ReLU(), second)
        model = chain(("one", first, Plane()), ("two", stage, Plane(stride=2, origin=0.0))).to(dtype)
        literal = [
            self.literal(first.double(), second.double(), image.double(), background) for image in digits[:3]
        ]
        rows = measured(model.to(dtype), digits[:3].to(dtype), 0.7, kinds=("conv",), background=background)
        assert mean(rows, "two.1", "conv") == pytest.approx(sum(literal) / 3, rel=tolerance)

    @staticmethod
    def literal(
        first: nn.Module, second: nn.Module, image: Float64[Tensor, "1 h w"], background: str
    ) -> float:
        """Δ of the strided convolution alone, term by term: its cell 0 lies on pixel 0."""
        with torch.no_grad():
            features = first(image[None]).relu()
            empty = first(torch.zeros_like(image[None])).relu()
            output, empty_output = second(features), second(empty)
            if background == "none":
                empty, empty_output = torch.zeros_like(empty), torch.zeros_like(empty_output)
            fed = rescale(features - empty, 0.7) + empty
            actual = second(fed) - empty_output
            expected = Plane(2.0, 0.0).act(output - empty_output, 0.7, Canvas(28, 28)).features[0]
            numerator = denominator = 0.0
            for a, b in zip(expected.flatten().tolist(), actual.flatten().tolist(), strict=True):
                numerator += (a - b) ** 2
                denominator += a**2
        return numerator / denominator

    def test_a_layer_that_is_a_stage_reads_the_same(self, digits: Tensor) -> None:
        rows = measured(build("dss_v1"), digits[:6], kinds=("conv",))
        assert mean(rows, "conv1", "conv") == pytest.approx(mean(rows, "conv1"), rel=1e-4)
        assert ("conv1", "pointwise") in rows

    def test_a_layer_that_works_in_place_changes_nothing(self, digits: Tensor) -> None:
        torch.manual_seed(0)
        weights = nn.Conv2d(1, 4, 3, padding=1)
        plain, inplace = (
            chain(("conv", weights, Plane()), ("relu", nn.Sequential(nn.ReLU(inplace=place)), Plane()))
            for place in (False, True)
        )
        one = measured(plain, digits[:5], kinds=("activation",))
        other = measured(inplace, digits[:5], kinds=("activation",))
        assert mean(one, "relu.0", "activation") == mean(other, "relu.0", "activation") > 0

    def test_norms_add_nothing_and_a_pool_has_its_share(self, digits: Tensor) -> None:
        rows = measured(build("mnist_cnn_28"), digits, 0.8, kinds=KINDS)
        assert mean(rows, "block1.norm", "norm") < ZEROS
        assert mean(rows, "block1.pool", "pool") > mean(rows, "block1.relu", "activation") > 0
        assert ("conv1.normalise", "norm") not in rows
        assert not any(part.startswith("logits.relu") for part, _ in rows)

    def test_the_pointwise_control_stands_beside_each_part(self, digits: Tensor) -> None:
        rows = measured(build("mnist_cnn_28"), digits, 0.8, kinds=("pool",))
        for part in ("conv1", "block1", "block1.pool", "block2.pool"):
            assert 0 < mean(rows, part, "pointwise") < 0.05
        # what cannot be rescaled before a part has no control either
        assert ("logits", "pointwise") not in rows

    def test_progress_counts_every_part_of_every_batch(self, digits: Tensor) -> None:
        seen: list[tuple[int, int]] = []
        settings = MeasureSettings(factors=(0.8,), batch=3)
        local_errors(
            build("mnist_cnn_28"),
            digits[:6],
            settings,
            kinds=("pool",),
            on_progress=lambda done, total: seen.append((done, total)),
        )
        assert seen == [(done, 18) for done in range(1, 19)]

    def test_no_hook_is_left_behind(self, digits: Tensor) -> None:
        model = build("dss_v1")
        measured(model, digits[:2], kinds=KINDS)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Foreign(nn.Module):
    """A network without stages: its blocks add their input, use one ReLU twice, and cut the size in half."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 6, 7, stride=2, padding=3)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.down = nn.MaxPool2d(3, stride=2, padding=1)
        self.classify = nn.Linear(6, 10)

    @property
    def taps(self) -> dict[str, Field]:
        return {"down": Plane(stride=4, origin=0.0)}

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        return []

    def features(self, images: Tensor) -> dict[str, Features]:
        x = self.relu(self.stem(images))
        down = self.down(self.relu(self.conv(x) + x))
        return {"down": down, "logits": self.classify(down.mean((2, 3)))}

    def forward(self, images: Tensor) -> Features:
        return self.features(images)["logits"]


def test_a_network_without_stages_has_layers_only(digits: Tensor) -> None:
    assert measured(Foreign(), digits[:4]) == {}
    rows = measured(Foreign(), digits[:4], 0.8, kinds=("conv", "activation", "pool"))
    parts = [part for part, kind in rows if kind != "pointwise"]
    assert parts == ["stem", "relu", "conv", "relu#2", "down"]
    assert all(row.mean is not None for row in rows.values())


def sites_of(model: StagedModel | Foreign, size: int = 28) -> dict[str, tuple[Field | None, Field | None]]:
    with measuring(model, "cpu"):
        probe = Probe(model, layers_of(model, KINDS), Canvas(size, size))
        sites = probe.run(torch.zeros(1, 1, size, size))
    return {call.name: (site.before, site.after) for call, site in sites.items()}


def test_the_grid_is_followed_from_layer_to_layer() -> None:
    found = sites_of(Foreign())
    half = Plane(stride=(2.0, 2.0), origin=(0.0, 0.0))
    assert found["stem"] == (Plane(), half)
    assert found["relu#2"] == (half, half)  # a sum of branches
    assert found["down"] == (half, Plane(stride=4, origin=0.0))


def geometry(field: Field | None, cells: tuple[int, int], pixels: int) -> list[tuple[float, float]]:
    assert isinstance(field, (Plane, ScaleSpace))
    return [axis_grid(field.stride, field.origin, axis, cells[axis], pixels) for axis in (0, 1)]


@pytest.mark.parametrize(
    "name",
    [
        "cnn",
        "dcn",
        "dss_v1",
        "mnist_cnn_56",
        "mnist_dss_vector_56",
        "mnist_dss_scalar_28",
        "mnist_ses_scalar_28",
        "mnist_ses_vector_56",
    ],
)
def test_derived_fields_agree_with_the_declared_ones(name: str) -> None:
    """The last layer of every stage ends on the grid, and the scales, that the tap declares."""
    assert name in MODELS
    model = build(name).eval()
    features = model.features(torch.zeros(1, 1, 28, 28))
    found = sites_of(model)
    checked = 0
    for tap, declared in model.taps.items():
        layers = [after for layer, (_, after) in found.items() if layer.split(".")[0] == tap]
        tensor = features[tap]
        if isinstance(declared, Invariant) or not layers:
            continue
        assert isinstance(tensor, Tensor)
        cells = (tensor.shape[-2], tensor.shape[-1])
        derived, wanted = geometry(layers[-1], cells, 28), geometry(declared, cells, 28)
        assert [v for pair in derived for v in pair] == pytest.approx([v for pair in wanted for v in pair])
        if isinstance(declared, ScaleSpace):
            last = layers[-1]
            assert isinstance(last, ScaleSpace)
            assert last.scales == declared.scales
            assert last.truncated == declared.truncated
            assert last.base_blur == pytest.approx(declared.base_blur)
        checked += 1
    assert checked >= 4


def test_an_interaction_truncates_what_comes_behind_it() -> None:
    model = build("mnist_ses_vector_28", {"interaction": 2})
    found = sites_of(model)
    _, after = found["block2.conv"]
    assert isinstance(after, ScaleSpace)
    assert after.truncated == 1
    dropped = build("dss_v1", {"interaction": 2, "drop_top": True})
    _, fewer = sites_of(dropped)["conv1"]
    assert isinstance(fewer, ScaleSpace)
    assert list(fewer.scales) == [1, 2, 4]
    assert fewer.truncated == 0


class Blur(nn.Module):
    """A downsampler that declares no window: binomial blur, then every second cell."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c y x"]:
        kernel = torch.tensor([1.0, 2.0, 1.0]).to(x) / 4
        kernel = (kernel[:, None] * kernel[None, :]).expand(x.shape[1], 1, 3, 3)
        return nn.functional.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


@pytest.mark.parametrize(
    ("module", "cells", "expected"),
    [
        (nn.Conv2d(2, 2, 7, stride=2, padding=3), 28, LayerReading(2, 0)),
        (nn.Conv2d(2, 2, 3, padding="same", dilation=2), 28, LayerReading(1, 0)),
        (nn.Conv2d(2, 2, 4, padding="valid"), 28, LayerReading(1, 1.5)),
        (nn.MaxPool2d(3, stride=2, padding=1), 28, LayerReading(2, 0)),
        (nn.MaxPool2d(2, ceil_mode=True), 7, LayerReading(2, 0.5)),
        (nn.AvgPool2d(2), 28, LayerReading(2, 0.5)),
        (SpatialPool(4, 2), 7, LayerReading(4, -0.5)),
        (nn.ConvTranspose2d(2, 2, 2, stride=2), 14, LayerReading(0.5, -0.25)),
        (nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1), 14, LayerReading(0.5, -0.25)),
        (nn.AdaptiveAvgPool2d(2), 28, LayerReading(14, 6.5)),
        (nn.Upsample(scale_factor=2, mode="bilinear"), 14, LayerReading(0.5, -0.25)),
        (nn.BatchNorm2d(2), 9, LayerReading(1, 0)),
        (Blur(), 28, LayerReading(2, 0)),
    ],
)
def test_where_the_cells_behind_a_layer_lie(module: nn.Module, cells: int, expected: LayerReading) -> None:
    x = torch.zeros(1, 2, cells, cells)
    with torch.no_grad():
        y = module.eval()(x)
    for axis in (0, 1):
        assert layer_reading(module, x, y, axis) == pytest.approx(expected)


def test_channels_last_is_no_plane(digits: Tensor) -> None:
    class Last(Foreign):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(6)

        def features(self, images: Tensor) -> dict[str, Features]:
            x = self.norm(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            down = self.down(x)
            return {"down": down, "logits": self.classify(down.mean((2, 3)))}

    row = measured(Last(), digits[:4], 0.8, kinds=("norm",))["norm", "norm"]
    assert row.mean is None
    assert str(row.reason) == "nothing says how scale acts on (N, 14, 14, 6), which goes into it"


def test_where_sesn_loses_what_its_filters_won(digits: Tensor) -> None:
    """Untrained: its first convolution is several times better than the CNN's, its pools are no better."""
    factor = 3**-0.5
    cnn = measured(build("mnist_cnn_28"), digits, factor, kinds=("conv", "pool"))
    ses = measured(build("mnist_ses_vector_28"), digits, factor, kinds=("conv", "pool"))
    assert mean(cnn, "conv1.conv", "conv") > 4 * mean(ses, "conv1.conv", "conv")
    for pool in ("block1.pool", "block2.pool"):
        assert 0.5 < mean(cnn, pool, "pool") / mean(ses, pool, "pool") < 2
