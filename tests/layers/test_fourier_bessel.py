from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import jv

from secli.action.fields import Canvas, ScaleSpace
from secli.action.images import rescale
from secli.layers import SESLift
from secli.layers.fourier_bessel import basis_fourier_bessel, fourier_bessel, smoothest_modes
from tests.layers.test_gaussian_derivative import blobs

RADII = (2.5, 2.5 * math.sqrt(2), 5.0, 5.0 * math.sqrt(2))


def test_functions_are_orthonormal_on_the_disc() -> None:
    """By a sum over rings and angles, whose error falls with the square of the step."""
    rings, angles = 600, 64
    r = (np.arange(rings) + 0.5) / rings
    theta = 2 * np.pi * np.arange(angles) / angles
    y, x = r[:, None] * np.sin(theta), r[:, None] * np.cos(theta)
    functions = np.stack([fourier_bessel(mode, y, x) for mode in smoothest_modes(14)])
    weights = r[:, None] * (2 * np.pi / angles / rings)
    gram = np.einsum("ayx,byx,yx->ab", functions, functions, np.broadcast_to(weights, y.shape))
    np.testing.assert_allclose(gram, np.eye(14), atol=1e-4)


def test_modes_are_zeros_of_bessel_functions_in_their_order() -> None:
    modes = smoothest_modes(40)
    frequencies = [mode.frequency for mode in modes]
    assert frequencies == sorted(frequencies)
    assert len(set(modes)) == 40
    for mode in modes:
        assert jv(mode.order, mode.frequency) == pytest.approx(0, abs=1e-10)
    # none is left out: J_m changes its sign below the last frequency as often as there are modes of it
    for order in range(12):
        line = jv(order, np.arange(0.5, frequencies[-2] + 1e-6, 1e-3))
        crossings = int((np.sign(line[1:]) != np.sign(line[:-1])).sum())
        known = sum(mode.order == order and not mode.sine for mode in modes)
        assert known >= crossings, order


def test_a_function_is_an_eigenfunction_of_the_laplacian() -> None:
    step = 1e-3
    y, x = np.array([0.2, -0.35, 0.1]), np.array([0.15, 0.3, -0.5])
    for mode in smoothest_modes(10):
        near = sum(
            fourier_bessel(mode, y + dy, x + dx) for dy, dx in ((step, 0), (-step, 0), (0, step), (0, -step))
        )
        here = fourier_bessel(mode, y, x)
        np.testing.assert_allclose(
            (near - 4 * here) / step**2, -(mode.frequency**2) * here, rtol=0, atol=5e-3
        )


def test_sampled_functions_are_the_formula() -> None:
    basis = basis_fourier_bessel((2.5, 4.0), 6)
    assert basis.sides == (5, 7)
    for k, radius in enumerate(basis.scales):
        side = basis.sides[k]
        for b, mode in enumerate(smoothest_modes(6)):
            for i in range(side):
                for j in range(side):
                    y, x = (i - side // 2) / radius, (j - side // 2) / radius
                    value = fourier_bessel(mode, np.array(y), np.array(x)) * 2.5 / radius**2
                    assert basis.functions[k][b, i, j] == pytest.approx(float(value), abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_shrunk_picture_moves_down_the_levels(steps: int) -> None:
    torch.manual_seed(0)
    basis = basis_fourier_bessel(RADII, 6)
    layer = SESLift(1, 8, basis, padding=basis.size // 2, bias=False).double()
    picture, factor = blobs(48), 2 ** (-steps / 2)
    with torch.no_grad():
        actual = layer(rescale(picture, factor))
        acted = ScaleSpace(RADII).act(layer(picture), factor, Canvas(48, 48))
        still = ScaleSpace(RADII).act(layer(picture).roll(-steps, 2), factor, Canvas(48, 48))
    known = slice(0, 4 - steps)

    def off(expected: torch.Tensor) -> float:
        return float((actual - expected)[:, :, known].norm() / expected[:, :, known].norm()) ** 2

    assert off(acted.features[0]) < 0.06
    # the control: another level
    assert off(still.features[0]) > 3 * off(acted.features[0])


def test_bad_bases_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one function, not 0"):
        smoothest_modes(0)
    for radii in ((), (1.0, 2.0), (3.0, 2.0)):
        with pytest.raises(ValueError, match="radii must be above 1 and increasing"):
            basis_fourier_bessel(radii, 3)
