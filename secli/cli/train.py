"""``secli train``: one network, one dataset, one run directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secli.cli.console import note, out, progress
from secli.cli.limits import PROCESSES

if TYPE_CHECKING:
    from secli.config import Config, ModelSettings, TrainingSettings
    from secli.datasets.store import ScaleDataset
    from secli.records.schema import TrainingRecord
    from secli.training.events import Event


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Registry name ('secli models' lists them); or model.name in --config.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Dataset directory that 'secli make-data' wrote, e.g. data/mnist/r0; "
            "repeatable with --replicas.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[Path, typer.Option("--out", help="Directory of runs.")] = Path("runs"),
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training images. \\[default: the model's]", show_default=False),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Images per step, over all devices. \\[default: the model's]", show_default=False),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Initial learning rate. \\[default: the model's]", show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of weights, order, dropout and augmentation. \\[default: 0]", show_default=False
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="none|scale|stl10",
            help="'scale' rescales each training image by a factor from U\\[0.5, 2]; 'stl10' pads, crops, mirrors "
            "and cuts out. \\[default: the model's]",
            show_default=False,
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Set an option of the model or of its training; repeatable.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML with model, data, training; a run's config.yaml repeats it. Flags win.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with this run if it stands there; settings must be the same."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace this run if it stands there.")] = False,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="auto|cpu|cuda|mps", help="Where to train. \\[default: auto]", show_default=False
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Devices that share each batch. \\[default: 1]", show_default=False)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="32|tf32|bf16|16", help="Arithmetic of the steps. \\[default: 32]", show_default=False
        ),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            help="Pass each batch through in N parts and add their gradients: less memory. Batch norms see the parts. "
            "\\[default: 1]",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    checkpoint_activations: Annotated[
        bool,
        typer.Option(
            "--checkpoint-activations",
            help="Compute activations again in the backward pass: less memory, a third more time.",
        ),
    ] = False,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network for the steps (needs a C++ compiler; on CUDA Triton and a C compiler).",
        ),
    ] = False,
    replicas: Annotated[
        int | None,
        typer.Option(
            **PROCESSES,
            metavar="R",
            help="Train R networks in this process, a run directory each: on one --data seeds SEED, SEED+1, …; on R of "
            "them, or on a directory that holds r0, r1, …, a realisation each.",
            show_default=False,
        ),
    ] = None,
    at_once: Annotated[
        bool | None,
        typer.Option(
            "--at-once/--no-at-once",
            help="With --replicas: stacked, all in each step, or one after the other. "
            "\\[default: at once on CUDA, which small networks leave idle]",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads, recorded; 0: one per core. \\[default: 0]", show_default=False),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Also tell mlflow or tensorboard, in OUT (MLflow: or at its tracking URI); repeatable.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
) -> None:
    """Train a network and print its run directory.

    Writes OUT/MODEL/DATASET-rK-sSEED: config.yaml, metrics.jsonl, model.safetensors (best validation epoch),
    state/ and record.json. Defaults are the model's published settings; flags win over --set and --config.
    Ctrl-C saves the state and leaves with code 130; --resume goes on to the very same weights.
    With --replicas each replica has the run directory of its single run, and its results up to rounding.
    """
    from secli.cli.replicas import one_dataset, raise_failures, replica_places, train_several
    from secli.config import Config, ModelSettings, parse_assignments, read_config
    from secli.datasets.store import open_dataset
    from secli.errors import InputError

    file = Config.model_validate({}) if config is None else read_config(config)
    given = parse_assignments(assignments or [], ["model", "training"])
    name = model or (file.model.name if file.model else None)
    if name is None:
        raise InputError("no model: give its name ('secli models' lists them), or model.name in --config")
    places = data or ([Path(file.data)] if file.data else [])
    if at_once is not None and replicas is None:
        raise InputError(f"--{'' if at_once else 'no-'}at-once: goes with --replicas R")
    places = [one_dataset(places)] if replicas is None else replica_places(places, replicas)
    flags = {"epochs": epochs, "batch": batch, "lr": lr, "seed": seed, "augment": augment}
    flags |= {"device": device, "devices": devices, "precision": precision, "threads": threads}
    flags |= {"accumulate": accumulate, "compile": compile or None}
    flags |= {"checkpoint_activations": checkpoint_activations or None}
    training = _training(name, file, config, given["training"], flags)
    options = {**(file.model.options if file.model else {}), **given["model"]}
    settings = ModelSettings(name=name, options=options)
    if replicas is not None:
        trained = train_several(
            settings,
            places,
            training,
            runs,
            at_once=at_once,
            resume=resume,
            force=force,
            quiet=quiet,
            trackers=track or [],
        )
        for run, record in trained:
            if record.results is not None:
                if not quiet:
                    note(summary(record))
                out(str(run))
        raise_failures(trained)
        return
    run, record = run_training(
        settings,
        open_dataset(places[0]),
        training,
        runs,
        resume=resume,
        force=force,
        quiet=quiet,
        trackers=track or [],
    )
    if not quiet:
        note(summary(record))
    out(str(run))


def _training(
    name: str, file: Config, path: Path | None, given: dict[str, Any], flags: dict[str, Any]
) -> TrainingSettings:
    """Merge the training settings: flag > --set > YAML > the model's default; each is checked where it stands."""
    from secli.catalogue import MODELS
    from secli.config import TrainingSettings, validated

    chosen = {key: value for key, value in flags.items() if value is not None}
    validated(TrainingSettings, file.training, f"--config {path}: training")
    validated(TrainingSettings, given, "--set training")
    for key, value in chosen.items():
        validated(TrainingSettings, {key: value}, f"--{key.replace('_', '-')}")
    merged = {**MODELS[name].training, **file.training, **given, **chosen}
    return validated(TrainingSettings, merged, "training")


