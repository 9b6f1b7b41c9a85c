"""TensorBoard: one folder of event files per run directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from secli.errors import InputError
from secli.records.schema import EquivarianceRecord, TrainingRecord
from secli.storage.owners import final_path
from secli.trackers.contract import epoch_metrics, result_metrics, run_parameters
from secli.training.events import EpochEnded

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Logs one run to TensorBoard, in ``<home>/tensorboard/<model>/<run>``.

    Raises
    ------
    InputError
        When TensorBoard is not installed.
    """

    def __init__(self, home: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError(
                "--track tensorboard: TensorBoard is not installed; install it with: pip install 'secli[tensorboard]'"
            ) from None
        self._writer_of: Any = SummaryWriter
        self.home, self.epochs = home / FOLDER, 0
        self.writer: Any = None
        self.home.mkdir(parents=True, exist_ok=True)

    def begin(self, run: Path, record: TrainingRecord) -> None:
        """Open the run's folder; a resumed run adds to it."""
        self.writer = self._writer_of(str(self.home / record.model.name / final_path(run).name))
        self.writer.add_text(
            "settings", f"```json\n{json.dumps(run_parameters(record), indent=1, ensure_ascii=False)}\n```"
        )

    def epoch(self, ended: EpochEnded) -> None:
        """Log the metrics of one epoch."""
        self.epochs = ended.epoch
        for key, value in epoch_metrics(ended).items():
            self.writer.add_scalar(key, value, ended.epoch)

    def finish(
        self, run: Path, record: TrainingRecord, curves: EquivarianceRecord | None, picture: Path | None
    ) -> None:
        """Log the results and the picture of the curves."""
        del run
        for key, value in result_metrics(record, curves).items():
            self.writer.add_scalar(key, value, self.epochs)
        if picture is not None:
            import numpy as np
            from PIL import Image

            with Image.open(picture) as image:
                self.writer.add_image(
                    "curves", np.asarray(image.convert("RGB")), self.epochs, dataformats="HWC"
                )

    def fail(self, run: Path) -> None:
        """Do nothing: event files know no end."""

    def knows_end(self, run: Path, failed: bool) -> bool:
        """Return True: event files know no end that could be missing."""
        return True

    def close(self) -> None:
        """Write what is left and close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None
