"""Windows of photographs: the world goes on around them, so that no frame appears and nothing is cut."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from secli.action.fields import Field, Invariant, Plane, ScaleSpace
from secli.action.images import SPLINE_MARGIN, centre_crop, rescale, window
from secli.config import MeasureSettings
from secli.datasets.photographs import Photographs, WindowRequest, photographs_of, scaled_photograph
from secli.datasets.pictures import are_large_enough, open_pictures
from secli.equivariance.controls import OneTap
from secli.equivariance.curves import Curves, measure_curves
from secli.equivariance.enlargement import enlargement, taps_that_grow
from secli.equivariance.measure import measure
from secli.errors import InputError
from secli.models.contract import Features, Stage, StagedModel

SCALES = tuple(2 ** (k / 2) for k in range(4))


def photographs(count: int = 4, side: int = 200, seed: int = 0) -> Tensor:
    """Return pictures with the spectrum of photographs, 1/f, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(count, 1, side, side, generator=generator, dtype=torch.float64)
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)
    radius = torch.hypot(frequency[:, None], frequency[None, :]).clamp_min(1 / side)
    found = torch.fft.ifft2(torch.fft.fft2(white) / radius).real
    low, high = found.amin((1, 2, 3), keepdim=True), found.amax((1, 2, 3), keepdim=True)
    scaled: Tensor = ((found - low) / (high - low)).float()
    return scaled


