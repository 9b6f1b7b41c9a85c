"""What a tracker receives, and the values that every run reports to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from secli.records.schema import EquivarianceRecord, TrainingRecord
from secli.training.events import EpochEnded


class Tracker(Protocol):
    """Follows one run; called in this order, from one thread."""

    def begin(self, run: Path, record: TrainingRecord) -> None:
        """Start following a run, or continue one."""
        ...

    def epoch(self, ended: EpochEnded) -> None:
        """Log the metrics of one epoch."""
        ...

    def finish(
        self, run: Path, record: TrainingRecord, curves: EquivarianceRecord | None, picture: Path | None
    ) -> None:
        """Log the results, the files of the run and, where it was measured, the picture of its curves."""
        ...

    def fail(self, run: Path) -> None:
        """Log that a run which was followed here has failed."""
        ...

    def knows_end(self, run: Path, failed: bool) -> bool:
        """Return whether this end of a run is logged already; True also of a run that it never followed."""
        ...

    def close(self) -> None:
        """Release the tracker in every case."""
        ...


def run_parameters(record: TrainingRecord) -> dict[str, Any]:
    """Return the parameters of a run, flat."""
    known: dict[str, Any] = {"model": record.model.name, "parameters": record.model.parameters}
    known |= {f"model.{key}": value for key, value in record.model.options.items()}
    known |= {f"training.{key}": value for key, value in record.training.items()}
    known |= {
        "data": record.data.name,
        "realisation": record.data.realisation,
        "data.digest": record.data.digest,
    }
    return known | {"secli": record.provenance.secli, "commit": record.provenance.commit}


def epoch_metrics(ended: EpochEnded) -> dict[str, float]:
    """Return the metrics of one epoch; errors are fractions."""
    known = {
        "train_loss": ended.train_loss,
        "train_error": ended.train_error,
        "lr": ended.lr,
        "images_per_second": ended.images_per_second,
    }
    return known if ended.val_error is None else {**known, "validation_error": ended.val_error}


def result_metrics(record: TrainingRecord, curves: EquivarianceRecord | None) -> dict[str, float]:
    """Return the test error of a run, and Δ and accuracy at every tap and factor that could be measured."""
    known: dict[str, float] = {}
    if record.results is not None:
        known["train_seconds"] = record.results.train_seconds
        if record.results.test_error is not None:
            known["test_error"] = record.results.test_error
    if curves is None:
        return known
    for row in curves.rows:
        if row.mean is not None and row.level is None and row.channel is None:
            known[f"delta/{row.tap}/{row.factor:.3g}"] = row.mean
    known |= {
        f"accuracy/{row.factor:.3g}": row.accuracy for row in curves.accuracy if row.accuracy is not None
    }
    return known
