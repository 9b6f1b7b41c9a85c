"""What can be measured, told beforehand, is what the measure then gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from secli.action.fields import Invariant, Plane
from secli.config import MeasureSettings
from secli.equivariance.curves import measure_curves
from secli.equivariance.enlargement import enlargement
from secli.equivariance.measurable import Around, measurable_factors
from secli.models.contract import Stage, StagedModel
from tests.equivariance.test_photographs import measured, photographs

FACTORS = (1.0, 0.8, 0.6, 0.5, 0.35)


def net(reach: int) -> StagedModel:
    torch.manual_seed(0)
    return StagedModel(
        [
            Stage("tap", nn.Conv2d(1, 3, reach, stride=4, padding=(reach - 4) // 2), Plane(4.0, 1.5)),
            Stage("logits", nn.Flatten(), Invariant()),
        ]
    ).eval()


def values(curves: Any) -> list[float]:
    return [row.factor for row in curves.rows if row.tap == "tap" and row.mean is not None]


@pytest.mark.parametrize("reach", [4, 12, 24])
def test_a_frame_takes_what_is_told(reach: int) -> None:
    model, pictures = net(reach), photographs(2, 40) * 0.5 + 0.5
    settings = MeasureSettings(factors=FACTORS, taps=("tap",))
    radius = enlargement(model, {"tap": Plane(4.0, 1.5)}, (1, 40, 40), FACTORS, 4).radii["tap"]
    told = measurable_factors((10, 10), radius, (40, 40), FACTORS, "frame")
    curves = measure_curves(model, pictures, settings, on_black=False)
    found = values(curves)
    # a share of just a tenth may fall to either side: cells are whole
    assert set(told) - set(found) <= {min(told, default=0)}
    assert set(found) - set(told) <= {max(set(FACTORS) - set(told), default=0)}


def test_windows_of_photographs_and_pictures_on_black_are_limited_by_their_cells_alone() -> None:
    model = net(12)
    told = measurable_factors((10, 10), 6.0, (40, 40), FACTORS, "photo")
    assert told == [1.0, 0.8, 0.6, 0.5]
    assert values(measured(model, photographs(2, 260), 40, factors=FACTORS, taps=("tap",))) == told
    assert measurable_factors((10, 10), 6.0, (40, 40), FACTORS, "black") == told
    black = nn.functional.pad(photographs(2, 24), [8] * 4)
    curves = measure_curves(model, black, MeasureSettings(factors=FACTORS, taps=("tap",)), on_black=True)
    assert values(curves) == told


@pytest.mark.parametrize(
    ("around", "expected"), [("photo", [1.0, 0.8, 0.6]), ("black", [1.0, 0.8]), ("frame", [1.0, 0.8])]
)
def test_a_border_by_choice_counts(around: Around, expected: list[float]) -> None:
    assert measurable_factors((30, 30), 3.0, (60, 60), FACTORS, around, border=14) == expected
