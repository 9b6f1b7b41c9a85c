"""Laws of L_s on features: every field's action composes, keeps its centre, masks what it cannot know."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float64
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from secli.action.fields import (
    Acted,
    Canvas,
    Field,
    Invariant,
    Plane,
    Pyramid,
    ScaleSpace,
    VectorField,
    inside,
    small_levels,
    without_levels,
)
from secli.action.images import rescale
from secli.layers.gaussian import ScaleSpaceLift

Q = 2**0.5


def blob(
    n: int, width: float = 0.06, spacing: float = 1.0, at: tuple[float, float] = (0.03, -0.02)
) -> Float64[Tensor, "n n"]:
    """A Gaussian blob on n cells of the given spacing, in units of the cells' canvas."""
    axis = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * spacing / n
    return torch.exp(-((axis - at[0])[:, None] ** 2 + (axis - at[1])[None, :] ** 2) / (2 * width**2))


def distance(acted: Acted, features: Tensor) -> float:
    """Relative distance over the cells that are known."""
    (expected,), (mask,) = acted.features, acted.masks
    keep = torch.ones_like(expected, dtype=torch.bool) if mask is None else mask.expand_as(expected)
    return float((expected - features)[keep].norm() / expected[keep].norm())


def gaussian_scale_space(
    n: int, scales: tuple[float, ...], centre_blur: float
) -> Float64[Tensor, "1 1 s n n"]:
    """The exact scale space of a Gaussian blob: level σ has blur √(centre_blur² + σ²), mass kept."""
    axis = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    levels = []
    for scale in scales:
        variance = centre_blur**2 + scale**2
        levels.append(torch.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * variance)) / variance)
    return torch.stack(levels)[None, None]


def test_plane_is_the_image_operator() -> None:
    features = torch.rand(2, 3, 12, 15, dtype=torch.float64)
    acted = Plane().act(features, 0.6, Canvas(12, 15))
    assert torch.equal(acted.features[0], rescale(features, 0.6))
    assert acted.masks == [None]
    assert acted.levels_total is None


@pytest.mark.parametrize(
    ("field", "features"),
    [
        (Plane(), torch.rand(1, 2, 9, 8)),
        (Plane(stride=2, origin=0.0), torch.rand(1, 2, 9, 8)),
        (ScaleSpace((1, 2, 4)), torch.rand(1, 2, 3, 9, 8)),
        (VectorField(1.26, 0.3, (-4, 3)), torch.rand(1, 2, 2, 9, 8)),
        (Invariant(), torch.rand(1, 10)),
    ],
)
def test_l_1_is_the_identity_to_the_bit(field: Field, features: Tensor) -> None:
    acted = field.act(features, 1.0, Canvas(18, 16))
    assert torch.equal(acted.features[0], features)
    assert acted.masks[0] is None


@pytest.mark.parametrize("stride", [2, 4])
def test_a_strided_plane_moves_about_the_point_where_the_image_centre_falls(stride: int) -> None:
    # cells at 0, stride, 2·stride, … as in a residual network: the grid centre is not the image centre
    n, s = 112, 0.6
    picture = blob(n)[None, None]
    features, scaled = picture[..., ::stride, ::stride], rescale(picture, s)[..., ::stride, ::stride]
    true = distance(Plane(stride=stride, origin=0.0).act(features, s, Canvas(n, n)), scaled)
    wrong = distance(Plane(stride=stride).act(features, s, Canvas(n, n)), scaled)
    assert true < 0.02
    assert wrong > 10 * true


def test_an_upsampled_plane_keeps_the_image_centre() -> None:
    n, s = 56, 0.6
    fine = blob(2 * n)[None, None]
    acted = Plane(stride=0.5, origin=-0.25).act(fine, s, Canvas(n, n))
    # the features' blur is the pictures' blur in cells: twice as many cells
    assert torch.allclose(acted.features[0], rescale(fine, s, blur=1.0), atol=1e-12)


def test_strides_and_origins_may_differ_between_rows_and_columns() -> None:
    picture = blob(64)[None, None]
    features, s = picture[..., ::2, ::4], 0.7
    scaled = rescale(picture, s)[..., ::2, ::4]
    assert distance(Plane((2.0, 4.0), (0.0, 0.0)).act(features, s, Canvas(64, 64)), scaled) < 0.05
    assert distance(Plane((4.0, 2.0), (0.0, 0.0)).act(features, s, Canvas(64, 64)), scaled) > 0.3


