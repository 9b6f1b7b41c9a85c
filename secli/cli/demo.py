"""``secli demo``: the whole way through, on handwritten digits that need no download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from secli.cli.console import note, out
from secli.cli.limits import SEED, THREADS


class DemoRun(NamedTuple):
    """One network of the demo, and for how many epochs: enough to learn, few enough to wait for."""

    model: str
    epochs: int


RUNS = (DemoRun("cnn", 20), DemoRun("dcn", 10), DemoRun("dss_v1", 30), DemoRun("mnist_ses_vector_28", 8))
FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
SHOWN = (0.8, 0.6, 0.5)


def demo(
    directory: Annotated[
        Path, typer.Option("--out", help="Directory for datasets, runs and the plot.")
    ] = Path("demo"),
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Every network of the registry instead: one epoch, measured, one table. Half an hour on 2 cores.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(**SEED, help="Seed of the runs.")] = 0,
    threads: Annotated[int, typer.Option(**THREADS, help="CPU threads; 0: one per core.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")] = False,
) -> None:
    """Build a dataset, train four networks, draw their equivariance curves, print the table (a few minutes).

    Trains on digits-scale (digits shrunk by random factors), measures on digits (the same at their own scale).
    A second call finds what is there and only measures again. The last line is the path of the plot.
    """
    from shutil import get_terminal_size

    from secli.cli.measuring import measure_watched, write_results
    from secli.cli.train import run_training, summary
    from secli.config import MeasureSettings, ModelSettings, TrainingSettings, validated
    from secli.datasets.build import make_dataset
    from secli.datasets.store import open_dataset
    from secli.errors import InterruptedRunError
    from secli.sweeps.measure import MeasureRequest, machine, pictures_for
    from secli.tables.aggregate import summarise
    from secli.tables.comparison import compare
    from secli.tables.formats import render
    from secli.tables.plots import plot_curves
    from secli.training.load import load_subject
    from secli.training.plan import default_training

    if every:
        from secli.cli.demo_all import demo_all
        from secli.training.devices import cores

        demo_all(directory, seed, threads or cores(), quiet)
        return

    def say(text: str) -> None:
        if not quiet:
            note(text)

    say(f"1/4  make-data digits-scale, digits → {directory / 'data'}")
    (trained_on,) = make_dataset("digits-scale", directory / "data")
    (measured_on,) = make_dataset("digits", directory / "data")
    scaled, plain = open_dataset(trained_on.path), open_dataset(measured_on.path)
    settings = MeasureSettings(factors=FACTORS, images=plain.manifest.sizes["test"])
    where = machine("auto", threads)
    runs, records = [], []
    for index, (model, epochs) in enumerate(RUNS, start=1):
        say(f"2/4  train {model}, {epochs} epochs ({index} of {len(RUNS)})")
        usual = default_training(model).model_dump()
        # the published schedule, squeezed into the demo's few epochs
        milestones = sorted({max(1, round(m * epochs / usual["epochs"])) for m in usual["milestones"]})
        wanted = {**usual, "epochs": epochs, "milestones": milestones, "seed": seed, "threads": threads}
        training = validated(TrainingSettings, wanted, "demo")
        try:
            run, record = run_training(
                ModelSettings(name=model), scaled, training, directory / "runs", resume=True, quiet=quiet
            )
        except InterruptedRunError:  # the demo takes no --resume, and needs none
            raise InterruptedRunError("repeat the command to go on") from None
        say(f"     {summary(record)}")
        subject = load_subject(str(run))
        pictures = pictures_for(subject, measured_on.path, settings)
        curves = measure_watched(subject, pictures, MeasureRequest(settings), where, quiet)
        write_results(subject, curves, None, quiet=True)
        runs.append(run)
        records.append(curves)
    say("3/4  compare")
    table = compare(summarise(runs, factors=SHOWN)).main
    out(render(table, "table", get_terminal_size((100, 24)).columns))
    picture = directory / "curves.png"
    plot_curves(records, picture, title="secli demo: digits, trained at factors 0.3 to 1")
    say("4/4  the curves are in")
    out(str(picture))
