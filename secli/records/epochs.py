"""What ``secli train --measure-every`` writes into ``metrics.jsonl``: readings of the network while it trains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from secli.records.notes import Note
from secli.records.schema import MOST_BYTES, RecordPart
from secli.yaml_files import check_depth

METRICS_FILE = "metrics.jsonl"
KEY = "equivariance"


class EpochRow(RecordPart):
    """Δ of one tap at one factor after an epoch."""

    tap: str = Field(description="the tap")
    factor: float = Field(description="the scale factor s")
    mean: float | None = Field(description="mean error over the images; null where it cannot be measured")
    reason: Note | None = Field(default=None, description="why the mean is null")


class EpochAccuracy(RecordPart):
    """The accuracy on images rescaled by one factor after an epoch."""

    factor: float = Field(description="the scale factor s")
    accuracy: float | None = Field(description="fraction classified correctly; null without labels or logits")


class EpochReading(RecordPart):
    """What was measured after one epoch."""

    images: int = Field(description="images that were measured")
    seconds: float = Field(description="what it cost")
    rows: list[EpochRow] = Field(description="one row per tap and factor")
    accuracy: list[EpochAccuracy] = Field(description="one row per factor")


class MeasuredEpoch(NamedTuple):
    """An epoch, from 1, and what was measured after it."""

    epoch: int
    reading: EpochReading


class _Line(RecordPart):
    """A line of the file; its other keys are those of the training."""

    epoch: int = Field(ge=1)
    equivariance: EpochReading | None = None


def read_epochs(run: Path) -> list[MeasuredEpoch]:
    """Return what a run directory holds of such readings, in order; lines that cannot be read hold none."""
    return list(_readings(run / METRICS_FILE))


def _readings(file: Path) -> Iterator[MeasuredEpoch]:
    try:
        with file.open("rb") as stream:
            lines = stream.read(MOST_BYTES).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            values = json.loads(line)
            check_depth(values)
            read = _Line.model_validate({key: values[key] for key in ("epoch", KEY) if key in values})
        except (ValueError, TypeError, ValidationError, RecursionError):
            continue
        if read.equivariance is not None:
            yield MeasuredEpoch(read.epoch, read.equivariance)
