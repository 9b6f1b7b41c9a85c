"""The generator of L_s is its derivative, right in closed form, and masked where it is not known."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import Float64
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
    rescale_plane,
)
from secli.action.generator import (
    diffusion_matrix,
    dilation_matrix,
    generate,
    generate_image,
    generate_plane,
    level_weights,
)
from secli.action.images import axis_matrix, bessel_kernel, rescale
from secli.layers.gaussian import ScaleSpaceLift

SHARP = 0.0


def blob(n: int, width: float = 0.08, at: tuple[float, float] = (0.05, -0.03)) -> Float64[Tensor, "1 1 n n"]:
    """A Gaussian blob, in units of the canvas."""
    axis = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) / n
    return torch.exp(-((axis - at[0])[:, None] ** 2 + (axis - at[1])[None, :] ** 2) / (2 * width**2))[
        None, None
    ]


def distance(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize(("n", "centre"), [(12, 5.5), (13, 6.0), (9, 1.25)])
def test_the_matrix_is_the_derivative_of_the_matrix_of_l_s(n: int, centre: float) -> None:
    t = 1e-5
    ahead, behind = (axis_matrix(n, n, math.exp(-sign * t), centre, centre, 0.0) for sign in (1, -1))
    np.testing.assert_allclose(dilation_matrix(n, centre), (ahead - behind) / (2 * t), atol=1e-7)


def test_the_diffusion_is_the_derivative_of_the_discrete_gaussian() -> None:
    t = 1e-7
    kernel = (bessel_kernel(t, 1) - np.array([0, 1, 0])) / t
    np.testing.assert_allclose(diffusion_matrix(7)[3, 2:5], kernel, atol=1e-6)
    assert diffusion_matrix(7)[3, [0, 1, 5, 6]].tolist() == [0, 0, 0, 0]


def test_pictures_move_as_their_finite_difference() -> None:
    pictures, t = torch.rand(2, 3, 15, 12, dtype=torch.float64), 1e-5
    difference = (rescale(pictures, math.exp(t), SHARP) - rescale(pictures, math.exp(-t), SHARP)) / (2 * t)
    assert distance(generate_image(pictures), difference) < 1e-7
    single = generate_image(pictures.float())
    assert single.dtype == torch.float32
    assert distance(single.double(), difference) < 1e-5


def test_linear_and_quadratic_functions_are_exact_inside() -> None:
    x = torch.arange(81, dtype=torch.float64) - 40
    plane = 2 * x[:, None] - 3 * x[None, :]
    inside = slice(28, 53)  # the spline of the cut plane rings by (2 − √3)^k from the edges
    expected = -plane
    assert torch.allclose(generate_image(plane)[inside, inside], expected[inside, inside], atol=1e-3)
    bowl = x[:, None] ** 2 + x[:, None] * x[None, :]
    assert torch.allclose(generate_image(bowl)[inside, inside], -2 * bowl[inside, inside], atol=1e-1)
    flat = torch.ones(81, 81, dtype=torch.float64)
    assert float(generate_image(flat)[inside, inside].abs().max()) < 1e-5
    assert (
        float(generate_image(flat).abs().max()) > 1
    )  # at the edge the flat picture ends, and that edge moves


@pytest.mark.parametrize("n", [28, 29])
def test_the_centre_stays_fixed(n: int) -> None:
    picture = blob(n, at=(0.0, 0.0))
    moved = generate_image(picture)
    assert torch.allclose(moved, moved.flip(-1), atol=1e-12)
    assert torch.allclose(moved, moved.mT, atol=1e-12)


def test_the_error_on_a_blob_falls_with_the_fourth_power_of_the_resolution() -> None:
    def error(n: int) -> float:
        width, at = 0.08, (0.05, -0.03)
        x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) / n
        slope = (x * (x - at[0]))[:, None] + (x * (x - at[1]))[None, :]
        return distance(generate_image(blob(n)), blob(n) * slope / width**2)

    assert error(28) < 0.01
    assert error(112) < error(28) / 3.5**4


def test_the_group_that_it_generates_is_l_s() -> None:
    def error(n: int, t: float) -> float:
        flow = torch.matrix_exp(t * torch.from_numpy(dilation_matrix(n, (n - 1) / 2)))
        grown = flow @ blob(n) @ flow.T
        return distance(grown, rescale(blob(n), math.exp(t), SHARP))

    assert error(28, 0.2) < 0.01
    assert error(112, 0.2) < error(28, 0.2) / 16
    assert error(112, -0.2) < error(28, -0.2) / 16


@pytest.mark.parametrize(
    "field",
    [Plane(), Plane(stride=2, origin=0.0), Plane(stride=(2.0, 4.0), origin=(0.0, 1.5)), Plane(origin=-0.25)],
)
def test_planes_move_as_their_finite_difference(field: Plane) -> None:
    features, canvas, t = torch.rand(2, 3, 2, 9, 11, dtype=torch.float64), Canvas(30, 40, SHARP), 1e-5
    tensors, masks = generate(field, features, canvas)
    ahead, behind = (field.act(features, math.exp(sign * t), canvas).features[0] for sign in (1, -1))
    assert distance(tensors[0], (ahead - behind) / (2 * t)) < 1e-7
    assert masks == [None]


def test_a_pyramid_moves_level_by_level_as_its_finite_difference() -> None:
    field, canvas, t = Pyramid((1.0, 0.5, 0.25)), Canvas(32, 24, SHARP), 1e-5
    features = [torch.rand(1, 2, 32 >> k, 24 >> k, dtype=torch.float64) for k in range(3)]
    tensors, masks = generate(field, features, canvas)
    ahead, behind = (field.act(features, math.exp(sign * t), canvas).features for sign in (1, -1))
    for moved, a, b in zip(tensors, ahead, behind, strict=True):
        assert distance(moved, (a - b) / (2 * t)) < 1e-7
    assert masks == [None] * 3


def test_a_pyramid_whose_lift_supplies_a_blur_gains_it_when_the_picture_grows() -> None:
    """One-sided: L_s blurs such levels where it magnifies, and leaves that to the lift where it shrinks."""
    field, canvas, t = Pyramid((1.0, 0.5), stride=2.0, base_blur=0.5), Canvas(32, 24, 0.5), 1e-6
    features = [torch.rand(1, 2, 16 >> k, 12 >> k, dtype=torch.float64) for k in range(2)]
    tensors, _ = generate(field, features, canvas)
    ahead = field.act(features, math.exp(t), canvas).features
    without, _ = generate(Pyramid((1.0, 0.5), stride=2.0), features, canvas)
    for moved, plain, a, f in zip(tensors, without, ahead, features, strict=True):
        assert distance(moved, (a - f) / t) < 1e-4
        assert distance(plain, (a - f) / t) > 1e-3


def test_vectors_turn_as_their_finite_difference_and_are_masked_at_both_ends_of_the_range() -> None:
    step = 2 * math.pi / 21
    field, canvas, t = VectorField(1.26, step, (-4, 3)), Canvas(20, 20, SHARP), 1e-6
    levels = torch.tensor([-4, -3, 0, 2, 3], dtype=torch.float64)
    magnitude = blob(20)[0, 0] + 0.1
    features = torch.stack([torch.cos(levels * step), torch.sin(levels * step)])[:, :, None, None] * magnitude
    features = features.movedim(0, 1)[None]
    tensors, masks = generate(field, features, canvas)
    ahead, behind = (field.act(features, math.exp(sign * t), canvas).features[0] for sign in (1, -1))
    assert distance(tensors[0], (ahead - behind) / (2 * t)) < 1e-7
    assert masks[0] is not None
    assert masks[0][0, :, 0, 10, 10].tolist() == [False, True, True, True, False]


def test_a_still_vector_is_known() -> None:
    field = VectorField(1.26, 0.3, (-4, 3))
    _, masks = generate(field, torch.zeros(1, 1, 2, 6, 6), Canvas(6, 6))
    assert masks[0] is not None
    assert bool(masks[0].all())


def test_invariant_features_do_not_move() -> None:
    tensors, masks = generate(Invariant(), torch.rand(2, 10), Canvas(8, 8))
    assert torch.equal(tensors[0], torch.zeros(2, 10))
    assert masks == [None]


class TestScaleSpace:
    """(L_s F)(σ, x) = F(σ/s, x/s), so the generator is −∂/∂log σ − x·∇."""

    scales = (1.0, 1.3, 1.6, 2.5, 4.0)

    def test_the_level_derivative_is_exact_for_parabolas_on_any_lattice(self) -> None:
        logs = np.log(np.asarray(self.scales))
        values = 2 + 3 * logs - 0.5 * logs**2
        below, here, above = level_weights(self.scales)
        slopes = below * values[:-2] + here * values[1:-1] + above * values[2:]
        np.testing.assert_allclose(slopes, (3 - logs)[1:-1], atol=1e-12)

    def test_the_sign_is_that_of_the_action(self) -> None:
        # F = log σ everywhere: L_sF = log σ − log s, whose derivative by log s is −1
        features = torch.tensor(self.scales, dtype=torch.float64).log()[None, None, :, None, None]
        features = features.expand(1, 1, 5, 81, 81).contiguous()
        (moved,), (mask,) = generate(ScaleSpace(self.scales), features, Canvas(81, 81))
        assert mask is not None
        assert mask.flatten().tolist() == [False, True, True, True, False]
        assert moved[0, 0, 1:-1, 40, 40].tolist() == pytest.approx([-1.0] * 3, abs=1e-4)
        assert moved[0, 0, [0, -1]].abs().max() == 0

    def test_it_is_the_derivative_of_the_action(self) -> None:
        # a factor of one step of the lattice only shifts the levels, so nothing is interpolated between them
        h = 0.03
        scales = tuple(math.exp(h * k) for k in range(5))
        field, canvas = ScaleSpace(scales), Canvas(40, 40, SHARP)
        features = torch.stack([blob(40, 0.08 * scale) / scale for scale in scales], dim=2)
        ahead, behind = (field.act(features, math.exp(sign * h), canvas) for sign in (1, -1))
        assert ahead.on_lattice
        (moved,), _ = generate(field, features, canvas)
        difference = (ahead.features[0] - behind.features[0]) / (2 * h)
        assert distance(moved[:, :, 1:-1], difference[:, :, 1:-1]) < 2e-3
        assert distance(generate_plane(features, canvas)[:, :, 1:-1], difference[:, :, 1:-1]) > 0.2

    def test_truncated_levels_are_neither_used_nor_compared(self) -> None:
        features = torch.rand(1, 1, 5, 9, 9)
        (moved,), (mask,) = generate(ScaleSpace(self.scales, truncated=1), features, Canvas(9, 9))
        (again,), _ = generate(ScaleSpace(self.scales[:4]), features[:, :, :4], Canvas(9, 9))
        assert mask is not None
        assert mask.flatten().tolist() == [False, True, True, False, False]
        assert torch.allclose(moved[:, :, 1:3], again[:, :, 1:3])

    def test_a_level_that_is_not_finite_does_not_spread_over_the_stack(self) -> None:
        features = torch.rand(1, 1, 5, 9, 9)
        features[:, :, 4] = math.nan
        (moved,), (mask,) = generate(ScaleSpace(self.scales, truncated=1), features, Canvas(9, 9))
        assert mask is not None
        assert torch.isfinite(torch.where(mask, moved, 0.0)).all()

    @pytest.mark.parametrize("levels", [1, 2])
    def test_fewer_than_three_levels_are_not_known(self, levels: int) -> None:
        features = torch.rand(1, 1, levels, 9, 9)
        _, (mask,) = generate(ScaleSpace(self.scales[:levels]), features, Canvas(9, 9))
        assert mask is not None
        assert not mask.any()

    def test_extra_axes_ride_along(self) -> None:
        features = torch.rand(2, 3, 5, 4, 9, 9, dtype=torch.float64)
        (whole,), _ = generate(ScaleSpace(self.scales), features, Canvas(9, 9))
        (part,), _ = generate(ScaleSpace(self.scales), features[:, :, :, 2], Canvas(9, 9))
        assert torch.allclose(whole[:, :, :, 2], part)


class TestBaseBlur:
    """A lift whose level 0 is the picture: the picture's blur scales with it, so the features diffuse, too."""

    z = 1.5
    lift = ScaleSpaceLift(base=1.05, z=z, levels=9, dtype=torch.float64)
    scales = tuple(1.05**k for k in range(9))

    def mismatch(self, field: ScaleSpace, sign: float = 1.0) -> float:
        picture = blob(56)
        (moved,), (mask,) = generate(field, self.lift(picture), Canvas(56, 56))
        assert mask is not None
        direct = self.lift(sign * generate_image(picture))
        return float(torch.where(mask, moved - direct, 0.0).norm() / torch.where(mask, direct, 0.0).norm())

    def test_the_lift_moves_as_its_field_says_and_broken_fields_do_not(self) -> None:
        right = self.mismatch(ScaleSpace(self.scales, base_blur=self.z))
        assert right < 2e-3
        assert self.mismatch(ScaleSpace(self.scales)) > 20 * right
        assert self.mismatch(ScaleSpace(tuple(1.2**k for k in range(9)), base_blur=self.z)) > 20 * right
        assert self.mismatch(ScaleSpace(self.scales, base_blur=self.z), sign=-1) > 1

    def test_the_plane_moves_as_the_action_of_a_growing_picture(self) -> None:
        canvas, t = Canvas(28, 28, SHARP), 1e-6
        features = torch.rand(1, 1, 14, 14, dtype=torch.float64)
        grown = rescale_plane(features, math.exp(t), canvas, 2.0, None, self.z)
        moved = generate_plane(features, canvas, 2.0, None, self.z)
        assert distance(moved, (grown - features) / t) < 1e-4

    @pytest.mark.parametrize("factor", [1.05, 1.05**2])
    def test_the_action_of_a_growing_picture_is_right_at_every_level(self, factor: float) -> None:
        picture, canvas = blob(56, 0.1), Canvas(56, 56, self.z)
        actual = self.lift(rescale(picture, factor, self.z))

        def reading(field: ScaleSpace) -> float:
            acted = field.act(self.lift(picture), factor, canvas)
            (expected,), (mask,) = acted.features, acted.masks
            assert mask is not None
            return float(torch.where(mask, expected - actual, 0.0).norm() / expected.norm())

        right, wrong = (reading(ScaleSpace(self.scales, base_blur=z)) for z in (self.z, 0.0))
        assert wrong > 10 * right


@pytest.mark.parametrize(
    ("field", "features", "error", "message"),
    [
        (ScaleSpace((1, 2)), torch.rand(1, 3, 9, 9), ValueError, "a scale space of 2 levels is"),
        (VectorField(1.2, 0.3, (0, 1)), torch.rand(1, 3, 9, 9), ValueError, "a vector field is"),
        (Pyramid((1.0,)), torch.rand(1, 3, 9, 9), ValueError, "a list of that many tensors"),
        (Plane(), [torch.rand(1, 1, 4, 4)], ValueError, "acts on one tensor"),
    ],
)
def test_features_of_another_shape_are_refused(
    field: Field, features: Tensor | list[Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        generate(field, features, Canvas(9, 9))


def test_a_field_without_a_generator_is_named() -> None:
    class Unheard(Field):
        def act(
            self, features: Tensor | list[Tensor], factor: float, canvas: Canvas, steps: int = 1
        ) -> Acted:
            return Acted([], [])

    with pytest.raises(TypeError, match="the generator of the field 'Unheard' is not known"):
        generate(Unheard(), torch.rand(1), Canvas(5, 5))
