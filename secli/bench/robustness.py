"""Networks measured for their robustness: the curves of each, then what a forward pass of each costs, in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from torch import Tensor

from secli.bench.timing import OnProgress, duration, in_turn
from secli.config import MeasureSettings, TrainingSettings
from secli.datasets.loading import pixels
from secli.datasets.pictures import Pictures
from secli.equivariance.evaluation_mode import measuring
from secli.errors import SecliError, foreign_line
from secli.external.targets import LIBRARIES
from secli.models.flops import flops
from secli.records.notes import Note
from secli.records.schema import EquivarianceRecord
from secli.sweeps.measure import MeasureRequest, Watch, measure_subject, pictures_for, unwatched
from secli.sweeps.true_classes import in_classes_of
from secli.tables.robustness import Contender, PassCost
from secli.training.determinism import reproducible
from secli.training.load import Subject

ROUNDS = 3
SECONDS = 0.2
"""A turn makes as many whole passes as fill this time, at least one."""
BATCH = 8
"""Images of a timed pass, where no batch is asked for."""

Lost = str
"""Why a network could not be measured."""


class Measured(NamedTuple):
    """A network that was measured, with the pictures that it was measured on."""

    subject: Subject
    pictures: Pictures
    record: EquivarianceRecord


def measure_robustness(
    networks: Sequence[tuple[str, Subject | Lost]],
    data: Path,
    settings: MeasureSettings,
    where: TrainingSettings,
    watch: Watch = unwatched,
    remark: Callable[[str], None] = lambda text: None,
    on_timing: OnProgress | None = None,
) -> list[Contender]:
    """Measure networks on the same pictures, then time them in turn.

    Parameters
    ----------
    networks : sequence of (name, Subject or str)
        As on the command line; a text is why a network could not be loaded.
    data : Path
        The pictures.
    settings : MeasureSettings
        Of the curves; the factors must be given, so that all networks have the same.
    where : TrainingSettings
        Device and threads, as :func:`secli.sweeps.measure.machine` resolves them.
    watch, remark, on_timing : callable, optional
        Receive the progress, and what a reader of the numbers must know.

    Returns
    -------
    list of Contender
        In the order given; one that cannot be measured has its reason.
    """
    found: dict[str, Measured | Lost] = {}
    for name, subject in networks:
        found[name] = (
            subject
            if isinstance(subject, str)
            else _tried(partial(_measured, subject, data, settings, where, watch, remark))
        )
    there = {name: one for name, one in found.items() if isinstance(one, Measured)}
    costs = _costs(there, settings.batch or BATCH, where, on_timing)
    return [
        Contender(name, one.record, costs[name], weights=_weights(one.subject))
        if isinstance(one, Measured)
        else Contender(name, None, reason=one)
        for name, one in found.items()
    ]


def timed_how(settings: MeasureSettings, where: TrainingSettings) -> str:
    """Return how images/s are timed, in words."""
    threads = f", {where.threads} thread{'s' * (where.threads != 1)}" if where.device == "cpu" else ""
    batch = settings.batch or BATCH
    rounds = f"median of {ROUNDS} rounds in which networks take turns"
    return f"{rounds}, up to {batch} images a pass, {where.device}{threads}"


def _weights(subject: Subject) -> str | None:
    """Return the origin of weights in words; None of a factory's, which may have loaded some by itself."""
    of_factory = subject.foreign and subject.info.name.partition(":")[0] not in LIBRARIES
    return None if subject.fresh and of_factory else subject.weights


def _tried(measure: Callable[[], Measured]) -> Measured | Lost:
    """Return what was measured, or why a network cannot be; a bug of ours is raised."""
    try:
        return measure()
    except SecliError as error:
        return str(error)
    except Exception as error:
        line = foreign_line(error)
        if line is None:
            raise
        return line


def _measured(
    subject: Subject,
    data: Path,
    settings: MeasureSettings,
    where: TrainingSettings,
    watch: Watch,
    remark: Callable[[str], None],
) -> Measured:
    pictures = pictures_for(subject, data, settings)
    labelled, reason = in_classes_of(subject, pictures, _outputs(subject, pictures, where))
    record = measure_subject(subject, labelled, MeasureRequest(settings), where, watch, remark)
    return Measured(subject, labelled, record if reason is None else _with_reason(record, reason))


def _with_reason(record: EquivarianceRecord, reason: Note) -> EquivarianceRecord:
    """Return a record whose missing accuracies say why there were no labels."""
    rows = [
        row.model_copy(update={"reason": reason}) if row.agreement is not None else row
        for row in record.accuracy
    ]
    return record.model_copy(update={"accuracy": rows})


def _outputs(subject: Subject, pictures: Pictures, where: TrainingSettings) -> int | None:
    """Return how many classes a network tells apart; None where it gives no logits."""
    with measuring(subject.model, where.device) as dtype:
        image = pixels(pictures.images[:1].to(where.device), dtype)
        logits = subject.model.features(image).get("logits")
    return logits.shape[1] if isinstance(logits, Tensor) else None


def _costs(
    measured: dict[str, Measured], batch: int, where: TrainingSettings, on_timing: OnProgress | None
) -> dict[str, PassCost | None]:
    """Return what a pass of each network costs, timed in turn; nothing of those without logits."""
    names = [
        name
        for name, one in measured.items()
        if any(row.agreement is not None for row in one.record.accuracy)
    ]
    costs: dict[str, PassCost | None] = dict.fromkeys(measured)
    with reproducible(where, strict=False), ExitStack() as stack:
        counted: dict[str, int] = {}
        works: list[Callable[[int], float]] = []
        sizes = []
        for name in names:
            subject, pictures, _ = measured[name]
            dtype = stack.enter_context(measuring(subject.model, where.device, inference=False))
            images = pixels(pictures.images[:batch].to(where.device), dtype)
            counted[name] = flops(subject.model, images[:1])
            works.append(partial(duration, partial(subject.model, images), device=where.device))
            sizes.append(len(images))
        times = in_turn(works, ROUNDS, SECONDS, on_timing) if works else []
    for name, size, own in zip(names, sizes, times, strict=True):
        costs[name] = PassCost(counted[name], median(size / seconds for seconds in own))
    return costs
