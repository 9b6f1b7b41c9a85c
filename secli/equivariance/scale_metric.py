"""The measure inside anybody's evaluation loop: ``secli.ScaleEquivariance``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from secli.action.fields import Field
from secli.config import Background, MeasureSettings, validated
from secli.equivariance.borders import fade_to_black
from secli.equivariance.curves import measure_curves
from secli.equivariance.measure import checked_pixels, lent, under_contract
from secli.equivariance.plain_metric import PlainMetric
from secli.external.restoring import device_of
from secli.models.contract import Model

try:  # with torchmetrics it is one of its metrics: in a MetricCollection, logged and reset by Lightning
    from torchmetrics import Metric
except ImportError:
    Metric = PlainMetric  # type: ignore[misc, assignment, unused-ignore]

Shape = tuple[int, ...]
Column = tuple[str, float]
"""A tap and a factor."""


class ScaleEquivariance(Metric):  # type: ignore[misc, unused-ignore]
    """The equivariance error of a network over the batches of an evaluation, as a torchmetrics metric.

    ``Δ_s(f) = ‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖²`` (see ``secli.measure``), the mean over all pictures that were
    given. With torchmetrics installed it is a ``torchmetrics.Metric``; without, it works by itself, and
    ``dist_reduce`` gathers what the processes of ``torch.distributed`` have seen.

    Parameters
    ----------
    factors : sequence of float, optional
        Scale factors; None: those of ``secli.measure``. Each costs a forward pass.
    taps : sequence of str, optional
        Names or shell globs; default: all that the model declares, or a module's outermost feature maps.
    fields : mapping, optional
        How scale acts at taps, as for ``secli.measure``.
    metric, background, border, normalise
        As for ``secli.measure``.
    on_black : bool, optional
        Whether the pictures fade to black at their edges, so that no border is needed; None: as the first batch shows.
    options
        Those of ``torchmetrics.Metric``.

    Examples
    --------
    >>> import secli, torch
    >>> error = secli.ScaleEquivariance(factors=[0.5], taps=["lift"])
    >>> model = secli.load_model("dss_v1")
    >>> for images in torch.rand(2, 4, 1, 28, 28):
    ...     error.update(model, images)
    >>> list(error.compute())
    ['lift@0.5']
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    sums: list[Tensor]

    def __init__(
        self,
        factors: Sequence[float] | None = (0.8, 0.5),
        taps: Sequence[str] | None = None,
        fields: Mapping[str, str | Field] | None = None,
        *,
        metric: str = "squared",
        background: Background = "empty",
        border: float | None = None,
        normalise: nn.Module | None = None,
        on_black: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        given = {"factors": factors, "metric": metric, "background": background, "border": border}
        self._settings = validated(MeasureSettings, given, "ScaleEquivariance")
        self._taps, self._fields = taps, dict(fields or {})
        self._first = (normalise,)  # in a tuple: no part of the metric, whose state would hold its weights
        self._on_black = self._all_on_black = on_black
        self.columns: list[Column] = []
        self._reasons: dict[Column, str] = {}
        self._read: tuple[nn.Module | Model, Shape, Model, Sequence[str] | None] | None = None
        # rows (column, sum of errors, pictures): processes may have seen batches of any number
        self.add_state("sums", [], dist_reduce_fx="cat")

    @property
    def reasons(self) -> dict[str, str]:
        """Why a value is missing, by the names of :meth:`compute`."""
        names = self._names()
        return {names[column]: reason for column, reason in self._reasons.items()}

    def update(
        self, model: Model | nn.Module, images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]
    ) -> None:
        """Measure a network on one batch more; the network is restored as ``secli.measure`` does it.

        Parameters
        ----------
        model : Model or nn.Module
            The network, the same in every update until ``reset``.
        images : tensor (N, C, H, W)
            Pixels, float in [0, 1] or uint8, at their own scale: normalisation belongs into the network.

        Raises
        ------
        InputError
            As ``secli.measure``.
        """
        images = checked_pixels(images)
        with ExitStack() as stack:
            device = torch.device("cpu")
            if isinstance(model, nn.Module):
                device = device_of(model)
                stack.enter_context(lent(model, images, self._first[0]))
            shape = tuple(images.shape[1:])
            if self._read is None or self._read[0] is not model or self._read[1] != shape:
                found = under_contract(model, images, self._taps, self._fields, device, self._first[0])
                self._read = (model, shape, *found)
            _, _, subject, taps = self._read
            if self._on_black is None:
                self._on_black = fade_to_black(images)
            named = None if taps is None else tuple(taps)
            settings = self._settings.model_copy(update={"taps": named, "images": max(1, len(images))})
            curves = measure_curves(
                subject, images, settings, on_black=self._on_black, device=device, means_alone=True
            )
        sums = []
        for row in curves.rows:
            column = row.tap, row.factor
            if column not in self.columns:
                self.columns.append(column)
            if row.mean is None:
                self._reasons[column] = str(row.reason)
            else:
                sums.append((float(self.columns.index(column)), row.mean * row.n, float(row.n)))
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.sums.append(torch.tensor(sums, dtype=wide, device=device).reshape(-1, 3))

    def compute(self) -> dict[str, Tensor]:
        """Return the mean error by ``tap@factor``; NaN where nothing could be measured: ``reasons`` says why."""
        states: Any = self.sums
        if isinstance(self, PlainMetric):
            states = self.dist_reduce()["sums"]
        if isinstance(states, list):
            states = torch.cat([part.cpu() for part in states]) if states else torch.empty(0, 3)
        means, names = {}, self._names()
        for index, column in enumerate(self.columns):
            own = states[states[:, 0] == index]
            count = float(own[:, 2].sum())
            means[names[column]] = torch.tensor(float(own[:, 1].sum()) / count if count else math.nan)
        return means

    def reset(self) -> None:
        """Forget all batches; the taps of a network that comes again are known."""
        super().reset()
        self.columns, self._reasons, self._on_black = [], {}, self._all_on_black

    def _names(self) -> dict[Column, str]:
        """Return ``tap@factor`` by column, with as many digits as tell the factors apart."""
        for digits in range(3, 17):
            names = {(tap, factor): f"{tap}@{factor:.{digits}g}" for tap, factor in self.columns}
            if len(set(names.values())) == len(names):
                break
        return names
