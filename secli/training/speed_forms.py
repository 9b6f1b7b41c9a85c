"""What each faster form of the layers brings to a network: its time without the form over its time with all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from secli.layers.fast.forms import FORMS, without_forms
from secli.training.speed import NOISE, Mode, Subject, in_turn, spread


@dataclass(frozen=True)
class FormSpeed:
    """What one form brings to one network in one mode.

    Attributes
    ----------
    model, mode
        As in :class:`secli.training.speed.Speed`.
    form
        Which form is left out; see :data:`secli.layers.fast.forms.FORMS`.
    ratio
        Median over the rounds of the time without it over the time with all forms.
    low, high
        The lowest and the highest of the rounds.
    repeats, batch
        Rounds, and images per pass.
    noisy
        Whether the middle half of the rounds spans more than 20 % of the median.
    """

    model: str
    mode: Mode
    form: str
    ratio: float
    low: float
    high: float
    repeats: int
    batch: int
    noisy: bool


def measure_forms(
    names: Sequence[str],
    modes: Sequence[Mode] = ("train", "eval"),
    *,
    batch: int = 32,
    repeats: int = 5,
    seconds: float = 0.2,
    device: str = "cpu",
    precision: str = "32",
    image_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[FormSpeed]:
    """Time networks with all forms and without each in turn, within the same rounds.

    Parameters
    ----------
    names, modes, batch, repeats, seconds, device, precision, image_size, on_progress
        As in :func:`secli.training.speed.measure_speed`.

    Returns
    -------
    list of FormSpeed
        Network by network, mode by mode, form by form.
    """
    subjects = [Subject(name, batch, device, image_size, precision) for name in names]
    entrants = [(subject, mode) for subject in subjects for mode in modes]
    left_out: list[tuple[str, ...]] = [(), *((form,) for form in FORMS)]
    works = [partial(_seconds, *entrant, forms) for entrant in entrants for forms in left_out]
    times = iter(in_turn(works, repeats, seconds, on_progress))
    results = []
    for subject, mode in entrants:
        whole = next(times)
        results += [_speed(subject, mode, form, whole, next(times)) for form in FORMS]
    return results


def _seconds(subject: Subject, mode: Mode, forms: tuple[str, ...], passes: int) -> float:
    with without_forms(*forms):
        return subject.seconds(mode, passes)


def _speed(subject: Subject, mode: Mode, form: str, whole: list[float], without_it: list[float]) -> FormSpeed:
    ratios = [slower / own for own, slower in zip(whole, without_it, strict=True)]
    return FormSpeed(
        subject.name,
        mode,
        form,
        median(ratios),
        min(ratios),
        max(ratios),
        len(ratios),
        len(subject.images),
        spread(ratios) > NOISE,
    )
