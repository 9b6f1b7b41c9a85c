"""Small factories of records, for tests of what reads records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.records.notes import recognised
from secli.records.schema import (
    CURVES_FILE,
    RECORD_FILE,
    AccuracyRow,
    CurveRow,
    DataInfo,
    EquivarianceRecord,
    LieRow,
    LocalRow,
    ModelInfo,
    Provenance,
    Status,
    TrainingRecord,
    TrainingResults,
    write_record,
)

FACTORS = (1 / 3, 0.5, 0.8, 1.0, 1.25)


def provenance(secli: str = "0.1.0") -> Provenance:
    return Provenance(
        secli=secli,
        commit=None,
        python="3.11.2",
        libraries={"torch": "2.6.0"},
        platform="Linux x86_64",
        device="cpu",
        threads=2,
        command="secli train",
        created="2026-01-01T00:00:00+00:00",
    )


def data(name: str = "mnist-scale", realisation: int = 0, digest: str | None = None) -> DataInfo:
    digest = digest or f"digest of {name} r{realisation}"
    return DataInfo(name=name, realisation=realisation, digest=digest, path=f"data/{name}/r{realisation}")


def model(
    name: str = "cnn", options: Mapping[str, Any] | None = None, parameters: int | None = None
) -> ModelInfo:
    return ModelInfo(
        name=name, options=dict(options or {}), parameters=parameters or MODELS[name].parameters or 1000
    )


def training(
    name: str = "cnn",
    error: float | None = 0.05,
    *,
    seed: int = 0,
    realisation: int = 0,
    dataset: str = "mnist-scale",
    status: Status = "finished",
    reason: str | None = None,
    options: Mapping[str, Any] | None = None,
    secli: str = "0.1.0",
    test_images: int = 50_000,
    digest: str | None = None,
    **settings: Any,
) -> TrainingRecord:
    """One training record; ``settings`` override the model's published ones."""
    resolved = TrainingSettings(**{**MODELS[name].training, **settings, "seed": seed}).model_dump(mode="json")
    results = TrainingResults(
        test_error=error,
        test_images=test_images,
        validation_error=error,
        best_epoch=1,
        epochs=resolved["epochs"],
        train_seconds=100.0,
        images_per_second=1000.0,
    )
    return TrainingRecord(
        status=status,
        reason=None if reason is None else recognised(reason),
        model=model(name, options),
        data=data(dataset, realisation, digest),
        training=resolved,
        results=results if status == "finished" else None,
        provenance=provenance(secli),
    )


def _noted(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a row whose sentences are notes."""
    reason = values["reason"]
    warnings = tuple(map(recognised, values.pop("warnings", ())))
    noted = {**values, "reason": None if reason is None else recognised(reason)}
    return {**noted, "warnings": warnings} if warnings else noted


def curve_row(tap: str, factor: float, mean: float | None, **changes: Any) -> CurveRow:
    values: dict[str, Any] = {
        "tap": tap,
        "field": "plane",
        "factor": factor,
        "mean": mean,
        "low": None if mean is None else 0.9 * mean,
        "high": None if mean is None else 1.1 * mean,
        "median": mean,
        "floor": None if factor == 1 else 0.004,
        "n": 100,
        "reason": None if mean is not None else "fewer than 4 cells",
    }
    return CurveRow(**_noted({**values, **changes}))


def lie_row(tap: str, mean: float | None, **changes: Any) -> LieRow:
    values: dict[str, Any] = {
        "tap": tap,
        "field": "plane",
        "mean": mean,
        "low": None if mean is None else 0.9 * mean,
        "high": None if mean is None else 1.1 * mean,
        "n": 0 if mean is None else 100,
        "reason": None if mean is not None else "the features vanish",
    }
    return LieRow(**_noted({**values, **changes}))


def local_row(part: str, kind: str, factor: float, mean: float | None, **changes: Any) -> LocalRow:
    values: dict[str, Any] = {
        "part": part,
        "kind": kind,
        "factor": factor,
        "mean": mean,
        "low": None if mean is None else 0.9 * mean,
        "high": None if mean is None else 1.1 * mean,
        "n": 100,
        "compared": 1.0,
        "reason": None if mean is not None else "fewer than 4 cells",
    }
    return LocalRow(**_noted({**values, **changes}))


def with_controls(record: EquivarianceRecord) -> EquivarianceRecord:
    """The record with its four controls: identity 0, pointwise 0.02 (log s)², untrained twice the errors, a CNN."""
    flat = [
        curves(
            record.model.name,
            rows=[curve_row(name, f, level * math.log(f) ** 2) for f in FACTORS],
            accuracy=False,
        ).model_copy(update={"control": name})
        for name, level in (("identity", 0.0), ("pointwise", 0.02))
    ]
    doubled = [
        row.model_copy(update={"mean": None if row.mean is None else 2 * row.mean}) for row in record.rows
    ]
    untrained = record.model_copy(update={"control": "untrained", "rows": doubled, "trained": False})
    plain = curves("cnn", taps=["conv1", "other"], level=0.7).model_copy(update={"control": "plain cnn"})
    return record.model_copy(update={"controls": [*flat, untrained, plain]})


def with_parts(record: EquivarianceRecord, levels: int = 3) -> EquivarianceRecord:
    """The record with rows for single levels: level k reads k + 1 times what the whole tap reads, the last is null."""
    extra = [
        row.model_copy(
            update={
                "level": level,
                "mean": None if level == levels - 1 or row.mean is None else (level + 1) * row.mean,
                "reason": recognised("off the stack") if level == levels - 1 else None,
            }
        )
        for level in range(levels)
        for row in record.rows
    ]
    return record.model_copy(update={"rows": [*record.rows, *extra]})


def curves(
    name: str = "cnn",
    *,
    taps: Sequence[str] = ("conv1", "conv2"),
    factors: Sequence[float] = FACTORS,
    level: float = 0.5,
    seed: int = 0,
    dataset: str = "mnist",
    realisation: int = 0,
    trained: bool = True,
    trained_on: DataInfo | None = None,
    metric: Literal["squared", "relative", "absolute"] = "squared",
    background: Literal["empty", "none"] = "empty",
    rows: Sequence[CurveRow] | None = None,
    accuracy: bool = True,
    run: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> EquivarianceRecord:
    """One record of curves: Δ = level · (tap number) · (log s)², exactly 0 at s = 1."""
    if rows is None:
        rows = [
            curve_row(tap, factor, level * (number + 1) * math.log(factor) ** 2)
            for number, tap in enumerate(taps)
            for factor in factors
        ]
    return EquivarianceRecord(
        model=model(name, options),
        trained=trained,
        run=run,
        seed=seed,
        trained_on=trained_on or (data("mnist-scale", realisation) if trained else None),
        data=data(dataset, realisation),
        metric=metric,
        background=background,
        rows=list(rows),
        accuracy=[
            AccuracyRow(factor=factor, accuracy=0.95 - 0.2 * abs(math.log(factor)), agreement=0.9, n=100)
            for factor in factors
        ]
        if accuracy
        else [],
        provenance=provenance(),
    )


def write_run(directory: Path, record: TrainingRecord, measured: EquivarianceRecord | None = None) -> Path:
    """Write a run directory as ``secli train`` (and ``secli equivariance``) would."""
    write_record(directory / RECORD_FILE, record)
    if measured is not None:
        write_record(directory / CURVES_FILE, measured)
    return directory
