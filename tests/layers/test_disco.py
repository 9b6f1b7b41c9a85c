from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional

from secli.action import images as scaling
from secli.action.fields import Canvas, ScaleSpace
from secli.layers import disco
from secli.layers.basis_cache import cached_array
from secli.layers.disco import disco_basis, proxies
from secli.layers.disco_fit import Images, cubic_convolution, fit_proxies, impulses
from secli.layers.hermite import Basis, basis_a, basis_b
from secli.layers.ses import SESConv, SESLift

Array = NDArray[np.float64]

MNIST = (15, (1.0, 1.26, 1.59, 2.0), 7)  # Sosnovik et al. 2021: size, scales, effective size
STL10 = (5, (1.0, 1.41, 2.0), 3)


def relative(ours: Array, theirs: Array) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


# the literal problem: random pictures, filtered with circular padding, then shrunk


def pictures(count: int, n: int, blur: float, seed: int) -> Array:
    """White noise, blurred around the edges by a Gaussian."""
    noise = np.random.default_rng(seed).standard_normal((count, n, n))
    frequency = 2 * np.pi * np.fft.fftfreq(n)
    line = np.exp(-((frequency * blur) ** 2) / 2)
    return np.asarray(np.fft.ifft2(np.fft.fft2(noise) * np.outer(line, line)).real)


def shrunk(picture: Array, ratio: float) -> Array:
    """R: every ``ratio``-th pixel of the interpolating cubic spline about the centre, as far as it goes."""
    n = picture.shape[-1]
    cells = int((n - 1) / ratio) + 1
    axis = (n - 1) / 2 + ratio * (np.arange(cells) - (cells - 1) / 2)
    where = np.stack(np.meshgrid(axis, axis, indexing="ij"))
    return np.asarray(map_coordinates(picture, where, order=3, mode="grid-wrap"))


def filtered(picture: Array, row: int, column: int) -> Array:
    """x ⋆ δ: one tap of a filter, the picture continued around its edges."""
    return np.roll(picture, (-row, -column), axis=(0, 1))