def run_training(
    model: ModelSettings,
    dataset: ScaleDataset,
    training: TrainingSettings,
    runs: Path,
    *,
    resume: bool = False,
    force: bool = False,
    quiet: bool = False,
    trackers: Sequence[str] = (),
) -> tuple[Path, TrainingRecord]:
    """Train with a progress display on stderr; see ``secli.training.run.train``."""
    from secli.trackers.forward import following
    from secli.training.run import train as train_model

    with showing(training.epochs, quiet) as show, following(trackers, runs, show) as follower:
        run, record = train_model(
            model, dataset, training, runs, resume=resume, force=force, on_event=follower.on_event
        )
        follower.finish(run)
        return run, record


@contextmanager
def showing(epochs: int, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Give a function that shows a run's events: a bar over all steps, with loss, error and images/s."""
    from secli.training.events import Begun, EpochEnded, Remark, Stepped

    with progress(quiet, count=False) as display:
        task = display.add_task(f"epoch 1/{epochs}", total=epochs, detail="")
        steps, validation = 1, ""

        def where(epoch: int, done: float, detail: str = "") -> None:
            display.update(task, description=f"epoch {epoch}/{epochs}", completed=done, detail=detail)

        def progress_of(loss: float, error: float, rate: float) -> str:
            return f"loss {loss:.3f} err {100 * error:.1f}%{validation} {rate:.0f} img/s"

        def show(event: Event) -> None:
            nonlocal steps, validation
            if isinstance(event, Remark):
                if not quiet:
                    note(event.text)
            elif isinstance(event, Begun):
                steps = event.steps
                where(min(event.epoch, epochs), event.epoch - 1 + event.step / steps)
            elif isinstance(event, Stepped):
                detail = progress_of(event.loss, event.error, event.images_per_second)
                where(event.epoch, event.epoch - 1 + event.step / steps, detail)
            elif isinstance(event, EpochEnded):
                if event.val_error is not None:
                    validation = f" val {100 * event.val_error:.1f}%"
                where(
                    event.epoch,
                    event.epoch,
                    progress_of(event.train_loss, event.train_error, event.images_per_second),
                )

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
