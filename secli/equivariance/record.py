"""A measurement as a record: the curves with what was measured, on what, and how."""

from __future__ import annotations

from collections.abc import Sequence

from secli.config import MeasureSettings
from secli.equivariance.curves import Curves
from secli.provenance import gather
from secli.records.schema import DataInfo, EquivarianceRecord, LieRow, LocalRow, ModelInfo, TrainingRecord


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
    control: str | None = None,
) -> EquivarianceRecord:
    """Put curves into a record.

    Parameters
    ----------
    curves : Curves
        What was measured.
    settings : MeasureSettings
        How.
    data : DataInfo
        On which images.
    model : ModelInfo
        Which network.
    seed : int
        Seed of the run, or of the fresh weights.
    device : str
        The device's own name.
    threads : int
        CPU threads.
    weights : str, optional
        Where the weights come from, in words.
    training : TrainingRecord, optional
        The run that the weights come from.
    run : str, optional
        Its directory.
    lie, local : sequences of rows
        What else was measured.
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
        measure={**settings.model_dump(mode="json"), "batch": curves.batch},
        rows=curves.rows,
        accuracy=curves.accuracy,
        lie=list(lie),
        local=list(local),
        control=control,
        provenance=gather(device, threads),
    )
