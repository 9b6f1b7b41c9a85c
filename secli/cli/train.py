"""``secli train``: one network, one dataset, one run directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from secli.cli import console
from secli.cli.console import note, progress
from secli.cli.options import (
    DEVICES,
    PRECISIONS,
    PROCESSES,
    Quiet,
    Track,
    argument,
    config_option,
    force_option,
    merged_settings,
    option,
    out_option,
    set_option,
)

if TYPE_CHECKING:
    from secli.config import ModelSettings, TrainingSettings
    from secli.datasets.store import ScaleDataset
    from secli.equivariance.while_training import EpochMeasure
    from secli.records.schema import TrainingRecord
    from secli.training.events import Event


class RunOptions(NamedTuple):
    """Where a run goes, and what becomes of one that is there.

    Attributes
    ----------
    runs
        Directory of runs.
    resume, force
        Go on with a run that is there, or replace it.
    quiet
        Show nothing.
    trackers
        Names of trackers that are told of it too.
    measure
        What is measured between epochs, if anything.
    """

    runs: Path
    resume: bool = False
    force: bool = False
    quiet: bool = False
    trackers: tuple[str, ...] = ()
    measure: EpochMeasure | None = None


def train(
    model: Annotated[
        str | None, argument("MODEL", "Registry name ('secli models' lists them); or model.name in --config.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        option(
            "Dataset directory that 'secli make-data' wrote, e.g. data/mnist/r0; repeatable with --replicas.",
            metavar="DIR",
        ),
    ] = None,
    out: Annotated[Path, out_option("Directory of runs.")] = Path("runs"),
    epochs: Annotated[int | None, option("Passes over the training images.", default="the model's")] = None,
    batch: Annotated[int | None, option("Images per step, over all devices.", default="the model's")] = None,
    lr: Annotated[float | None, option("Initial learning rate.", default="the model's")] = None,
    seed: Annotated[
        int | None, option("Seed of weights, order, dropout and augmentation.", default="0")
    ] = None,
    augment: Annotated[
        str | None,
        option(
            "'scale' rescales each training image by a factor from U\\[0.5, 2]; 'stl10' pads, crops, mirrors and cuts "
            "out.",
            default="the model's",
            metavar="none|scale|stl10",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None, set_option("SECTION.KEY=VALUE", "Set an option of the model or of its training")
    ] = None,
    config: Annotated[
        Path | None, config_option("model, data, training; a run's config.yaml repeats it")
    ] = None,
    resume: Annotated[
        bool, option("Go on with this run if it stands there; settings must be the same.", "--resume")
    ] = False,
    force: Annotated[bool, force_option("a run")] = False,
    device: Annotated[str | None, option("Where to compute.", default="auto", metavar=DEVICES)] = None,
    devices: Annotated[int | None, option("Devices that share each batch.", default="1")] = None,
    precision: Annotated[
        str | None, option("Arithmetic of the steps.", default="32", metavar=PRECISIONS)
    ] = None,
    accumulate: Annotated[
        int | None,
        option(
            "Pass each batch through in N parts and add their gradients: less memory. Batch norms see the parts.",
            default="1",
            metavar="N",
        ),
    ] = None,
    checkpoint_activations: Annotated[
        bool,
        option(
            "Compute activations again in the backward pass: less memory, a third more time.",
            "--checkpoint-activations",
        ),
    ] = False,
    compile: Annotated[
        bool,
        option(
            "Compile the network for the steps (needs a C++ compiler; on CUDA Triton and a C compiler).",
            "--compile",
        ),
    ] = False,
    replicas: Annotated[
        int | None,
        option(
            "Train R networks in this process, a run directory each: on one --data seeds SEED, SEED+1, …; on R of "
            "them, or on a directory that holds r0, r1, …, a realisation each.",
            metavar="R",
            **PROCESSES,
        ),
    ] = None,
    at_once: Annotated[
        bool | None,
        option(
            "With --replicas: stacked, all in each step, or one after the other.",
            "--at-once/--no-at-once",
            default="at once on CUDA, which small networks leave idle",
        ),
    ] = None,
    threads: Annotated[int | None, option("CPU threads, recorded; 0: one per core.", default="0")] = None,
    measure_every: Annotated[
        int | None,
        option(
            "After every K-th epoch write Δ and accuracy over scale factors into metrics.jsonl, measured on 300 "
            "validation images; --set measure.taps, factors or images choose others. Each factor costs a pass over "
            "them; the weights stay the same to the bit.",
            metavar="K",
            min=1,
            max=1_000_000,
        ),
    ] = None,
    track: Track = None,
    quiet: Quiet = False,
) -> None:
    """Train a network and print its run directory.

    Writes OUT/MODEL/DATASET-rK-sSEED: config.yaml, metrics.jsonl, model.safetensors (best validation epoch),
    state/ and record.json. Defaults are the model's published settings; flags win over --set and --config.
    Ctrl-C saves the state and leaves with code 130; --resume goes on to the very same weights.
    With --replicas each replica has the run directory of its single run, and its results up to rounding.
    """
    from secli.catalogue import MODELS
    from secli.cli.train_replicas import raise_failures, replica_datasets, train_several
    from secli.config import (
        Config,
        ModelSettings,
        TrainingSettings,
        parse_assignments,
        read_config,
        validated,
    )
    from secli.datasets.store import open_dataset
    from secli.errors import InputError

    file = Config.model_validate({}) if config is None else read_config(config)
    given = parse_assignments(assignments or [], ["model", "training", "measure"])
    name = model or (file.model.name if file.model else None)
    if name is None:
        raise InputError("no model: give its name ('secli models' lists them), or model.name in --config")
    if at_once is not None and replicas is None:
        raise InputError(f"--{'' if at_once else 'no-'}at-once: goes with --replicas R")
    datasets = replica_datasets(data or ([Path(file.data)] if file.data else []), replicas)
    flags = {
        "epochs": epochs,
        "batch": batch,
        "lr": lr,
        "seed": seed,
        "augment": augment,
        "device": device,
        "devices": devices,
        "precision": precision,
        "threads": threads,
        "accumulate": accumulate,
        "compile": compile or None,
        "checkpoint_activations": checkpoint_activations or None,
    }
    given_training = merged_settings(
        TrainingSettings, "training", file.training, config, given["training"], flags
    )
    training = validated(TrainingSettings, {**MODELS[name].training, **given_training}, "training")
    options = {**(file.model.options if file.model else {}), **given["model"]}
    settings = ModelSettings(name=name, options=options)
    where = RunOptions(out, resume, force, quiet, tuple(track or ()))
    if given["measure"] and measure_every is None:
        raise InputError("--set measure: nothing is measured without --measure-every K")
    if measure_every is not None and replicas is not None:
        raise InputError("--measure-every: goes without --replicas; train the runs one by one")
    if replicas is None:
        dataset = open_dataset(datasets[0])
        if measure_every is not None:
            wanted = {**file.measure, **given["measure"]}
            where = where._replace(measure=epoch_measure(measure_every, dataset, settings, wanted))
        trained = [run_training(settings, dataset, training, where)]
    else:
        trained = train_several(settings, datasets, training, where, at_once)
    for run, record in trained:
        if record.results is not None:
            if not quiet:
                note(summary(record))
            console.out(str(run))
    raise_failures(trained)


def run_training(
    model: ModelSettings, dataset: ScaleDataset, training: TrainingSettings, options: RunOptions
) -> tuple[Path, TrainingRecord]:
    """Train with a progress display on stderr; see ``secli.training.run.train``."""
    from secli.trackers.forward import following
    from secli.training.run import train as train_model

    runs = options.runs
    with (
        showing(training.epochs, options.quiet) as show,
        following(options.trackers, runs, show) as follower,
    ):
        run, record = train_model(
            model,
            dataset,
            training,
            runs,
            resume=options.resume,
            force=options.force,
            on_event=follower.on_event,
            measure=options.measure,
        )
        follower.finish(run)
        return run, record


def epoch_measure(
    every: int, dataset: ScaleDataset, model: ModelSettings, wanted: Mapping[str, Any]
) -> EpochMeasure:
    """Return what measures a network between epochs, on its validation images, else its training images.

    Raises
    ------
    InputError
        On settings that are none, and on taps that the network does not have.
    """
    from secli.config import MeasureSettings, validated
    from secli.datasets.loading import to_device
    from secli.equivariance.curves import fields_of_taps
    from secli.equivariance.while_training import FACTORS, IMAGES, EpochMeasure
    from secli.errors import InputError
    from secli.models.building import build

    usual: dict[str, Any] = {"images": IMAGES}
    if "protocol" not in wanted:
        usual["factors"] = FACTORS
    settings = validated(MeasureSettings, {**usual, **wanted}, "measure")
    if settings.per:
        raise InputError(
            "measure.per: between epochs whole taps are measured; 'secli equivariance' takes them apart"
        )
    fields_of_taps(build(model.name, model.options), settings.taps)
    split = dataset.split("val" if dataset.manifest.sizes["val"] else "train")
    images, labels = to_device(split, "cpu")
    return EpochMeasure(every, images[: settings.images], labels[: settings.images], settings)


@contextmanager
def showing(epochs: int, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Give a function that shows a run's events: a bar over all steps, with loss, error and images/s."""
    from secli.training.events import Begun, EpochEnded, Remark, Stepped

    with progress(quiet, count=False) as display:
        task = display.add_task(f"epoch 1/{epochs}", total=epochs, detail="")
        steps, validation = 1, ""

        def at(epoch: int, done: float, detail: str = "") -> None:
            display.update(task, description=f"epoch {epoch}/{epochs}", completed=done, detail=detail)

        def reached(loss: float, error: float, rate: float) -> str:
            return f"loss {loss:.3f} err {100 * error:.1f}%{validation} {rate:.0f} img/s"

        def show(event: Event) -> None:
            nonlocal steps, validation
            if isinstance(event, Remark):
                if not quiet:
                    note(event.text)
            elif isinstance(event, Begun):
                steps = event.steps
                at(min(event.epoch, epochs), event.epoch - 1 + event.step / steps)
            elif isinstance(event, Stepped):
                now = reached(event.loss, event.error, event.images_per_second)
                at(event.epoch, event.epoch - 1 + event.step / steps, now)
            elif isinstance(event, EpochEnded):
                if event.val_error is not None:
                    validation = f" val {100 * event.val_error:.1f}%"
                now = reached(event.train_loss, event.train_error, event.images_per_second)
                at(event.epoch, event.epoch, now)

        yield show


def summary(record: TrainingRecord) -> str:
    """Say in one line what a finished run came to; errors in per cent."""
    results = record.results
    assert results is not None
    error = "no test images"
    if results.test_error is not None:
        error = f"test error {100 * results.test_error:.2f} % ({results.test_images} images)"
    data = f"{record.data.name} r{record.data.realisation}"
    return (
        f"{record.model.name} on {data}, seed {record.training['seed']}: {error}, "
        f"best epoch {results.best_epoch} of {results.epochs}, {results.train_seconds:.1f} s of training"
    )