@given(s=st.floats(0.6, 1.2), t=st.floats(0.6, 1.0))
def test_plane_composes(s: float, t: float) -> None:
    n, canvas = 56, Canvas(112, 112)
    field = Plane(stride=2, origin=0.0)
    features = blob(n)[None, None]
    twice = field.act(field.act(features, s, canvas).features[0], t, canvas)
    assert distance(twice, field.act(features, s * t, canvas).features[0]) < 0.02


def test_scale_space_of_a_blob_follows_the_law_of_scale() -> None:
    """A blob of blur b at level σ equals, shrunk by s, the blob of blur s·b at level s·σ: mass falls as s²."""
    n, scales = 96, (3.0, 3.0 * Q, 6.0, 6.0 * Q)
    s = 1 / Q
    original = gaussian_scale_space(n, scales, 8.0)
    shrunk = gaussian_scale_space(n, scales, 8.0 * s) * s**2
    acted = ScaleSpace(scales).act(original, s, Canvas(n, n, blur=0.0))
    assert (acted.levels_used, acted.levels_total, acted.on_lattice) == (3, 4, True)
    assert distance(acted, shrunk) < 1e-3
    wrong_way = ScaleSpace(scales).act(original, s, Canvas(n, n, blur=0.0)).features[0].roll(2, dims=2)
    assert float((wrong_way[:, :, 2:] - shrunk[:, :, 2:]).norm() / shrunk[:, :, 2:].norm()) > 0.1
    no_shift = Plane().act(original, s, Canvas(n, n, blur=0.0))
    assert distance(no_shift, shrunk) > 0.1


def test_a_shrunk_picture_moves_down_the_stack_and_a_grown_one_up() -> None:
    field = ScaleSpace((1.0, 2.0, 4.0))
    assert [source and source.lower for source in field.sources(0.5)] == [1, 2, None]
    assert [source and source.lower for source in field.sources(2.0)] == [None, 0, 1]
    assert field.sources(0.2) == [None, None, None]
    assert field.lattice == (0.5, 0.25)


def test_rounded_published_scales_count_as_on_the_lattice() -> None:
    field = ScaleSpace((1.5, 2.6, 4.5))
    sources = field.sources(1 / math.sqrt(3))
    assert [source and source.weight for source in sources] == [0.0, 0.0, None]
    between = field.sources(0.8)
    assert between[0] is not None
    assert between[0].lower == 0
    assert 0 < between[0].weight < 1
    assert between[2] is None


def test_off_lattice_levels_are_mixed_linearly_in_log_scale() -> None:
    field = ScaleSpace((1.0, 2.0, 4.0))
    features = torch.arange(3.0, dtype=torch.float64).reshape(1, 1, 3, 1, 1).expand(1, 1, 3, 40, 40)
    s = 2**-0.25
    acted = field.act(features, s, Canvas(40, 40))
    assert acted.on_lattice is False
    assert acted.levels_used == 2
    centre = acted.features[0][0, 0, :2, 20, 20]
    assert torch.allclose(centre, torch.tensor([0.25, 1.25], dtype=torch.float64), atol=1e-3)


def test_truncated_levels_are_compared_neither_as_source_nor_as_target() -> None:
    assert [s and s.lower for s in ScaleSpace((1, 2, 4, 8), truncated=1).sources(0.5)] == [1, 2, None, None]
    assert [s and s.lower for s in ScaleSpace((1, 2, 4, 8), truncated=1).sources(2.0)] == [None, 0, 1, None]
    acted = ScaleSpace((1, 2), truncated=1).act(torch.rand(1, 1, 2, 8, 8), 0.5, Canvas(8, 8))
    assert acted.levels_used == 0


def test_base_blur_is_supplied_by_the_level_shift() -> None:
    # z equal to the pictures' blur: the plane is read without any further blur
    features = torch.rand(1, 1, 2, 20, 20, dtype=torch.float64)
    acted = ScaleSpace((1, 2), base_blur=0.5).act(features, 0.5, Canvas(20, 20))
    bare = rescale(features[:, :, 1], 0.5, blur=0.0)
    assert torch.allclose(acted.features[0][:, :, 0], bare, atol=1e-12)


