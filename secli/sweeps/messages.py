"""Between the process that leads a sweep and its workers: one JSON line per message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from secli.sweeps.engine import Phase
from secli.sweeps.jobs import OnMeasure
from secli.training.events import Begun, EpochEnded, Event, Remark, Report, Stepped


class Line(BaseModel):
    """A message: known keys alone, finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Ready(Line):
    """The worker has loaded what it needs."""

    kind: Literal["ready"] = "ready"


class Progress(Line):
    """The job is on its way."""

    kind: Literal["progress"] = "progress"
    phase: Phase
    done: float
    total: float
    detail: str = ""


class NoticeLine(Line):
    """Something that the user should know."""

    kind: Literal["note"] = "note"
    text: str


class Ended(Line):
    """The job is over; the worker waits for the next one."""

    kind: Literal["ended"] = "ended"
    how: Literal["done", "failed", "interrupted", "held"]
    reason: str = ""
    seconds: float = 0.0


Message = Annotated[Ready | Progress | NoticeLine | Ended, Field(discriminator="kind")]
_MESSAGE: TypeAdapter[Ready | Progress | NoticeLine | Ended] = TypeAdapter(Message)


def read_message(line: str) -> Ready | Progress | NoticeLine | Ended | None:
    """Read one line of a worker; None where it is no message (a library printed it, or the worker died in it)."""
    try:
        return _MESSAGE.validate_json(line)
    except ValidationError:
        return None


def relays(send: Callable[[Progress | NoticeLine], None]) -> tuple[Report, OnMeasure]:
    """Return the two functions through which a job reports, both speaking to ``send``."""
    epochs, steps = 1, 1

    def on_event(event: Event) -> None:
        nonlocal epochs, steps
        if isinstance(event, Begun):
            epochs, steps = event.epochs, event.steps
            send(Progress(phase="training", done=event.epoch - 1 + event.step / steps, total=epochs))
        elif isinstance(event, Stepped):
            detail = f"loss {event.loss:.3f}"
            send(
                Progress(
                    phase="training", done=event.epoch - 1 + event.step / steps, total=epochs, detail=detail
                )
            )
        elif isinstance(event, EpochEnded):
            error = event.train_error if event.val_error is None else event.val_error
            detail = f"{'train' if event.val_error is None else 'val'} error {100 * error:.1f} %"
            send(Progress(phase="training", done=event.epoch, total=epochs, detail=detail))
        elif isinstance(event, Remark):
            send(NoticeLine(text=event.text))

    def on_measure(done: int, total: int) -> None:
        send(Progress(phase="measuring", done=done, total=total))

    return on_event, on_measure
