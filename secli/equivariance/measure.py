"""The measure from Python: ``secli.measure``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from secli.config import Background, MeasureSettings, Metric, validated
from secli.equivariance.curves import measure_curves
from secli.models.contract import Model

if TYPE_CHECKING:
    import pandas as pd


def measure(
    model: Model,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    *,
    factors: Sequence[float] | None = None,
    taps: Sequence[str] | None = None,
    metric: Metric = "squared",
    background: Background = "empty",
    labels: Int64[Tensor, "n"] | None = None,
    batch: int = 100,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Measure how far a network is from equivariant under scale, tap by tap and factor by factor.

    ``Δ_s(f) = ‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖²``, Frobenius norms, Φ(·) − Φ(0) for Φ(·).

    Parameters
    ----------
    model : Model
        A network with declared taps (``secli.load_model`` gives one).
    images : tensor (N, C, H, W)
        Pixels, float in [0, 1] or uint8, at their own scale.
    factors : sequence of float, optional
        Scale factors; default: nine from 1/3 to 1, their inverses up to 1.5, and the model's own lattice.
    taps : sequence of str, optional
        Default: all that the model declares.
    metric : str
        ``squared`` (Δ), ``relative`` (its square root per image) or ``absolute``.
    background : str
        ``empty`` subtracts the features of the empty picture; ``none`` is the bare formula.
    labels : tensor (N,), optional
        Classes, for the accuracy in ``frame.attrs["accuracy"]``.
    batch : int
        Images per forward pass.
    device : torch.device
        Where to compute.

    Returns
    -------
    pandas.DataFrame
        One row per tap and factor, columns as ``secli.records.CurveRow``; null values carry their ``reason``.

    Raises
    ------
    InputError
        On a factor that is not positive, an unknown tap, or no images.

    Examples
    --------
    >>> import secli, torch
    >>> model = secli.load_model("dss_v1")
    >>> frame = secli.measure(model, torch.rand(8, 1, 28, 28), factors=[1, 0.5], taps=["lift"])
    >>> frame["mean"].tolist()[0]
    0.0
    """
    import pandas as pd

    wanted = {"factors": factors, "taps": taps, "metric": metric, "background": background, "batch": batch}
    settings = validated(MeasureSettings, {**wanted, "images": max(1, len(images))}, "measure")
    curves = measure_curves(model, images, settings, labels=labels, device=device)
    frame: pd.DataFrame = pd.DataFrame([row.model_dump() for row in curves.rows])
    frame.attrs["accuracy"] = [row.model_dump() for row in curves.accuracy]
    return frame
