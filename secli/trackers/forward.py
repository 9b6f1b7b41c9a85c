"""A run's events, forwarded to the requested trackers; a tracker that fails never stops a run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from secli.errors import UnknownNameError
from secli.figures.curves import plot_curves
from secli.records.schema import CURVES_FILE, EquivarianceRecord, read_record, read_training_record
from secli.storage.writing import scratch_folder
from secli.trackers.contract import Tracker
from secli.trackers.mlflow_tracker import MLflowTracker
from secli.trackers.tensorboard_tracker import TensorBoardTracker
from secli.training.events import Begun, EpochEnded, Event, Remark, Report

TRACKERS: dict[str, Callable[[Path], Tracker]] = {"mlflow": MLflowTracker, "tensorboard": TensorBoardTracker}


def open_trackers(names: Sequence[str], home: Path) -> dict[str, Tracker]:
    """Return the trackers by name, each once.

    Raises
    ------
    UnknownNameError
        When there is no such tracker; with the closest name.
    InputError
        When its package is not installed, or its store does not answer.
    """
    for name in names:
        if name not in TRACKERS:
            raise UnknownNameError("tracker --track", name, TRACKERS)
    return {name: TRACKERS[name](home) for name in dict.fromkeys(names)}


class Follower:
    """Forwards a run's events to several trackers.

    Parameters
    ----------
    home : Path
        Where the trackers store what they log.
    report : callable
        Receives every event too, and a remark when a tracker fails: it is then left out.
    strict : bool
        Whether a tracker that cannot be opened is an error, as for a user who has just requested it; otherwise it is
        left out too.

    Raises
    ------
    InputError
        When ``strict``; see :func:`open_trackers`.
    """

    def __init__(self, names: Sequence[str], home: Path, report: Report, strict: bool = True) -> None:
        self.report, self.begun = report, False
        self.trackers: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            try:
                self.trackers |= open_trackers([name], home)
            except Exception as error:
                if strict:
                    raise
                self._leave_out(name, error)

    def on_event(self, event: Event) -> None:
        """Forward one event of training."""
        self.report(event)
        if isinstance(event, Begun):
            self._begin(event.run)
        elif isinstance(event, EpochEnded):
            self._each(lambda tracker: tracker.epoch(event))

    def finish(self, run: Path) -> None:
        """Log the results of a finished run, and its curves where they were measured.

        What cannot be read or drawn is left out with a remark.
        """
        if self.trackers and not self.begun:  # the training was finished before; the curves are new
            self._begin(run)
        self._conclude(run)

    def settle(self, run: Path, failed: bool) -> None:
        """Log the end of a run with the trackers that followed it and do not know it: its process was killed before."""
        late: list[Tracker] = []

        def ask(tracker: Tracker) -> None:
            if not tracker.knows_end(run, failed):
                late.append(tracker)

        self._each(ask)
        if failed:
            self._each(lambda tracker: tracker.fail(run), late)
        elif late:
            self._begin(run, late)
            self._conclude(run, late)

    def _conclude(self, run: Path, among: Sequence[Tracker] | None = None) -> None:
        if not self.trackers:
            return
        try:
            record, curves = read_training_record(run), _curves(run)
        except Exception as error:
            self._remark("the results are left out", error)
            return
        with contextlib.ExitStack() as while_logging:
            picture = None
            try:
                picture_in = Path(tempfile.gettempdir()) / "secli-curves"
                picture = _picture(curves, while_logging.enter_context(scratch_folder(picture_in)))
            except Exception as error:
                self._remark("the picture of the curves is left out", error)
            self._each(lambda tracker: tracker.finish(run, record, curves, picture), among)

    def close(self) -> None:
        """Release all trackers."""
        self._each(lambda tracker: tracker.close())

    def _begin(self, run: Path, among: Sequence[Tracker] | None = None) -> None:
        self.begun = True
        self._each(lambda tracker: tracker.begin(run, read_training_record(run)), among)

    def _each(self, log: Callable[[Tracker], None], among: Sequence[Tracker] | None = None) -> None:
        for name, tracker in list(self.trackers.items()):
            if among is not None and tracker not in among:
                continue
            try:
                log(tracker)
            except Exception as error:  # a server that is gone, a full disk: the run itself goes on
                del self.trackers[name]
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        self.report(Remark(f"--track {name}: left out from here on: {_reason(error, name)}"))

    def _remark(self, what: str, error: Exception) -> None:
        names = ", ".join(self.trackers)
        self.report(Remark(f"--track {names}: {what}: {_reason(error, names)}"))


def _reason(error: Exception, name: str) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).removeprefix(f"--track {name}: ")


def _picture(curves: EquivarianceRecord | None, folder: Path) -> Path | None:
    """Draw the curves into a folder; None where there are none."""
    if curves is None or not curves.rows:
        return None
    picture = folder / "curves.png"
    plot_curves([curves], picture)
    return picture


def _curves(run: Path) -> EquivarianceRecord | None:
    file = run / CURVES_FILE
    if not file.is_file():
        return None
    record = read_record(file)
    return record if isinstance(record, EquivarianceRecord) else None


@contextlib.contextmanager
def following(names: Sequence[str], home: Path, report: Report, strict: bool = True) -> Iterator[Follower]:
    """Yield a follower, whose trackers are released at the end in every case."""
    follower = Follower(names, home, report, strict)
    try:
        yield follower
    finally:
        follower.close()
