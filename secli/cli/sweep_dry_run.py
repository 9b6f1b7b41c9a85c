"""``secli sweep --dry-run``: the runs with how far they have come, what they will cost, and on what that rests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from secli.cli.console import bar, out, out_json, terminal_width
from secli.cli.sweep_progress import duration

if TYPE_CHECKING:
    from secli.sweeps.cpu_rates import Rates
    from secli.sweeps.estimate import Estimate
    from secli.sweeps.jobs import JobState
    from secli.sweeps.plan import PlannedRun
    from secli.sweeps.spec import Sweep

STATES = {
    "todo": "to do",
    "interrupted": "interrupted",
    "trained": "to measure",
    "failed": "failed",
    "done": "finished",
}


@dataclass(frozen=True)
class DryRun:
    """A sweep's runs and what is known of them.

    Attributes
    ----------
    name, slots
        Of the sweep; runs at once.
    estimates, words
        One of each run, and how far it has come.
    left
        Estimates of the runs that are not over.
    networks
        How many networks were counted.
    rates
        What this machine does in a second, by the threads of the runs.
    """

    name: str
    slots: int
    estimates: Sequence[Estimate]
    words: list[str]
    left: Sequence[Estimate]
    networks: int
    rates: Mapping[int, Rates]

    @property
    def work(self) -> float:
        """Seconds of all runs."""
        return sum(each.seconds or 0.0 for each in self.estimates)

    @property
    def work_left(self) -> float:
        """Seconds of the runs that are not over."""
        return sum(each.seconds or 0.0 for each in self.left)

    @property
    def seconds(self) -> float:
        """Seconds until all is done, several at once."""
        from secli.sweeps.estimate import longest_path

        return longest_path([each.seconds for each in self.left if each.seconds is not None], self.slots)

    @property
    def peak(self) -> float:
        """Bytes of the largest run that is not over."""
        return max((each.memory or 0.0 for each in self.left), default=0.0)

    @property
    def unknown(self) -> int:
        """Runs that are not over and whose size is not known."""
        return sum(each.seconds is None for each in self.left)

    @property
    def measured(self) -> int:
        """Runs whose training is known from finished ones."""
        return sum(each.measured for each in self.estimates)


def print_plan(
    sweep: Sweep,
    runs: Sequence[PlannedRun],
    states: Sequence[JobState],
    directory: Path,
    slots: int,
    retry_failed: bool,
    format: str,
    quiet: bool,
) -> None:
    """Print the runs with how far they have come and what they will cost."""
    from secli.sweeps.cpu_rates import measured_rates
    from secli.sweeps.estimate import distinct, estimate, finished_seconds, protocol_sizes
    from secli.sweeps.scheduler import given_up, seconds_below

    threads = {run.resolved.training.threads for run in runs}
    rates = {count: measured_rates(count) for count in sorted(threads)}
    known = finished_seconds(runs, seconds_below(directory))
    with bar("networks", quiet, "count the work of each network") as tell:
        estimates = estimate(runs, protocol_sizes, known, rates, tell)
    over = [state.state == "done" or given_up(state, retry_failed) for state in states]
    left = [each for each, is_over in zip(estimates, over, strict=True) if not is_over]
    words = [STATES[state.state] for state in states]
    plan = DryRun(sweep.name, slots, estimates, words, left, distinct(runs), rates)
    if format == "json":
        out_json(_content(plan))
    else:
        _print_table(plan)


def _print_table(plan: DryRun) -> None:
    from tabulate import tabulate

    rows = [
        (
            each.run.title,
            word,
            "?" if each.seconds is None else duration(each.seconds),
            "?" if each.memory is None else f"{each.memory / 2**20:.0f}",
        )
        for each, word in zip(plan.estimates, plan.words, strict=True)
    ]
    heads = ("run", "state", "time", "memory (MiB)")
    out(tabulate(rows, heads, colalign=("left", "left", "right", "right")))
    for text in (_in_words(plan), _basis_in_words(plan)):
        out("\n" + fill(text, terminal_width(), break_long_words=False, break_on_hyphens=False))


def _in_words(plan: DryRun) -> str:
    """Say how many runs there are and what is left of them costs."""
    begun = [word for word in STATES.values() if word != "to do" and word in plan.words]
    counts = "".join(f", {plan.words.count(word)} {word}" for word in begun)
    told = f"{plan.name}: {len(plan.estimates)} run{'s' * (len(plan.estimates) != 1)}{counts}"
    if not plan.left:
        return f"{told}; nothing is left to do ({duration(plan.work)} of work in all)"
    if len(plan.left) < len(plan.estimates):
        told += f"; {len(plan.left)} left"
    cost = f"about {duration(plan.seconds)} with {plan.slots} at once ({duration(plan.work_left)} of work"
    cost += f" left, {duration(plan.work)} in all)" if begun else ")"
    more = f"; {plan.unknown} of unknown size not counted" if plan.unknown else ""
    return f"{told}, {cost}, at most {plan.peak / 2**20:.0f} MiB each{more}"


def _basis_in_words(plan: DryRun) -> str:
    """Say on what the estimate rests, and how far it can be off."""
    speeds = "; ".join(f"{_threads(count)} {_speeds(rates)}" for count, rates in plan.rates.items())
    networks = f"{plan.networks} network{'s' * (plan.networks != 1)}"
    text = (
        f"This rests on the operations of a training step, counted from the shapes of {networks} that differ (no step "
        f"was run), and on the speed of this machine's CPU, measured just now: {speeds}. Half or twice the time is "
        "possible, thrice for the smallest networks; augmentation and reading of images are not counted, and a GPU is "
        "faster."
    )
    known = plan.measured
    if known:
        text += f" The training of {known} run{'s' * (known != 1)} is taken from finished runs of the same settings."
    return text + " Memory is that of the step; the libraries take some hundred MiB more."


def _threads(count: int) -> str:
    return {0: "with a thread per core", 1: "with 1 thread"}.get(count, f"with {count} threads")


def _speeds(rates: Rates) -> str:
    return (
        f"{rates.products / 1e9:.3g} GFLOP/s in convolutions and matrix products, "
        f"{rates.samples / 1e9:.3g} in bilinear sampling, {rates.transforms / 1e9:.3g} in Fourier transforms, "
        f"{rates.traffic / 1e9:.3g} GB/s in all else"
    )


def _content(plan: DryRun) -> dict[str, Any]:
    """Return the plan for programs."""
    return {
        "name": plan.name,
        "runs": [_row(each, word) for each, word in zip(plan.estimates, plan.words, strict=True)],
        "estimate": {
            "runs": len(plan.estimates),
            "runs_left": len(plan.left),
            "at_once": plan.slots,
            "seconds": plan.seconds,
            "seconds_of_work": plan.work_left,
            "seconds_of_work_in_all": plan.work,
            "peak_memory_mib": plan.peak / 2**20,
            "of_unknown_size": plan.unknown,
            "basis": _basis(plan),
        },
    }


def _row(each: Estimate, word: str) -> dict[str, Any]:
    return {
        "model": each.run.model.name,
        "label": each.run.label,
        "tag": each.run.tag,
        "options": each.run.resolved.options,
        "training": each.run.resolved.training.model_dump(mode="json"),
        "dataset": each.run.data.name,
        "realisation": each.run.data.realisation,
        "seed": each.run.seed,
        "state": word,
        "seconds": each.seconds,
        "memory_mib": None if each.memory is None else each.memory / 2**20,
        "from_finished_runs": each.measured,
    }


def _basis(plan: DryRun) -> dict[str, Any]:
    """Return on what the estimate rests."""
    return {
        "networks_counted": plan.networks,
        "runs_from_finished_runs": plan.measured,
        "cpu": [
            {
                "threads": threads,
                "product_flops_per_second": rates.products,
                "sampling_flops_per_second": rates.samples,
                "transform_flops_per_second": rates.transforms,
                "other_bytes_per_second": rates.traffic,
            }
            for threads, rates in plan.rates.items()
        ],
    }
