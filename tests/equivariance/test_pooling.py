"""Several runs of one network: means, intervals over seeds, nulls kept."""

import pytest

from secli.equivariance.pooling import pool
from secli.errors import InputError
from secli.provenance import gather
from secli.records.identity import pooling_key
from secli.records.notes import Note
from secli.records.schema import AccuracyRow, CurveRow, DataInfo, EquivarianceRecord, ModelInfo


def row(mean: float | None, factor: float = 0.5, reason: Note | None = None) -> CurveRow:
    return CurveRow(
        tap="tap",
        field="plane",
        factor=factor,
        mean=mean,
        low=mean,
        high=mean,
        median=mean,
        floor=0.01,
        n=10,
        reason=reason,
    )


def record(seed: int, *means: float | None, name: str = "cnn") -> EquivarianceRecord:
    rows = [
        row(mean, 0.5 + 0.1 * i, None if mean is not None else Note.of("dead-tap", images=10))
        for i, mean in enumerate(means)
    ]
    return EquivarianceRecord(
        model=ModelInfo(name=name, options={}, parameters=1),
        trained=False,
        seed=seed,
        data=DataInfo(name="digits", realisation=0, digest="0", path="data/digits/r0"),
        metric="squared",
        background="empty",
        rows=rows,
        accuracy=[AccuracyRow(factor=0.5, accuracy=0.5 + seed / 10, agreement=1.0, n=10)],
        provenance=gather("cpu", 1),
    )


def test_means_and_intervals_are_over_runs() -> None:
    pooled = pool([record(0, 0.1), record(1, 0.3), record(2, 0.2)])
    (only,) = pooled.rows
    assert only.mean == pytest.approx(0.2)
    assert only.runs == 3
    assert only.low is not None
    assert only.high is not None
    assert 0.1 <= only.low < 0.2 < only.high <= 0.3
    assert pooled.accuracy[0].accuracy == pytest.approx(0.6)
    assert pooled.pooled == ("seed 0", "seed 1", "seed 2")


def test_one_run_stays_as_it_is() -> None:
    single = record(0, 0.1)
    assert pool([single]) is single


def test_null_in_one_run_is_null_in_all() -> None:
    pooled = pool([record(0, 0.1, None), record(1, 0.3, 0.2)])
    assert pooled.rows[0].mean == pytest.approx(0.2)
    assert pooled.rows[1].mean is None
    assert pooled.rows[1].reason == Note.of("dead-tap", images=10)


def test_runs_measured_otherwise_are_refused() -> None:
    with pytest.raises(InputError, match="same taps and factors"):
        pool([record(0, 0.1), record(1, 0.1, 0.2)])


def test_only_seed_realisation_and_machine_may_differ() -> None:
    assert pooling_key(record(0, 0.1), None) == pooling_key(record(1, 0.3), None)
    assert pooling_key(record(0, 0.1), None) != pooling_key(record(0, 0.1, name="dcn"), None)