@given(i=st.integers(-1, 1), j=st.integers(-1, 1))
def test_scale_space_composes_on_its_lattice(i: int, j: int) -> None:
    n = 64
    field = ScaleSpace((1.0, 1.25, 1.5625, 1.953125, 2.44140625))
    canvas = Canvas(n, n, blur=0.0)
    features = torch.stack([blob(n, 0.05 + 0.01 * k) for k in range(5)])[None, None]
    first, second = 1.25**i, 1.25**j
    once = field.act(features, first * second, canvas)
    inner = field.act(features, first, canvas)
    twice = field.act(inner.features[0], second, canvas)
    known = [k for k in range(5) if 0 <= k - j < 5 and 0 <= k - j - i < 5 and 0 <= k - i - j < 5]
    error = (twice.features[0][:, :, known] - once.features[0][:, :, known]).norm()
    assert float(error / once.features[0][:, :, known].norm()) < 0.01


@given(s=st.floats(0.7, 1.3), t=st.floats(0.7, 1.3))
def test_vector_field_composes_and_masks_what_leaves_the_range(s: float, t: float) -> None:
    n, field = 56, VectorField(1.26, 2 * math.pi / 21, (-4, 3))
    canvas = Canvas(n, n)
    magnitude = blob(n)
    features = torch.stack([magnitude * math.cos(0.1), magnitude * math.sin(0.1)])[None, None]
    once = field.act(features, s * t, canvas)
    twice = field.act(field.act(features, s, canvas).features[0], t, canvas)
    (mask,) = once.masks
    keep = torch.ones(1, 1, 1, n, n, dtype=torch.bool) if mask is None else mask
    difference = torch.where(keep, twice.features[0] - once.features[0], 0.0).norm()
    assert float(difference / once.features[0].norm()) < 0.03


def test_a_vector_turns_with_the_logarithm_of_the_factor_and_is_masked_beyond_the_last_level() -> None:
    step = 2 * math.pi / 21
    field = VectorField(1.26, step, (-4, 3))
    flat = torch.ones(1, 1, 41, 41, dtype=torch.float64)
    features = torch.stack([flat, torch.zeros_like(flat)], dim=2)
    acted = field.act(features, 1.26**-2, Canvas(41, 41))
    u, v = acted.features[0][0, 0, :, 20, 20]
    assert math.isclose(math.atan2(float(v), float(u)), -2 * step, abs_tol=1e-9)
    assert acted.masks[0] is not None
    assert bool(acted.masks[0][0, 0, 0, 20, 20])
    beyond = field.act(features, 1.26**4, Canvas(41, 41))
    assert beyond.masks[0] is not None
    assert not bool(beyond.masks[0][0, 0, 0, 20, 20])


ANGLES = VectorField(1 / 1.26, 2 * math.pi / 21, (-4, 3))


def fan(n: int = 9) -> Tensor:
    """Vectors at the angles −4θ … 3θ, one channel each, alike in all cells."""
    angles = torch.arange(-4.0, 4.0, dtype=torch.float64) * ANGLES.angle_step
    pairs = torch.stack([angles.cos(), angles.sin()], dim=1)
    return pairs[None, :, :, None, None].expand(1, 8, 2, n, n)


def kept(acted: Acted) -> list[bool]:
    """Say which of the fan's channels are compared, in the middle cell."""
    (mask,) = acted.masks
    return [True] * 8 if mask is None else [bool(mask[0, c, 0, 4, 4]) for c in range(8)]


def test_a_vector_whose_source_lies_off_the_range_is_masked_too() -> None:
    canvas, vectors, none = Canvas(9, 9), fan(), torch.zeros(1, 8, 2, 9, 9, dtype=torch.float64)
    s = 1.26**-2  # two steps up
    acted = ANGLES.act(vectors, s, canvas)
    assert kept(acted) == [True] * 6 + [False] * 2
    assert kept(ANGLES.compared(acted, vectors, None, s, canvas)) == [True] * 6 + [False] * 2
    assert kept(ANGLES.compared(acted, none, vectors, s, canvas)) == [False] * 2 + [True] * 6
    assert kept(ANGLES.compared(acted, vectors, vectors, s, canvas)) == [False] * 2 + [True] * 4 + [False] * 2


