"""MLflow: one MLflow run per run directory, in a SQLite file unless a server is named."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path
from typing import Any

from secli.errors import InputError
from secli.records.schema import EquivarianceRecord, TrainingRecord, read_training_record
from secli.storage.owners import final_path
from secli.storage.writing import write_text
from secli.trackers.contract import epoch_metrics, result_metrics, run_parameters
from secli.training.events import EpochEnded

RUN_FILE = "mlflow-run"
EXPERIMENT = "secli"
DATABASE, ARTIFACTS = "mlflow.db", "mlflow-artifacts"
LONGEST = 500
"""Characters of a parameter's value; older servers refuse more."""


class MLflowTracker:
    """Logs one run to MLflow.

    ``home`` holds the database and the artifacts where no server is named (MLFLOW_TRACKING_URI).

    Raises
    ------
    InputError
        When MLflow is not installed, or its store does not answer.
    """

    def __init__(self, home: Path) -> None:
        try:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise InputError(
                "--track mlflow: MLflow is not installed; install it with: pip install 'secli[mlflow]'"
            ) from None
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        server = os.environ.get("MLFLOW_TRACKING_URI")
        home.mkdir(parents=True, exist_ok=True)
        store = server or f"sqlite:///{(home / DATABASE).resolve()}"
        artifacts = None if server else (home / ARTIFACTS).resolve().as_uri()
        self._errors: type[Exception] = MlflowException
        try:
            self.client: Any = MlflowClient(tracking_uri=store)
            found = self.client.get_experiment_by_name(EXPERIMENT)
            self.experiment: str = (
                found.experiment_id
                if found
                else self.client.create_experiment(EXPERIMENT, artifact_location=artifacts)
            )
        except MlflowException as error:
            raise InputError(f"--track mlflow: {store}: {' '.join(str(error).split())}") from None
        self.id: str | None = None
        self.run = Path()

    def begin(self, run: Path, record: TrainingRecord) -> None:
        """Start an MLflow run, or continue the one that the run directory names."""
        self.run = run
        known = self._known(run)
        if known is not None:
            self.id = known.info.run_id
            self.client.update_run(self.id, status="RUNNING")
            return
        home = final_path(run)
        name, tags = f"{record.model.name} {home.name}", {"run": str(home)}
        self.id = self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id
        write_text(run / RUN_FILE, f"{self.id}\n")
        for key, value in run_parameters(record).items():
            self.client.log_param(self.id, _name(key), str(value)[:LONGEST])

    def _known(self, run: Path) -> Any:
        """Return the MLflow run that a run directory names; None where it is of another store, or none."""
        try:
            return self.client.get_run((run / RUN_FILE).read_text(encoding="utf-8").strip())
        except (FileNotFoundError, self._errors):
            return None

    def epoch(self, ended: EpochEnded) -> None:
        """Log the metrics of one epoch."""
        for key, value in epoch_metrics(ended).items():
            self.client.log_metric(self.id, key, value, step=ended.epoch)

    def finish(
        self, run: Path, record: TrainingRecord, curves: EquivarianceRecord | None, picture: Path | None
    ) -> None:
        """Log results, records, weights and the picture of the curves."""
        for key, value in result_metrics(record, curves).items():
            self.client.log_metric(self.id, _name(key), value)
        for file in ("config.yaml", "metrics.jsonl", "record.json", "equivariance.json", "model.safetensors"):
            if (run / file).is_file():
                self.client.log_artifact(self.id, str(run / file))
        if picture is not None:
            self.client.log_artifact(self.id, str(picture))
        self.client.set_terminated(self.id, "FINISHED")
        self.id = None

    def fail(self, run: Path) -> None:
        """Set the status of a failed run."""
        known = self._known(run)
        if known is not None:
            self.client.set_terminated(known.info.run_id, "FAILED")

    def knows_end(self, run: Path, failed: bool) -> bool:
        """Return whether the run's status in MLflow is that of its end."""
        known = self._known(run)
        return known is None or known.info.status == ("FAILED" if failed else "FINISHED")

    def close(self) -> None:
        """Set the status of a run that failed or was stopped."""
        if self.id is not None:
            failed = False
            with contextlib.suppress(InputError):  # a replacement that did not come about is gone
                failed = read_training_record(self.run).status == "failed"
            self.client.set_terminated(self.id, "FAILED" if failed else "KILLED")
            self.id = None


def _name(key: str) -> str:
    """Return a name that MLflow takes: letters, digits, and ``_ - . space / :``."""
    return re.sub(r"[^\w\-. /:]", "_", key)
