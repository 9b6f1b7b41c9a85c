"""What a figure of features shows, as plain arrays: Φ(L_s f) beside L_sΦ(f), and where deformable layers read.

The measure computes these (``secli.equivariance.feature_maps``) and the tables draw them (``secli.tables.views``); they
meet here, because the tables never load torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class FeatureView:
    """One channel of one feature map, for one image and one factor.

    Attributes
    ----------
    tap
        The tap's name.
    channel
        The channel, from 0.
    level
        The scale level, from 0; None off a scale axis.
    expected, actual, difference
        L_sΦ(f), Φ(L_s f) and Φ(L_s f) − L_sΦ(f), shape (H, W).
    known
        The cells that are compared, shape (H, W); L_s cannot know the others.
    component
        The place along each further axis between channel and plane (rotations, vector components); often empty.
    """

    tap: str
    channel: int
    level: int | None
    expected: Array
    actual: Array
    difference: Array
    known: Mask
    component: tuple[int, ...] = ()

    @property
    def compared(self) -> Mask:
        """The cells that are known and finite on both sides."""
        finite: Mask = self.known & np.isfinite(self.difference)
        return finite

    @property
    def error(self) -> float | None:
        """Δ of this view alone: ‖difference‖² / ‖expected‖² over the compared cells; None where that is 0/0."""
        cells = self.compared
        size = float(np.square(self.expected[cells], dtype=np.float64).sum())
        return float(np.square(self.difference[cells], dtype=np.float64).sum()) / size if size > 0 else None


@dataclass(frozen=True)
class SamplingView:
    """Where a deformable layer reads the picture, for a few of its output cells.

    Attributes
    ----------
    layer
        Name of the layer inside the network.
    positions, moved_positions
        The cells, in image coordinates (x, y): on f, and the corresponding ones on L_s f, shape (P, 2).
    points, moved_points
        The places that the layer reads for each, on f and on L_s f, in image coordinates, shape (P, K, 2);
        K = deformable groups × taps of the kernel.
    """

    layer: str
    positions: Array
    moved_positions: Array
    points: Array
    moved_points: Array


@dataclass(frozen=True)
class FeatureViews:
    """All that one figure shows, for one image and one factor.

    Attributes
    ----------
    factor
        Scale factor s.
    image, rescaled
        f and L_s f, shape (C, H, W).
    background
        ``empty`` where Φ(0) was subtracted, ``none`` where not.
    features
        Per tap from input to output, the channels in order, each with its levels in order.
    sampling
        One per deformable layer, from input to output.
    """

    factor: float
    image: Array
    rescaled: Array
    background: str
    features: tuple[FeatureView, ...]
    sampling: tuple[SamplingView, ...] = ()