@pytest.mark.parametrize("steps", [-3, -1, 1, 2])
def test_what_cannot_leave_one_way_cannot_arrive_the_other_way(steps: int) -> None:
    """The mask of Φ(f)'s own angles at s is that of the answer's angles at 1/s."""
    canvas, vectors, none = Canvas(9, 9), fan(), torch.zeros(1, 8, 2, 9, 9, dtype=torch.float64)
    s = 1.26**steps
    leaving = ANGLES.compared(ANGLES.act(vectors, s, canvas), vectors, None, s, canvas)
    arriving = ANGLES.compared(ANGLES.act(none, 1 / s, canvas), none, vectors, 1 / s, canvas)
    assert kept(leaving) == kept(arriving)
    assert kept(leaving).count(False) == abs(steps)


def test_at_one_every_vector_is_compared_and_the_border_stays_masked() -> None:
    vectors = torch.randn(2, 3, 2, 9, 9, dtype=torch.float64)
    acted = ANGLES.act(vectors, 1.0, Canvas(9, 9))
    assert ANGLES.compared(acted, vectors, -vectors, 1.0, Canvas(9, 9)) == acted
    assert acted.masks == [None]
    assert torch.equal(acted.features[0], vectors)
    framed, s = Canvas(9, 9, border=2.0), 1.26**-1
    (mask,) = ANGLES.compared(ANGLES.act(fan(), s, framed), fan(), fan(), s, framed).masks
    assert mask is not None
    assert not mask[..., 0, :].any()
    assert mask[0, 3, 0, 4, 4]


def test_the_angle_that_counts_is_the_network_s_own_not_that_of_a_difference() -> None:
    """Φ(f) at 3θ over a background at −4θ: the difference points elsewhere, the vector may not turn on."""
    raw, background, s = fan()[:, 7:], 0.9 * fan()[:, :1], 1.26**-1
    acted = ANGLES.act(raw - background, s, Canvas(9, 9))
    (mask,) = ANGLES.compared(acted, raw, None, s, Canvas(9, 9)).masks
    assert mask is not None
    assert not mask[0, 0, 0, 4, 4]


def test_other_fields_mask_nothing_more() -> None:
    features = torch.rand(1, 1, 3, 9, 9)
    acted = ScaleSpace((1, 2, 4)).act(features, 0.5, Canvas(9, 9))
    assert ScaleSpace((1, 2, 4)).compared(acted, features, -features, 0.5, Canvas(9, 9)) is acted


def test_truncated_levels_of_a_pyramid_are_compared_neither_as_source_nor_as_target() -> None:
    field = Pyramid((1.0, 0.5, 0.25, 0.125), truncated=1)
    assert [field.source(k, 0.5) for k in range(4)] == [1, 2, None, None]
    assert [field.source(k, 2.0) for k in range(4)] == [None, 0, 1, None]
    assert "1 truncated" in field.reads_as()
    with pytest.raises(ValueError, match="3 truncated levels of 2"):
        Pyramid((1.0, 0.5), truncated=3)


def test_small_levels_of_a_pyramid_are_masked_and_the_others_stay() -> None:
    canvas, field = Canvas(32, 32), Pyramid((1.0, 0.5, 0.25, 0.125))
    levels = [torch.rand(1, 1, n, n) for n in (32, 16, 8, 4)]
    acted = field.act(levels, 0.5, canvas)
    assert small_levels(acted, 0.5, 4) == [3]  # 16, 8, 4 and 2 cells
    assert small_levels(acted, 0.5, 5) == [2, 3]
    assert small_levels(acted, 2.0, 5) == [3]
    less = without_levels(acted, small_levels(acted, 0.5, 5))
    assert (acted.levels_used, less.levels_used) == (3, 2)
    assert [mask is None for mask in less.masks] == [True, True, False, False]
    stack = ScaleSpace((1, 2)).act(torch.rand(1, 1, 2, 8, 8), 0.5, Canvas(8, 8))
    assert small_levels(stack, 0.5, 100) == []


