"""Which values of a column are the best, and which cannot be told from it: paired tests over the draws."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Draw = tuple[str | None, int | None, int]
"""Digest of the images, realisation, seed: two values of one draw are compared."""

Test = Literal["t", "wilcoxon"]
TESTS: tuple[Test, ...] = ("t", "wilcoxon")
TEST_NAMES = {"t": "paired t test", "wilcoxon": "Wilcoxon signed-rank test"}
ALPHA = 0.05
FEWEST_PAIRS = 3
SAME = 1e-9


@dataclass(frozen=True)
class Standing:
    """How one value of a column stands to the best.

    Attributes
    ----------
    best
        Whether it is the best mean.
    pairs
        Independent draws that it shares with the best: realisations, or seeds where they share one realisation only.
    p
        Two-sided p of the paired test against the best, Holm-corrected; None for the best itself, and where so few
        draws are shared that the test could not find any difference.
    seeds_alone
        Whether the pairs are the seeds of one realisation, so that nothing is known of other images.
    """

    best: bool
    pairs: int
    p: float | None
    seeds_alone: bool = False

    @property
    def tied(self) -> bool:
        """Whether the test was made and found no difference from the best."""
        return self.p is not None and self.p > ALPHA

    @property
    def word(self) -> str | None:
        """``best``, ``tied``, ``worse`` or None where nothing is known."""
        if self.best:
            return "best"
        return None if self.p is None else "tied" if self.tied else "worse"


def standings(
    samples: Sequence[Mapping[Draw, float]], lower_is_better: bool, test: Test = "t"
) -> list[Standing | None]:
    """Compare every sample of a column (draw to value; empty where a row has none) with the best mean.

    Returns one standing per sample, None for an empty one; all None where fewer than two have values, or all values
    are the same.
    """
    there = [index for index, sample in enumerate(samples) if sample]
    found: list[Standing | None] = [None] * len(samples)
    if len(there) < 2 or len({value for index in there for value in samples[index].values()}) < 2:
        return found
    sign = 1 if lower_is_better else -1
    best = min(there, key=lambda index: sign * statistics.fmean(samples[index].values()))
    differences = {index: paired_differences(samples[index], samples[best]) for index in there}
    testable = [index for index in there if index != best and len(differences[index]) >= FEWEST_PAIRS]
    # by their number alone, before a value is looked at: a test that cannot find anything shall not say "tied"
    able = [index for index in testable if smallest_p(len(differences[index]), test) * len(testable) <= ALPHA]
    raw = [p_value(differences[index], test) for index in able]
    corrected = dict(zip(able, holm(raw), strict=True))
    for index in there:
        alone = seeds_alone(samples[index], samples[best])
        found[index] = Standing(index == best, len(differences[index]), corrected.get(index), alone)
    return found


def paired_differences(one: Mapping[Draw, float], other: Mapping[Draw, float]) -> list[float]:
    """Return the differences over the independent draws that both have; what rounding can make is no difference.

    Seeds on the same images are no independent draws of the images: where several realisations are shared, the
    differences of one realisation are averaged over its seeds first. Where one is, every seed is a draw, and what
    is found holds for these images alone.
    """
    shared: dict[tuple[str | None, int | None], list[float]] = {}
    for draw, mine in one.items():
        if draw in other:
            theirs = other[draw]
            difference = 0.0 if math.isclose(mine, theirs, rel_tol=SAME) else mine - theirs
            shared.setdefault(draw[:2], []).append(difference)
    if len(shared) == 1:
        return next(iter(shared.values()))
    return [statistics.fmean(differences) for differences in shared.values()]


def seeds_alone(one: Mapping[Draw, float], other: Mapping[Draw, float]) -> bool:
    """Say whether the common draws are several seeds of one realisation."""
    shared = [draw for draw in one if draw in other]
    return len(shared) > 1 and len({draw[:2] for draw in shared}) == 1


def smallest_p(pairs: int, test: Test) -> float:
    """Return the smallest p that a test can give: 2 / 2ⁿ for Wilcoxon's, all n differences of one sign; t: 0."""
    return 2.0 ** (1 - pairs) if test == "wilcoxon" else 0.0


def p_value(differences: Sequence[float], test: Test = "t") -> float:
    """Return the two-sided p of a paired test: t = mean / (standard deviation / √n), n − 1 degrees of freedom.

    Differences that are all zero give 1; for the t test, equal differences that are not zero give 0.
    """
    if not any(differences):
        return 1.0
    if test == "wilcoxon":
        return _wilcoxon(differences)
    from scipy.special import stdtr

    mean, spread = statistics.fmean(differences), statistics.stdev(differences)
    if spread == 0:
        return 0.0
    return float(2 * stdtr(len(differences) - 1, -abs(mean) / (spread / math.sqrt(len(differences)))))


def _wilcoxon(differences: Sequence[float]) -> float:
    import warnings

    from scipy.stats import wilcoxon

    with warnings.catch_warnings():  # zeros and equal ranks: the normal approximation, with a warning
        warnings.simplefilter("ignore")
        return float(wilcoxon(differences).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number after Holm (1979): the smallest × m, the next × (m − 1), …

    Examples
    --------
    >>> holm([0.04, 0.01])
    [0.04, 0.02]
    """
    corrected = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected


def standard_errors(
    mean: float, std: float | None, n: int, other: float, other_std: float | None, other_n: int
) -> float | None:
    """Return (mean − other) / √(se² + se²) with se = std / √n; None where a standard error is not known."""
    if std is None or other_std is None or n < 2 or other_n < 2:
        return None
    error = math.sqrt(std**2 / n + other_std**2 / other_n)
    return None if error == 0 else (mean - other) / error


def mean_ranks(
    means: Sequence[Sequence[float | None]], lower_is_better: Sequence[bool]
) -> tuple[list[float | None], list[int]]:
    """Return the mean rank of each row of means, and the columns that it is taken over: those that all rows have.

    Equal values share the mean of their ranks; a row without any value neither ranks nor counts.
    """
    from pandas import DataFrame

    there = DataFrame(means, dtype=float).dropna(how="all")
    columns = [column for column in there if len(there) and there[column].notna().all()]
    ranks = DataFrame({column: there[column].rank(ascending=lower_is_better[column]) for column in columns})
    mean = ranks.mean(axis="columns") if columns else {}
    return [float(mean[row]) if row in mean else None for row in range(len(means))], columns