class Differences(nn.Module):
    """Differences of Gaussians at the scales: exactly equivariant but for the grid."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.ones(1))
        self.stages: list[tuple[str, nn.Module]] = []
        self.taps: dict[str, Field] = {
            "dog": ScaleSpace(SCALES, stride=float(stride), origin=0.0),
            "logits": Invariant(),
        }

    def features(self, images: Tensor) -> dict[str, Features]:
        levels = []
        for scale in SCALES:
            sigma = 1.2 * scale * max(1.0, 0.8 * self.stride)  # wide enough for the cells
            radius = math.ceil(8 * sigma)
            x = torch.arange(-radius, radius + 1, dtype=images.dtype)
            inner, outer = (torch.exp(-(x**2) / (2 * s**2)) for s in (sigma, sigma * math.sqrt(2)))
            blurred = []
            for line in (inner / inner.sum(), outer / outer.sum()):
                rows = functional.conv2d(
                    images, line[None, None, :, None], padding=(radius, 0), stride=(self.stride, 1)
                )
                blurred.append(
                    functional.conv2d(
                        rows, line[None, None, None], padding=(0, radius), stride=(1, self.stride)
                    )
                )
            levels.append(blurred[0] - blurred[1])
        features = torch.stack(levels, 2) * self.weight
        return {"dog": features, "logits": features.flatten(1).abs().mean(1, keepdim=True)}

    def forward(self, images: Tensor) -> Tensor:
        logits = self.features(images)["logits"]
        assert isinstance(logits, Tensor)
        return logits


def means(curves: Curves, tap: str) -> dict[float, float | None]:
    return {row.factor: row.mean for row in curves.rows if row.tap == tap}


def measured(model: Any, pictures: Tensor, side: int, **changes: Any) -> Curves:
    """Measure a network on windows of photographs, enlarged as far as it sees."""
    settings = MeasureSettings(surround="photo", images=len(pictures), **changes)
    factors = settings.factors or (1.0,)
    shape = (pictures.shape[1], side, side)
    taps = {tap: model.taps[tap] for tap in settings.taps or model.taps}
    found = enlargement(model, taps, shape, factors, settings.smallest_plane)
    large = photographs_of(pictures, WindowRequest((side, side), min(factors), found.pixels, found.step))
    return measure_curves(model, large.windows, settings, photographs=large)


# --- L_s on windows ---


def test_a_window_is_the_picture_s_own_pixels_and_shows_more_of_the_world_when_it_shrinks() -> None:
    photograph = photographs(1, 90)
    assert torch.equal(window(photograph, (30, 40), 1.0), photograph[..., 30:60, 25:65])
    shrunk = window(photograph, (30, 30), 0.5)
    whole = rescale(photograph.double(), 0.5)  # of the whole canvas: the same operator
    assert (shrunk - centre_crop(whole, (30, 30))).abs().max() < 1e-6
    assert (rescale(photograph[..., 30:60, 30:60], 0.5) - shrunk).abs().max() > 0.1  # a frame


@pytest.mark.parametrize("factor", [0.4, 0.8, 1.3])
def test_only_what_a_window_reads_is_resampled(factor: float) -> None:
    photograph = photographs(1, 240).double()
    alone = centre_crop(rescale(photograph, factor), (20, 24))
    assert (window(photograph, (20, 24), factor) - alone).abs().max() < 1e-12


def test_windows_of_windows_are_windows() -> None:
    """L_a L_b = L_ab, read from a photograph that is large enough for both."""
    x = torch.arange(300, dtype=torch.float64) - 149.5
    smooth = torch.exp(-((x / 60) ** 2))[:, None] * torch.cos(x / 15)[None, :]
    twice = window(window(smooth, (120, 120), 0.8), (60, 60), 0.7)
    once = window(smooth, (60, 60), 0.56)
    assert (twice - once).abs().max() < 2e-3 * once.abs().max()


def test_beyond_a_photograph_its_edge_goes_on() -> None:
    even = torch.ones(1, 1, 20, 20, dtype=torch.float64)
    assert (window(even, (16, 16), 0.3) - 1).abs().max() < 1e-12
    assert rescale(even, 0.3)[..., 0, 0].abs().max() < 1e-6  # black


def test_a_window_that_has_no_centre_among_the_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="no centred window of 9 in 20 pixels"):
        window(torch.zeros(20, 20), (9, 10), 1.0)
    with pytest.raises(ValueError, match="no centred window of 22 in 20 pixels"):
        centre_crop(torch.zeros(20, 20), (20, 22))


# --- what is measured ---


def test_the_identity_reads_zero_to_the_bit_at_its_own_scale_and_to_rounding_at_others() -> None:
    """L_s Φ(f) and Φ(L_s f) are two products of other lengths, which a CPU may sum in another order."""
    curves = measured(OneTap("identity", nn.Identity()), photographs(), 40, factors=(1, 0.8, 0.5, 1.2))
    found = means(curves, "identity")
    assert found[1] == 0
    assert all(value is not None and value < 1e-13 for value in found.values()), found
    assert all(row.warnings == () for row in curves.rows if row.tap == "identity")


@pytest.mark.parametrize(("stride", "bound"), [(1, 1e-3), (4, 5e-3)])
def test_differences_of_gaussians_are_equivariant_on_photographs_and_the_frame_is_what_costs(
    stride: int, bound: float
) -> None:
    model, pictures = Differences(stride), photographs(2, 400)
    factors = (1, SCALES[1] / 2, 0.5)
    curves = measured(model, pictures, 64, factors=factors, taps=("dog",))
    found = means(curves, "dog")
    assert found[1] == 0
    assert all(value is not None and value < bound for value in found.values()), found
    framed = measure_curves(
        model,
        pictures[..., 168:232, 168:232],
        MeasureSettings(factors=factors, taps=("dog",), border=0),
        on_black=False,
    )
    assert all(
        value > 10 * bound for s, value in means(framed, "dog").items() if s != 1 and value is not None
    )


def net() -> StagedModel:
    """Return convolutions with a stride of four, a pooling over the plane, and a classifier of fixed size."""
    torch.manual_seed(0)
    return StagedModel(
        [
            Stage("near", nn.Conv2d(1, 4, 3, padding=1), Plane()),
            Stage("far", nn.Conv2d(4, 4, 8, stride=4, padding=2), Plane(4.0, 1.5)),
            Stage("pooled", nn.AdaptiveAvgPool2d(3), Plane(40 / 3)),
            Stage("flat", nn.Flatten(), Invariant()),
            Stage("logits", nn.Linear(36, 3), Invariant()),
        ]
    ).eval()


def test_taps_grow_by_the_cells_that_are_added_or_see_the_window_alone() -> None:
    model = net()
    assert taps_that_grow(model, model.taps, (1, 40, 40), 8) == {"near", "far"}
    assert taps_that_grow(model, model.taps, (1, 40, 40), 7) == {"near"}  # 14 pixels are no whole cells
    found = enlargement(model, model.taps, (1, 40, 40), (0.8,), 4)
    assert found.step % 4 == 0
    assert found.pixels % found.step == 0
    assert found.pixels >= found.radii["far"] > found.radii["near"] > 1


def test_a_network_of_one_size_has_no_surroundings_and_a_mask_alone() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.taps: dict[str, Field] = {"all": Plane()}
            self.conv = nn.Conv2d(1, 2, 5, padding=2)
            self.stages: list[tuple[str, nn.Module]] = []

        def features(self, images: Tensor) -> dict[str, Features]:
            assert images.shape[-1] == 40, "of one size"
            return {"all": self.conv(images)}

        def forward(self, images: Tensor) -> Tensor:
            features = self.features(images)["all"]
            assert isinstance(features, Tensor)
            return features

    model = Fixed().eval()
    assert enlargement(model, model.taps, (1, 40, 40), (0.5,), 4).pixels == 0
    curves = measured(model, photographs(), 40, factors=(0.5,))
    (row,) = curves.rows
    assert row.mean is not None
    assert row.border == pytest.approx(radius(model), abs=0.5)
    assert row.compared == pytest.approx(((0.5 * (40 - 2 * row.border)) / 40) ** 2, abs=0.02)
    assert curves.surroundings is not None
    assert curves.surroundings.enlarged == (0,)


def radius(model: Any) -> float:
    return enlargement(model, model.taps, (1, 40, 40), (0.5,), 4).radii["all"]


def test_logits_see_the_window_and_are_marked() -> None:
    model, pictures = net(), photographs()
    curves = measured(model, pictures, 40, factors=(1, 0.8))
    marked = {row.tap: [note.code for note in row.warnings] for row in curves.rows if row.factor == 0.8}
    assert marked["logits"] == ["global"]
    assert "global" not in marked["far"]
    with torch.no_grad():
        here, there = model(window(pictures, (40, 40), 1.0)), model(window(pictures, (40, 40), 0.8))
        empty = model(torch.zeros(1, 1, 40, 40))
    expected = (((here - there) ** 2).sum(1) / ((here - empty) ** 2).sum(1)).mean()
    assert means(curves, "logits")[0.8] == pytest.approx(float(expected), rel=1e-4)


def test_a_value_is_that_of_one_large_picture_cut_to_the_window() -> None:
    """The oracle: Φ on whole photographs, no window at all, compared over the cells of the shrunk window."""
    model, pictures, side, s = net(), photographs(2, 240), 40, 0.5
    curves = measured(model, pictures, side, factors=(s,), taps=("near",), background="none")
    (row,) = curves.rows
    with torch.no_grad():
        near = model.get_submodule("near")
        here, there = near(pictures), near(rescale(pictures, s))
        moved = rescale(here, s)
    kept = slice(120 - 10, 120 + 10)  # |x| ≤ s n / 2
    cut = [each[..., kept, kept].double() for each in (moved, there)]
    expected = ((cut[0] - cut[1]) ** 2).sum((1, 2, 3)) / (cut[0] ** 2).sum((1, 2, 3))
    assert row.mean == pytest.approx(float(expected.mean()), rel=1e-3)
    assert row.compared == pytest.approx(0.25, abs=0.01)
    assert row.border == 0


def test_smaller_photographs_give_what_they_have_and_the_rest_is_masked() -> None:
    model = net()
    found = enlargement(model, model.taps, (1, 40, 40), (0.8,), 4)
    request = WindowRequest((40, 40), 0.8, found.pixels, found.step)
    assert found.pixels > 4 == found.step
    assert request.possible((1000, 1000)) == found.pixels
    assert request.possible((60, 1000)) == 4
    assert request.possible((50, 50)) == 0
    assert request.possible((49, 500)) is None
    curves = measured(model, photographs(side=60), 40, factors=(0.8,), taps=("far",))
    (row,) = curves.rows
    assert row.border == pytest.approx(found.radii["far"] - 4, abs=0.5)
    with pytest.raises(
        InputError, match="all 4 photographs are smaller than 50×50 pixels, which windows of 40×40"
    ):
        measured(model, photographs(side=48), 40, factors=(0.8,))


def test_a_border_by_choice_is_that_of_the_window_and_marked_where_it_is_too_narrow() -> None:
    model = net()
    curves = measured(model, photographs(side=50), 40, factors=(0.8,), taps=("far",), border=1)
    (row,) = curves.rows
    assert row.border == 1
    assert [note.code for note in row.warnings] == ["narrow-border"]
    wide = measured(model, photographs(), 40, factors=(0.8,), taps=("far",), border=1).rows[0]
    assert wide.warnings == ()
    assert wide.compared is not None
    assert row.compared == pytest.approx(wide.compared)


# --- photographs as files ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, (size, name) in enumerate(
        [((150, 90), "cat"), ((80, 160), "dog"), ((60, 60), "cat"), ((20, 90), "dog")]
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        pixels = (photographs(1, 160, k)[0, 0, : size[1], : size[0]] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    return tmp_path


def test_photographs_are_scaled_down_never_up_and_grouped_by_their_surroundings(folder: Path) -> None:
    request = WindowRequest((20, 20), 0.5, enlarged=8, step=4)
    pictures = open_pictures(folder, input_shape=(1, 20, 20), windows=request)
    found = pictures.photographs
    assert isinstance(found, Photographs)
    assert [(group.enlarged, tuple(group.images.shape)) for group in found.groups] == [
        (8, (2, 1, 72, 72)),
        (4, (1, 1, 56, 56)),
    ]
    assert found.left_out == 1
    assert pictures.remarks == ("1 photographs smaller than 40×40 pixels are left out",)
    assert torch.equal(pictures.images, found.windows)
    assert pictures.images.shape == (3, 1, 20, 20)
    assert pictures.labels is not None
    assert sorted(pictures.labels.tolist()) == [0, 0, 1]
    assert pictures.labels.tolist()[2] == 0  # the small one is a cat
    assert pictures.info.resized == (20, 20)


def test_a_large_photograph_just_fits_and_a_small_one_stays_as_it_is() -> None:
    pixels = Image.fromarray((photographs(1, 300)[0, 0] * 255).byte().numpy())
    request = WindowRequest((20, 20), 0.5, enlarged=8, step=8)
    kept = scaled_photograph(pixels.resize((300, 200)), request)
    assert kept is not None
    assert (kept[0].shape, kept[1]) == ((72, 72), 8)
    small = pixels.crop((0, 0, 71, 300))
    kept = scaled_photograph(small, request)
    assert kept is not None
    assert (kept[0].shape, kept[1]) == ((40, 40), 0)
    assert np.array_equal(kept[0], np.array(small)[130:170, 15:55])


def test_all_pictures_must_be_large_enough_for_the_default(folder: Path) -> None:
    assert not are_large_enough(folder, WindowRequest((20, 20), 0.5), 10)  # one is 20 pixels wide
    (folder / "dog" / "3.png").unlink()
    assert are_large_enough(folder, WindowRequest((20, 20), 0.5), 10)
    assert not are_large_enough(folder, WindowRequest((20, 20), 0.3), 10)
    assert not are_large_enough(folder, WindowRequest((60, 60), 1.0), 10)  # not larger than the window


# --- from Python ---


def test_measure_takes_windows_of_photographs() -> None:
    model = Differences()
    frame = measure(model, photographs(), window=(64, 64), factors=[0.5], taps=["dog"])
    (value,) = frame["mean"].tolist()
    assert value < 1e-3
    with pytest.raises(InputError, match="window: 300×64 pixels in images of 200×200"):
        measure(model, photographs(), window=(300, 64), factors=[0.5])
    with pytest.raises(InputError, match="are smaller than 320×320 pixels"):
        measure(model, photographs(), window=(64, 64), factors=[0.2])


def test_the_spline_s_margin_is_in_what_a_window_reads() -> None:
    assert SPLINE_MARGIN >= 24  # (2 − √3)^24 < 2e-14