def test_pyramid_takes_the_nearest_level_and_masks_those_off_its_end() -> None:
    sizes = (64, 32, 16)
    field = Pyramid((1.0, 0.5, 0.25))

    def pyramid(width: float) -> list[Tensor]:
        return [blob(n, width, at=(0.0, 0.0))[None, None] for n in sizes]

    acted = field.act(pyramid(0.12), 0.5, Canvas(64, 64))
    assert (acted.levels_used, acted.levels_total, acted.on_lattice) == (2, 3, True)
    assert acted.masks[2] is not None
    assert not acted.masks[2].any()
    for expected, features in zip(acted.features[:2], pyramid(0.06)[:2], strict=True):
        assert float((expected - features).norm() / features.norm()) < 0.02
    residual = field.act(pyramid(0.12), 0.6, Canvas(64, 64))
    assert residual.on_lattice is False
    wanted = pyramid(0.072)
    assert float((residual.features[0] - wanted[0]).norm() / wanted[0].norm()) < 0.03


@pytest.mark.parametrize("field", [Plane(), Plane(stride=2, origin=0.0), ScaleSpace((1, 2, 4))])
def test_two_half_steps_are_near_the_whole_step_but_not_equal(field: Field) -> None:
    n = 56
    picture = blob(n)
    features = picture[None, None] if isinstance(field, Plane) else picture.expand(1, 1, 3, n, n)
    whole, halves = (field.act(features, 0.5, Canvas(n, n), steps=steps) for steps in (1, 2))
    difference = distance(whole, halves.features[0])
    assert 0 < difference < 0.05


