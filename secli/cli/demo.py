"""``secli demo``: the whole way through, on handwritten digits that need no download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from secli.cli.console import note, out, terminal_width
from secli.cli.options import Quiet, Threads, option, out_option, seed_option

if TYPE_CHECKING:
    from secli.config import MeasureSettings, TrainingSettings
    from secli.datasets.store import ScaleDataset
    from secli.records.schema import EquivarianceRecord


class DemoRun(NamedTuple):
    """One network of the demo, and for how many epochs: enough to learn, few enough to wait for."""

    model: str
    epochs: int


RUNS = (DemoRun("cnn", 20), DemoRun("dcn", 10), DemoRun("dss_v1", 30), DemoRun("mnist_ses_vector_28", 8))
FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
SHOWN = (0.8, 0.5)


def demo(
    directory: Annotated[Path, out_option("Directory for datasets, runs and the plot.")] = Path("demo"),
    every: Annotated[
        bool,
        option(
            "Every network of the registry instead: one epoch, measured, one table. Half an hour on 2 cores.",
            "--all",
        ),
    ] = False,
    seed: Annotated[int, seed_option("the runs")] = 0,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Build a dataset, train four networks, draw their equivariance curves, print the table (a few minutes).

    Trains on digits-scale (digits shrunk by random factors), measures on digits (the same at their own scale).
    A second call finds what is there and only measures again. The last line is the path of the plot.
    """
    if every:
        from secli.cli.demo_all import demo_all
        from secli.training.devices import cores

        demo_all(directory, seed, threads or cores(), quiet)
        return
    from secli.config import MeasureSettings
    from secli.datasets.build import make_dataset
    from secli.datasets.store import open_dataset
    from secli.figures.curves import curves_caption, plot_curves
    from secli.figures.page import write_caption
    from secli.sweeps.measure import machine
    from secli.tables.compare import compare
    from secli.tables.groups import summarise
    from secli.tables.render import render

    def tell(text: str) -> None:
        if not quiet:
            note(text)

    tell(f"1/4  make-data digits-scale, digits → {directory / 'data'}")
    (trained_on,) = make_dataset("digits-scale", directory / "data")
    (measured_on,) = make_dataset("digits", directory / "data")
    scaled, plain = open_dataset(trained_on.path), open_dataset(measured_on.path)
    settings = MeasureSettings(factors=FACTORS, images=plain.manifest.sizes["test"])
    where = machine("auto", threads)
    runs, records = [], []
    for index, each in enumerate(RUNS, start=1):
        tell(f"2/4  train {each.model}, {each.epochs} epochs ({index} of {len(RUNS)})")
        run, trained = _train(each, scaled, directory / "runs", seed, threads, quiet)
        tell(f"     {trained}")
        runs.append(run)
        records.append(_measure(run, measured_on.path, settings, where, quiet))
    tell("3/4  compare")
    table = compare(summarise(runs, factors=SHOWN)).main
    out(render(table, "table", terminal_width()))
    picture = directory / "curves.png"
    plot_curves(records, picture)
    caption = write_caption(picture, curves_caption(records))
    tell(f"4/4  what the marks in the curves warn of is in {caption}, the curves are in")
    out(str(picture))


def _train(
    of: DemoRun, data: ScaleDataset, runs: Path, seed: int, threads: int, quiet: bool
) -> tuple[Path, str]:
    """Train a network, or find it trained; return its run directory, and in words what came of it."""
    from secli.cli.train import RunOptions, run_training, summary
    from secli.config import ModelSettings, TrainingSettings, validated
    from secli.errors import InterruptedRunError
    from secli.training.plan import default_training

    usual = default_training(of.model).model_dump()
    # the published schedule, squeezed into the demo's few epochs
    milestones = sorted({max(1, round(m * of.epochs / usual["epochs"])) for m in usual["milestones"]})
    changed = {"epochs": of.epochs, "milestones": milestones, "seed": seed, "threads": threads}
    training = validated(TrainingSettings, {**usual, **changed}, "demo")
    options = RunOptions(runs, resume=True, quiet=quiet)
    try:
        run, record = run_training(ModelSettings(name=of.model), data, training, options)
    except InterruptedRunError:  # the demo takes no --resume, and needs none
        raise InterruptedRunError("repeat the command to go on") from None
    return run, summary(record)


def _measure(
    run: Path, data: Path, settings: MeasureSettings, where: TrainingSettings, quiet: bool
) -> EquivarianceRecord:
    """Measure a run, and write the results into it."""
    from secli.cli.results import Measurement, measure_watched, write_results
    from secli.sweeps.measure import MeasureRequest, pictures_for
    from secli.training.load import load_subject

    subject = load_subject(str(run))
    pictures = pictures_for(subject, data, settings)
    record = measure_watched(Measurement(subject, pictures, MeasureRequest(settings)), where, quiet)
    write_results(subject, record, None, quiet=True)
    return record