def equations(
    size: int, scales: tuple[float, ...], e: int, count: int, n: int, blur: float, seed: int
) -> tuple[Array, Array]:
    """One row per pixel and pair of scales: what the free taps contribute, and what the fixed ones must give."""
    free = [k for k, scale in enumerate(scales) if scale != int(scale)]
    reach, margin = size // 2, size // 2 + 1
    taps = list(itertools.product(range(-reach, reach + 1), repeat=2))
    cells = list(itertools.product(range(-(e // 2), e // 2 + 1), repeat=2))
    lines, right = [], []
    for x in pictures(count, n, blur, seed):
        for i, j in itertools.combinations(range(len(scales)), 2):
            if i not in free and j not in free:
                continue
            ratio = scales[j] / scales[i]
            inner = shrunk(x, ratio)[margin:-margin, margin:-margin].shape
            line = np.zeros((*inner, len(free), len(taps)))
            value = np.zeros((*inner, len(cells)))
            for k, sign in ((j, 1), (i, -1)):
                for t, (row, column) in enumerate(taps if k in free else cells):
                    if k not in free:
                        row, column = row * int(scales[k]), column * int(scales[k])
                    y = (
                        shrunk(filtered(x, row, column), ratio)
                        if k == j
                        else filtered(shrunk(x, ratio), row, column)
                    )
                    y = sign * y[margin:-margin, margin:-margin]
                    if k in free:
                        line[..., free.index(k), t] = y
                    else:
                        value[..., t] = -y
            # means over pixels, so that a pair does not weigh less because its pictures are smaller
            weight = 1 / np.sqrt(count * inner[0] * inner[1])
            lines.append(weight * line.reshape(-1, len(free) * len(taps)))
            right.append(weight * value.reshape(-1, len(cells)))
    return np.concatenate(lines), np.concatenate(right)


SMALL = (5, (1.0, 1.3, 1.7), 3)  # two free scales, which one equation ties to each other


@cache
def sampled(count: int, seed: int) -> tuple[Array, Array]:
    return equations(*SMALL, count, 48, 0.8, seed)


def unknowns(kernels: Array) -> Array:
    return np.asarray(kernels[1:].transpose(0, 2, 3, 1).reshape(-1, kernels.shape[1]))


def solved(design: Array, target: Array) -> Array:
    return np.asarray(np.linalg.lstsq(design, target, rcond=None)[0], dtype=np.float64)


def test_the_blurred_fit_is_what_more_and_more_random_pictures_tend_to() -> None:
    ours = unknowns(fit_proxies(*SMALL, images="blurred"))
    distances = []
    for count in (4, 32):
        distances.append(relative(solved(*sampled(count, 0)), ours))
    assert distances[1] < 0.02
    assert distances[1] < 0.6 * distances[0]  # eight times the pictures: about a third


def test_no_other_kernels_commute_better_on_blurred_pictures() -> None:
    fresh, wanted = sampled(8, 1)

    def left(solution: Array) -> float:
        return float(((fresh @ solution - wanted) ** 2).sum())

    ours = unknowns(fit_proxies(*SMALL, images="blurred"))
    assert left(ours) < 1.001 * left(solved(*sampled(32, 0)))
    for seed in range(5):
        away = 0.02 * np.random.default_rng(seed).standard_normal(ours.shape)
        assert left(ours + away) > left(ours)
    # each scale fitted alone, to the impulses, forgets that the two must agree
    apart = np.concatenate([unknowns(fit_proxies(5, (1.0, scale), 3, "blurred")) for scale in SMALL[1][1:]])
    assert left(ours) < left(apart)


# the literal problem on white noise: torch's bicubic interpolation, a sum of norms


@cache
def pairs_of_noise(count: int, n: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """The equations of every pair, over the noise of ``count`` pictures: taps · unknowns ≈ impulses.

    As their triangular form, which has the same norm for every choice of the unknowns.
    """
    size, scales, e = SMALL
    free = [k for k, scale in enumerate(scales) if scale != int(scale)]
    margin = size // 2 + 1
    taps = list(itertools.product(range(-(size // 2), size // 2 + 1), repeat=2))
    cells = list(itertools.product(range(-(e // 2), e // 2 + 1), repeat=2))
    x = torch.rand(count, 1, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def shrink(y: Tensor, ratio: float) -> Tensor:
        return functional.interpolate(
            y, scale_factor=1 / ratio, mode="bicubic", align_corners=False, recompute_scale_factor=False
        )

    found = []
    for i, j in itertools.combinations(range(len(scales)), 2):
        ratio = scales[j] / scales[i]
        line: dict[int, list[Tensor]] = {k: [] for k in (i, j)}
        for k in (i, j):
            for shift in taps if k in free else cells:
                back = (-shift[0], -shift[1])
                y = shrink(x.roll(back, (2, 3)), ratio) if k == j else shrink(x, ratio).roll(back, (2, 3))
                line[k].append(y[..., margin:-margin, margin:-margin].flatten())
        sides = {k: torch.stack(each, 1) * (1 if k == j else -1) for k, each in line.items()}
        design = torch.zeros(len(sides[j]), len(free) * size**2, dtype=torch.float64)
        target = torch.zeros(len(sides[j]), e**2, dtype=torch.float64)
        for k, side in sides.items():
            if k in free:
                design[:, free.index(k) * size**2 : (free.index(k) + 1) * size**2] = side
            else:
                target -= side
        triangle = torch.linalg.qr(torch.cat([design, target], 1), mode="r").R
        found.append((triangle[:, : design.shape[1]], triangle[:, design.shape[1] :]))
    return found


def sum_of_norms(pairs: list[tuple[Tensor, Tensor]], solution: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for design, target in pairs:
        total = total + (design @ solution - target).norm()
    return total


def test_the_fit_on_noise_minimises_the_published_sum_of_norms() -> None:
    """Against a general optimiser on the literal objective, which knows neither closed forms nor weights."""
    pairs = pairs_of_noise(24, 96, 0)
    solution = torch.zeros(50, 9, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([solution], max_iter=400, history_size=50, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = sum_of_norms(pairs, solution)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    ours = torch.from_numpy(unknowns(fit_proxies(*SMALL)))
    theirs = solution.detach()
    assert relative(ours.numpy(), theirs.numpy()) < 0.02
    blurred = unknowns(fit_proxies(*SMALL, images="blurred"))
    assert relative(blurred, theirs.numpy()) > 0.15
    fresh = pairs_of_noise(8, 96, 1)
    assert sum_of_norms(fresh, ours) < 1.001 * sum_of_norms(fresh, theirs)


def test_the_fit_on_noise_gives_the_published_basis() -> None:
    """The functions that the published code was run with, at 1.41: within .4 %; on blurred pictures 13 %."""
    with np.load(Path(__file__).parent.parent / "golden" / "wide_resnets.npz") as file:
        published = file["disco_basis"].astype(np.float64)
    noise, blurred = (disco_basis(*STL10, 0.9, images=images).padded() for images in ("noise", "blurred"))
    for k, (near, far) in enumerate([(1e-7, 0.0), (0.005, 0.1), (1e-7, 0.0)]):
        assert relative(noise[:, k], published[:, k]) < near
        assert relative(blurred[:, k], published[:, k]) > far


@pytest.mark.parametrize(("blur", "apart"), [(0.8, (0.22, 0.37)), (0.3, (0.065, 0.14))])
def test_kernels_fitted_on_blurred_pictures_are_known_to_differ(
    blur: float, apart: tuple[float, float]
) -> None:
    """As measured against the published fit of the bases for MNIST, at 1.26 and 1.59."""
    noise, blurred = fit_proxies(*MNIST), fit_proxies(*MNIST, images="blurred", blur=blur)
    for k, share in zip((1, 2), apart, strict=True):
        assert relative(blurred[k], noise[k]) == pytest.approx(share, abs=0.006)


def test_cubic_convolution_is_that_of_torch() -> None:
    line = torch.rand(1, 1, 1, 40, dtype=torch.float64)
    read = functional.interpolate(
        line, scale_factor=(1.0, 1 / 1.3), mode="bicubic", align_corners=False, recompute_scale_factor=False
    )[0, 0, 0]
    places = (np.arange(len(read), dtype=np.float64) + 0.5) * 1.3 - 0.5
    away: Array = places[:, None] - np.arange(40, dtype=np.float64)
    ours = cubic_convolution(away) @ line[0, 0, 0].numpy()
    np.testing.assert_allclose(ours[2:-2], read.numpy()[2:-2], atol=1e-12)


def test_a_single_impulse_commutes_exactly() -> None:
    """Its kernel is the impulse itself; the norm that would be divided by is zero."""
    assert np.allclose(fit_proxies(5, (1.0, 1.3, 1.7), 1)[:, 0], impulses(5, 1, 1)[0])


@pytest.mark.parametrize("images", ["noise", "blurred"])
def test_the_number_of_cells_hardly_matters(images: Images) -> None:
    reference = fit_proxies(*MNIST, images)
    for cells in (32, 128):
        assert relative(fit_proxies(*MNIST, images, cells=cells), reference) < 0.004


def test_the_fit_does_not_depend_on_threads() -> None:
    case = (9, MNIST[1], 3)
    with threadpool_limits(1):
        one = fit_proxies(*case)
    with threadpool_limits(2):
        two = fit_proxies(*case)
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-12)


def test_mirrored_impulses_have_mirrored_kernels() -> None:
    kernels = fit_proxies(*SMALL).reshape(3, 3, 3, 5, 5)
    np.testing.assert_allclose(kernels[:, ::-1, :, ::-1], kernels, atol=1e-12)
    np.testing.assert_allclose(kernels.transpose(0, 2, 1, 4, 3), kernels, atol=1e-12)


@pytest.mark.parametrize(("images", "left"), [("noise", 0.12), ("blurred", 0.05)])
def test_each_kernel_moves_the_picture_by_its_scaled_impulse(images: Images, left: float) -> None:
    """Σ κ = 1 and Σ z κ = s p, nearly: constants and ramps are filtered as the impulse would."""
    size, scales, e = MNIST
    kernels = fit_proxies(*MNIST, images).reshape(len(scales), e, e, size, size)
    axis = np.arange(size) - size // 2
    impulse = np.arange(e) - e // 2
    for k, scale in enumerate(scales):
        np.testing.assert_allclose(kernels[k].sum((-1, -2)), 1, atol=0.01)
        rows = (kernels[k].sum(-1) * axis).sum(-1)
        np.testing.assert_allclose(rows, scale * np.repeat(impulse[:, None], e, 1), atol=left)


# whole scales


@given(scale=st.integers(1, 3), half=st.integers(0, 2), more=st.integers(0, 2))
def test_impulses_at_a_whole_scale_are_those_of_the_dilated_grid(scale: int, half: int, more: int) -> None:
    e, size = 2 * half + 1, 2 * (half * scale + more) + 1
    kernels = impulses(size, e, scale)
    assert kernels.shape == (e**2, size, size)
    for p, (row, column) in enumerate(itertools.product(range(e), repeat=2)):
        ((i, j),) = np.argwhere(kernels[p])
        assert (i - size // 2, j - size // 2) == (scale * (row - half), scale * (column - half))
        assert kernels[p, i, j] == 1


@pytest.mark.parametrize("case", [MNIST, STL10])
def test_whole_scales_are_the_dilated_impulses_beside_fitted_ones(
    case: tuple[int, tuple[float, ...], int],
) -> None:
    size, scales, e = case
    fitted = proxies(size, scales, e)
    assert np.array_equal(fitted[0], impulses(size, e, 1))
    assert np.array_equal(fitted[-1], impulses(size, e, 2))


def subsampling_error(basis: Basis) -> float:
    """‖(x ⋆ ψ^2) read at every second pixel − x read at every second pixel ⋆ ψ^1‖, relative, inside."""
    x = torch.randn(1, 1, 65, 65, dtype=torch.float64)
    kernels = torch.from_numpy(basis.padded())
    first, second = kernels[:, :1], kernels[:, -1:]
    padding = basis.size // 2
    fine = functional.conv2d(x, second, padding=padding)[..., ::2, ::2]
    coarse = functional.conv2d(x[..., ::2, ::2], first, padding=padding)
    inner = slice(padding, -padding)
    fine, coarse = fine[..., inner, inner], coarse[..., inner, inner]
    return float((fine - coarse).norm() / coarse.norm())


def test_at_ratio_two_filtering_and_subsampling_commute_exactly() -> None:
    """On white noise, that is, whatever the picture; a Hermite basis sampled at both scales does not."""
    size, scales, e = MNIST
    assert subsampling_error(disco_basis(*MNIST, 1.9, "B", 1.5)) < 1e-14
    assert subsampling_error(basis_b(size, [1.9 * s for s in scales], e, 1.5)) > 0.1
    assert subsampling_error(disco_basis(*STL10, 0.9)) < 1e-14
    assert subsampling_error(basis_a(5, [0.9 * s for s in STL10[1]], 3)) > 0.1


def test_a_grid_wider_than_the_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="5 taps at scale 2 do not fit in a kernel of size 7"):
        impulses(7, 5, 2)


# the basis


@pytest.mark.parametrize("kind", ["A", "B"])
def test_the_basis_is_the_formula(kind: disco.Kind) -> None:
    size, scales, e = STL10
    basis = disco_basis(size, scales, e, 0.9, kind, 1.7, 2)
    grid = basis_a(3, [0.9], 3) if kind == "A" else basis_b(3, [0.9], 3, 1.7, 2)
    kernels = proxies(size, scales, e)
    expected = np.zeros((9, 3, size, size))
    for b, k in itertools.product(range(9), range(3)):
        for p, (row, column) in enumerate(itertools.product(range(3), repeat=2)):
            expected[b, k] += grid.functions[0][b, row, column] * kernels[k, p]
        expected[b, k] /= np.sqrt((grid.functions[0][b] ** 2).sum())
    np.testing.assert_allclose(basis.padded(), expected, atol=1e-12)


def test_published_bases_are_cropped_to_their_supports() -> None:
    mnist = disco_basis(*MNIST, 1.9, "B", 1.5)
    assert (mnist.count, mnist.scales, mnist.sides) == (49, MNIST[1], (7, 15, 15, 13))
    assert disco_basis(*STL10, 0.9).sides == (3, 5, 5)
    full = proxies(*MNIST)
    for k, function in enumerate(mnist.functions):
        np.testing.assert_allclose((function**2).sum(), (mnist.padded()[:, k] ** 2).sum())
        assert np.abs(full[k]).sum() > 0
    np.testing.assert_allclose((mnist.functions[0] ** 2).sum(axis=(1, 2)), 1)


@given(stride=st.integers(1, 2), padding=st.integers(0, 3), seed=st.integers(0, 99))
@settings(max_examples=10)
def test_the_steerable_layers_take_it(stride: int, padding: int, seed: int) -> None:
    torch.manual_seed(seed)
    basis = disco_basis(*STL10, 0.9)
    lift = SESLift(2, 3, basis, stride, padding, dtype=torch.float64)
    conv = SESConv(3, 2, basis, 2, 1, 2, dtype=torch.float64)
    full = torch.from_numpy(basis.padded())
    x = torch.randn(1, 2, 11, 12, dtype=torch.float64)
    kernels = torch.einsum("oib,bsxy->soixy", lift.weight, full)
    expected = torch.stack([functional.conv2d(x, kernel, None, stride, padding) for kernel in kernels], 2)
    torch.testing.assert_close(lift(x), expected)
    levels = lift(x)
    kernels = torch.einsum("oijb,bsxy->sjoixy", conv.weight, full)
    for k in range(3):
        y = sum(
            functional.conv2d(levels[:, :, k + j], kernels[k, j], padding=2) for j in range(2) if k + j < 3
        )
        torch.testing.assert_close(conv(levels)[:, :, k], y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, (1.0, 2.0), 3, 0.9), "the kernel size must be odd and positive, not 6"),
        ((7, (1.0, 2.0), 4, 0.9), "the effective size must be odd and positive, not 4"),
        ((7, (), 3, 0.9), "the scales must increase from 1"),
        ((7, (1.2, 2.0), 3, 0.9), "the scales must increase from 1, not .1.2, 2.0."),
        ((7, (1.0, 2.0, 1.5), 3, 0.9), "the scales must increase from 1"),
        ((7, (1.0, float("nan")), 3, 0.9), "the scales must increase from 1|do not fit"),
        ((7, (1.0, float("inf")), 3, 0.9), "3 taps at scale inf do not fit in a kernel of size 7"),
        ((5, (1.0, 2.2), 3, 0.9), "3 taps at scale 2.2 do not fit in a kernel of size 5"),
        ((5, (1.0, 2.0), 3, 0.9, "B", 1.0), "mult must be greater than 1, not 1"),
        ((5, (1.0, 2.0), 3, -1.0), "the scales must be positive"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        disco_basis(*arguments)  # type: ignore[arg-type]


# what it is for


def smooth_pictures(n: int = 48) -> Tensor:
    """Smooth noise that fades out towards the edges."""
    x = torch.from_numpy(pictures(6, n, 1.0, 7))[:, None]
    window = torch.exp(-(torch.linspace(-2.4, 2.4, n, dtype=torch.float64) ** 2))
    return x * torch.outer(window, window)


def digits(n: int = 48) -> Tensor:
    """Handwritten digits on black, each pixel made 4×4 smoothly."""
    raw = torch.from_numpy(load_digits().images[:12] / 16)[:, None]
    large = functional.interpolate(raw, scale_factor=4, mode="bicubic", align_corners=False)
    return functional.pad(large, ((n - 32) // 2,) * 4)


def error(basis: Basis, images: Tensor, factor: float) -> float:
    """Δ_s of one lift with random weights, no bias: mean over images of the relative squared error."""
    torch.manual_seed(0)
    n = images.shape[-1]
    lift = SESLift(1, 16, basis, padding=basis.size // 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        acted = ScaleSpace(basis.scales).act(lift(images), factor, Canvas(n, n))
        (left,), (mask,) = acted.features, acted.masks
        right = lift(scaling.rescale(images, factor))
    known = torch.ones_like(left) if mask is None else mask.expand_as(left)
    squares = ((left - right) ** 2 * known).flatten(1).sum(1) / (left**2 * known).flatten(1).sum(1)
    return float(squares.mean())


FACTORS = {"1/2": 0.5, "1/1.59": 1 / 1.59, "1/1.26": 1 / 1.26, "1.26": 1.26}


@pytest.mark.parametrize("images", [smooth_pictures, digits])
def test_equivariance_error_is_below_the_hermite_basis_at_the_same_sizes(
    images: Callable[[], Tensor],
) -> None:
    """One lift, same K, same ratios of scales, same functions at the first scale.

    A tenth is asked for. Measured on the digits, at 1/2, 1/1.59, 1/1.26 and 1.26: 1e-31, .0004, .0006, .0003,
    where the Hermite basis has .026, .011, .009, .007; on the smooth pictures at 1/1.26: .0012 and .042.
    """
    x = images()
    size, scales, e = MNIST
    ours = disco_basis(*MNIST, 1.9, "B", 1.5)
    hermite = basis_b(size, [1.9 * s for s in scales], e, 1.5)
    np.testing.assert_allclose(ours.functions[0], hermite.functions[0])
    for name, factor in FACTORS.items():
        low, high = error(ours, x, factor), error(hermite, x, factor)
        assert low < high / 10, f"{name}: {low} and {high}"


def test_the_same_on_the_basis_of_stl10() -> None:
    x = smooth_pictures()
    ours, hermite = disco_basis(*STL10, 0.9), basis_a(5, [0.9 * s for s in STL10[1]], 3)
    for name, factor in {"1/2": 0.5, "1/1.41": 1 / 1.41, "1.41": 1.41}.items():
        low, high = error(ours, x, factor), error(hermite, x, factor)
        assert low < high / 10, f"{name}: {low} and {high}"


def test_impulses_at_the_nearest_pixel_are_no_substitute_for_the_fit() -> None:
    """The control: a grid dilated by rounding is far from commuting between whole scales."""
    x = smooth_pictures()
    size, scales, _ = MNIST
    basis = disco_basis(*MNIST, 1.9, "B", 1.5)
    rounded = []
    for k, scale in enumerate(scales):
        function = np.zeros((basis.count, size, size))
        for row, column in itertools.product(range(-3, 4), repeat=2):
            place = size // 2 + round(scale * row), size // 2 + round(scale * column)
            function[:, place[0], place[1]] += basis.functions[0][:, row + 3, column + 3]
        rounded.append(function)
        assert k not in (0, 3) or np.allclose(function, basis.padded()[:, k])
    control = Basis(size, scales, tuple(rounded))
    assert error(control, x, 1 / 1.26) > 10 * error(basis, x, 1 / 1.26)


# the cache


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the fits, with nothing kept in memory."""
    calls: list[int] = []

    def fit(size: int, scales: tuple[float, ...], e: int, images: Images) -> Array:
        calls.append(size)
        return fit_proxies(size, scales, e, images)

    proxies.cache_clear()
    monkeypatch.setattr(disco, "fit_proxies", fit)
    yield calls
    proxies.cache_clear()


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_basis_is_fitted_once_and_read_from_disk_after(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as calls:
        first = proxies(*STL10)
        assert proxies(*STL10) is first
        assert calls == [5]
        (file,) = (fresh / "disco").iterdir()
        proxies.cache_clear()
        again = proxies(*STL10)
        assert calls == [5]
        assert np.array_equal(again, first)
        proxies(5, (1.0, 1.5, 2.0), 3)
        proxies(*STL10, "blurred")
        assert calls == [5, 5, 5]
        assert len(list((fresh / "disco").iterdir())) == 3
        assert file.is_file()


def test_whole_scales_written_as_integers_are_the_same_basis(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as calls:
        one, two = disco_basis(5, (1, 1.41, 2), 3, 0.9), disco_basis(5, [1.0, 1.41, 2.0], 3, 0.9)
    assert calls == [5]
    assert one.scales == two.scales
    assert all(np.array_equal(a, b) for a, b in zip(one.functions, two.functions, strict=True))


def test_what_is_kept_cannot_be_changed_by_accident(fresh: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        proxies(*STL10)[0] = 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100],
        lambda content: b"",
        lambda content: content.replace(b"\n", b"", 1),
        lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
        lambda content: b"0" * 64 + content[64:],
    ],
)
def test_a_damaged_file_is_computed_anew(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    with counted(monkeypatch) as calls:
        first = proxies(*STL10)
        (file,) = (fresh / "disco").iterdir()
        whole = file.read_bytes()
        file.write_bytes(damage(whole))
        proxies.cache_clear()
        assert np.array_equal(proxies(*STL10), first)
        assert calls == [5, 5]
        assert file.read_bytes() == whole


def test_a_file_of_other_parameters_is_not_taken(fresh: Path) -> None:
    one = cached_array("some", {"a": 1}, lambda: np.ones(3))
    (file,) = (fresh / "some").iterdir()
    content = file.read_bytes()
    two = cached_array("some", {"a": 2}, lambda: np.full(3, 2.0))
    other = next(path for path in (fresh / "some").iterdir() if path != file)
    other.write_bytes(content)
    assert np.array_equal(cached_array("some", {"a": 2}, lambda: np.full(3, 2.0)), two)
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("place", ["a file", "no disk space", "nowhere"])
def test_a_cache_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "a file":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "file" / "below"))
    elif place == "nowhere":

        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr("secli.layers.basis_cache.cache_directory", homeless)
    else:
        monkeypatch.setenv("SECLI_CACHE", str(tmp_path))

        def full(path: Path, content: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(2):
        assert np.array_equal(cached_array("some", {}, lambda: np.arange(4.0)), np.arange(4.0))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


def test_the_cache_is_filled_from_several_processes_at_once_without_harm(fresh: Path) -> None:
    """A file half-written by another is another file: only whole ones stand under the name."""
    (fresh / "some").mkdir(parents=True)
    cached_array("some", {}, lambda: np.ones(5))
    (file,) = (fresh / "some").iterdir()
    (fresh / "some" / f".{file.name}.1.tmp.npy").write_bytes(b"half")
    assert np.array_equal(cached_array("some", {}, lambda: np.zeros(5)), np.ones(5))


def test_a_changed_setting_is_another_key(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as calls:
        proxies(*STL10)
        monkeypatch.setattr(disco, "FIT_VERSION", disco.FIT_VERSION + 1)
        proxies.cache_clear()
        proxies(*STL10)
        assert calls == [5, 5]