def test_extra_axes_ride_along() -> None:
    features = torch.rand(2, 3, 4, 5, 9, 9, dtype=torch.float64)
    planes = Plane().act(features, 0.7, Canvas(9, 9)).features[0]
    assert torch.allclose(planes[1, 2, 3, 4], rescale(features[1, 2, 3, 4], 0.7))
    stack = ScaleSpace((1, 2, 4, 8)).act(features, 0.5, Canvas(9, 9)).features[0]
    assert torch.allclose(stack[1, 2, 0, 4], rescale(features[1, 2, 1, 4], 0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaleSpace((2.0, 1.0)), "positive and increasing"),
        (lambda: ScaleSpace(()), "positive and increasing"),
        (lambda: ScaleSpace((1.0, 2.0), truncated=3), "3 truncated levels of 2"),
        (lambda: Pyramid((0.5, 1.0)), "positive and never increase"),
        (
            lambda: ScaleSpace((1, 2)).act(torch.rand(1, 3, 9, 9), 0.5, Canvas(9, 9)),
            "a scale space of 2 levels is",
        ),
        (
            lambda: VectorField(1.2, 0.3, (0, 1)).act(torch.rand(1, 3, 9, 9), 0.5, Canvas(9, 9)),
            "a vector field is",
        ),
        (
            lambda: Pyramid((1.0,)).act(torch.rand(1, 3, 9, 9), 0.5, Canvas(9, 9)),
            "a list of that many tensors",
        ),
        (lambda: Plane().act([torch.rand(1, 1, 4, 4)], 0.5, Canvas(4, 4)), "acts on one tensor"),
    ],
)
def test_features_of_another_shape_are_refused(make, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


class TestBorder:
    """What lies closer than the border to the edge of the rescaled picture or of the canvas is masked."""

    def test_no_border_masks_nothing(self) -> None:
        assert inside(torch.zeros(1, 1, 8, 8), 0.5, Canvas(8, 8)) is None

    @pytest.mark.parametrize(
        ("factor", "kept"), [(1.0, range(2, 18)), (0.5, range(7, 13)), (1.5, range(2, 18))]
    )
    def test_pixels_kept_are_those_inside_picture_and_canvas(self, factor: float, kept: range) -> None:
        mask = inside(torch.zeros(2, 3, 20, 20), factor, Canvas(20, 20, border=2.0))
        assert mask is not None
        assert mask.shape == (1, 1, 20, 20)
        assert mask[0, 0].any(0).nonzero().flatten().tolist() == list(kept)
        assert torch.equal(mask[0, 0], mask[0, 0].any(0)[:, None] & mask[0, 0].any(0)[None, :])

    def test_strided_cells_are_judged_by_where_they_lie_in_the_image(self) -> None:
        # cells at 0, 4, 8, 12, 16 of 20 pixels, whose centre is 9.5: a border of 4 keeps 4 … 15
        mask = inside(torch.zeros(1, 1, 5, 5), 1.0, Canvas(20, 20, border=4.0), 4.0, 0.0)
        assert mask is not None
        assert mask[0, 0, 1].tolist() == [False, True, True, True, False]

    def test_it_joins_the_mask_of_levels(self) -> None:
        acted = ScaleSpace((1, 2)).act(torch.rand(1, 1, 2, 20, 20), 0.5, Canvas(20, 20, border=2.0))
        (mask,) = acted.masks
        assert mask is not None
        assert not mask[:, :, 1].any()
        assert int(mask[:, :, 0].sum()) == 36

    def test_a_frame_fools_the_ruler_unless_it_is_masked(self) -> None:
        """Differences of Gaussians are equivariant; a photograph shrunk on its canvas has a frame that is not."""
        greys = [Image.fromarray(photograph).convert("L") for photograph in load_sample_images().images]
        squares = [grey.crop((107, 0, 534, 427)).resize((96, 96), Image.Resampling.LANCZOS) for grey in greys]
        images = torch.from_numpy(np.stack([np.asarray(square) for square in squares]))[:, None] / 255.0
        lift = ScaleSpaceLift(base=2.0, z=1.0, levels=4)

        def difference(pictures: Tensor) -> Tensor:
            levels: Tensor = lift(pictures)
            return levels[:, :, 1:] - levels[:, :, :-1]

        s, field = 0.5, ScaleSpace((1, 2, 4), base_blur=1.0)
        features, actual = difference(images), difference(rescale(images, s, 1.0))
        bare = distance(field.act(features, s, Canvas(96, 96, 1.0)), actual) ** 2
        framed = distance(field.act(features, s, Canvas(96, 96, 1.0, border=8.0)), actual) ** 2
        assert bare > 0.2
        assert framed < 0.01


def test_a_pyramid_without_blur_of_its_own_gets_the_blur_of_the_shrunk_picture() -> None:
    """Bilinear halving of a rough picture: level 0 of the shrunk one is level 1 of the other, blurred a little."""
    torch.manual_seed(0)
    picture = torch.nn.functional.pad(torch.rand(1, 1, 32, 32, dtype=torch.float64), (16, 16, 16, 16))
    for _ in range(2):
        picture = torch.nn.functional.avg_pool2d(picture, 3, 1, 1)

    def levels(images: Tensor) -> list[Tensor]:
        halve = torch.nn.functional.interpolate
        return [images, halve(images, scale_factor=0.5, mode="bilinear", align_corners=False)]

    acted = Pyramid((1.0, 0.5)).act(levels(picture), 0.5, Canvas(64, 64))
    sharp = Pyramid((1.0, 0.5)).act(levels(picture), 0.5, Canvas(64, 64, blur=0.0))
    actual = levels(rescale(picture, 0.5))[0]
    right = float((acted.features[0] - actual).norm() / actual.norm()) ** 2
    without = float((sharp.features[0] - actual).norm() / actual.norm()) ** 2
    assert right < 0.002
    assert without > 3 * right


def test_a_pyramid_says_which_blur_its_lift_supplies() -> None:
    assert Pyramid((1.0, 0.5), base_blur=0.5).reads_as() == "pyramid 1,0.5, stride 1, base blur 0.5"
    assert Pyramid((1.0, 0.5), 2.0).reads_as() == "pyramid 1,0.5, stride 2"


@pytest.mark.parametrize(("s", "t"), [(0.5, 0.5), (0.5, 0.25), (0.6, 0.5)])
def test_pyramid_composes(s: float, t: float) -> None:
    field, canvas = Pyramid((1.0, 0.5, 0.25, 0.125)), Canvas(128, 128)
    levels = [blob(n, 0.16)[None, None] for n in (128, 64, 32, 16)]
    once = field.act(levels, s * t, canvas)
    inner = field.act(levels, s, canvas)
    twice = field.act(inner.features, t, canvas)
    assert once.masks[0] is None
    assert float((once.features[0] - twice.features[0]).norm() / once.features[0].norm()) < 0.02
