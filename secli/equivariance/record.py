"""A measurement as a record: the curves with network, images and settings."""

from __future__ import annotations

from collections.abc import Sequence

from secli.config import MeasureSettings, Surround
from secli.equivariance.curves import Curves
from secli.provenance import gather
from secli.records.schema import (
    DataInfo,
    EquivarianceRecord,
    ExplainRow,
    LieRow,
    LocalRow,
    ModelInfo,
    TrainingRecord,
)


def equivariance_record(
    curves: Curves,
    settings: MeasureSettings,
    data: DataInfo,
    model: ModelInfo,
    *,
    seed: int,
    device: str,
    threads: int,
    weights: str | None = None,
    training: TrainingRecord | None = None,
    run: str | None = None,
    lie: Sequence[LieRow] = (),
    local: Sequence[LocalRow] = (),
    explained: Sequence[ExplainRow] = (),
    control: str | None = None,
) -> EquivarianceRecord:
    """Return curves as a record.

    Parameters
    ----------
    seed : int
        Seed of the run, or of the fresh weights.
    device : str
        The device's own name.
    weights : str, optional
        The origin of the weights, in words.
    training, run : optional
        The record and the directory of the run of the weights.
    control : str, optional
        Which control this is.
    """
    return EquivarianceRecord(
        model=model,
        trained=training is not None or model.options.get("weights") is not None,
        weights=weights,
        run=run,
        seed=seed,
        trained_on=None if training is None else training.data,
        data=data,
        metric=settings.metric,
        background=settings.background,
        measure={**settings.model_dump(mode="json"), "batch": curves.batch, "surround": _surround(curves)},
        surroundings=curves.surroundings,
        rows=curves.rows,
        accuracy=curves.accuracy,
        embedding=curves.embedding,
        lie=list(lie),
        local=list(local),
        explained=list(explained),
        control=control,
        provenance=gather(device, threads),
    )


def _surround(curves: Curves) -> Surround:
    """Return what was around the pictures, where the settings left it open."""
    return "photo" if curves.surroundings is not None and curves.surroundings.kind == "photo" else "black"
