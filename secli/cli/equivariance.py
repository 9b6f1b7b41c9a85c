"""``secli equivariance``: the equivariance error of networks at their taps, over scale factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secli.cli.console import note, out, progress

if TYPE_CHECKING:
    from secli.config import MeasureSettings
    from secli.datasets.store import ScaleDataset
    from secli.records import EquivarianceRecord
    from secli.training.loading import Subject


def equivariance(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="(RUN|MODEL)...", help="Run directories, or registry names (fresh weights)."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Dataset directory to measure on, unscaled, e.g. data/mnist/r0. "
            "\\[default: beside the run's own data, the set of the same pictures unscaled]",
            show_default=False,
        ),
    ] = None,
    factors: Annotated[
        str | None,
        typer.Option(
            help="Scale factors s: a list 1,0.9,0.5 or a range LOW:HIGH:COUNT; s < 1 shrinks. "
            "\\[default: nine from 1/3 to 1, their inverses up to 1.5, and the model's own levels]",
            show_default=False,
        ),
    ] = None,
    taps: Annotated[
        str | None,
        typer.Option(help="Taps, separated by commas. \\[default: all declared]", show_default=False),
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Test images, from the first. \\[default: 1000]", show_default=False)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images per forward pass. \\[default: 100]", show_default=False)
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="squared|relative|absolute", help="The error. \\[default: squared]", show_default=False
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(metavar="empty|none", help="What is subtracted. \\[default: empty]", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Picture of the curves, all networks together: .png, .svg or .pdf. \\[default: in each run]",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Directory for results of registry names, as 'compare' reads them.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="model.KEY=V|measure.KEY=V",
            help="Set an option of a registry name, or of the measure; repeatable.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with data and measure; flags win.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a registry name's fresh weights.")] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads, recorded; 0: one per core.")] = 0,
    format: Annotated[
        str, typer.Option(metavar="table|markdown|latex|csv|json", help="What is printed.")
    ] = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.")] = False,
) -> None:
    """Measure how far networks are from equivariant under change of scale.

    At every tap and factor: the mean over images of Δ = ‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖² with a 95 %
    interval, beside it the floor that the grid alone costs, and the accuracy on the rescaled images. A run's
    results are written into it as equivariance.csv, .json and .png.
    """
    from shutil import get_terminal_size

    from secli.config import Config, parse_assignments, read_config
    from secli.datasets.store import open_dataset
    from secli.tables.curves import render_curves
    from secli.tables.formats import check_format
    from secli.tables.plots import check_plot_path

    check_format(format)
    if plot is not None:
        check_plot_path(plot)
    file = Config() if config is None else read_config(config)
    given = parse_assignments(assignments or [], ["model", "measure"])
    flags = {"factors": factors, "taps": taps, "images": images, "batch": batch}
    flags |= {"metric": metric, "background": background}
    settings = measure_settings(file.measure, f"--config {config}", given["measure"], flags)
    subjects = load_subjects(targets, given["model"], seed)
    places = [
        _data_of(subject, data or (Path(file.data) if file.data else None), targets) for subject in subjects
    ]
    datasets = {place: open_dataset(place) for place in dict.fromkeys(places)}
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    records = []
    for subject, place in zip(subjects, places, strict=True):
        record = measure_subject(
            subject, datasets[place], settings, device=device, threads=threads, quiet=quiet
        )
        records.append(record)
        write_results(subject, record, save, quiet)
    out(render_curves(records, format, get_terminal_size((100, 24)).columns))
    if plot is not None:
        from secli.tables.plots import plot_curves

        plot_curves(records, plot)
        if not quiet:
            note(f"curves: {plot}")


def measure_settings(
    file: Mapping[str, Any], file_name: str, given: Mapping[str, Any], flags: Mapping[str, Any]
) -> MeasureSettings:
    """Merge the measure's settings: flag > ``--set`` > YAML > default; each is checked where it stands."""
    from secli.config import MeasureSettings, parse_factors, validated

    chosen = {key: value for key, value in flags.items() if value is not None}
    if "factors" in chosen:
        chosen["factors"] = parse_factors(chosen["factors"])
    if "taps" in chosen:
        chosen["taps"] = tuple(tap.strip() for tap in chosen["taps"].split(","))
    validated(MeasureSettings, file, f"{file_name}: measure")
    validated(MeasureSettings, given, "--set measure")
    for key, value in chosen.items():
        validated(MeasureSettings, {key: value}, f"--{key}")
    return validated(MeasureSettings, {**file, **given, **chosen}, "measure")


def load_subjects(targets: Sequence[str], options: Mapping[str, Any], seed: int) -> list[Subject]:
    """Load every network before the first is measured, so that a wrong name costs no time."""
    from secli.training.loading import load_subject

    return [load_subject(target, options, seed) for target in targets]


def _data_of(subject: Subject, given: Path | None, targets: Sequence[str]) -> Path:
    """Return the dataset directory to measure on: the one given, or the unscaled twin of what a run was trained on.

    The twin has the same splits, so that no test image was seen in training.
    """
    from secli.datasets.protocols import DATASETS
    from secli.errors import InputError

    if given is not None:
        return given
    if subject.record is None:
        raise InputError(f"--data: give the images to measure {targets[0]} on, for example data/mnist/r0")
    trained = Path(subject.record.data.path)
    name = subject.record.data.name
    twin = trained.parent.parent / name.removesuffix("-scale") / trained.name
    if name not in DATASETS:
        raise InputError(f"--data: {trained} is not of standard size, so say which unscaled images are its twins")
    if not twin.is_dir():
        raise InputError(
            f"--data: {twin}, the pictures of {trained} at their own scale, does not exist; make it with "
            f"'secli make-data {twin.parent.name}' or give another"
        )
    return twin


def measure_subject(
    subject: Subject,
    dataset: ScaleDataset,
    settings: MeasureSettings,
    *,
    device: str = "auto",
    threads: int = 0,
    quiet: bool = False,
) -> EquivarianceRecord:
    """Measure one network on the test split of a dataset, with a progress display."""
    from secli.config import TrainingSettings, validated
    from secli.datasets.loading import to_device
    from secli.equivariance.curves import measure_curves
    from secli.equivariance.result import equivariance_record
    from secli.training.determinism import reproducible
    from secli.training.devices import device_name, on_this_machine
    from secli.training.plan import check_images, outputs

    check_images(dataset, subject.info.name, subject.info.options)
    outputs(dataset, subject.info.name, subject.model)
    if not quiet:
        for remark in remarks(subject, dataset):
            note(f"remark: {remark}")
    where = on_this_machine(
        validated(TrainingSettings, {"device": device, "threads": threads}, "equivariance")
    )
    images, labels = to_device(dataset.split("test"))
    with progress(quiet) as display, reproducible(where):
        task = display.add_task(subject.info.name, total=1, unit="passes", detail="")
        curves = measure_curves(
            subject.model,
            images,
            settings,
            labels=labels,
            device=where.device,
            on_progress=lambda done, total: display.update(task, completed=done, total=total),
        )
    return equivariance_record(
        curves,
        settings,
        dataset.info(),
        subject.info,
        seed=subject.seed,
        device=device_name(where.device),
        threads=where.threads,
        training=subject.record,
        run=None if subject.run is None else str(subject.run),
    )


def remarks(subject: Subject, dataset: ScaleDataset) -> list[str]:
    """Return what a reader of the numbers must know about the images."""
    found = []
    if dataset.scaled:
        found.append(f"the images of {dataset.path} are rescaled already; factors count on top of that")
    if subject.record is not None and subject.record.data.realisation != dataset.realisation:
        trained = f"r{subject.record.data.realisation}"
        found.append(f"{subject.run} was trained on {trained}, whose training images may be among these test images")
    return found


def write_results(subject: Subject, record: EquivarianceRecord, save: Path | None, quiet: bool) -> None:
    """Write a run's results into the run, and any network's into the ``--save`` directory."""
    from secli.records import CURVES_FILE, write_record, write_text
    from secli.tables.curves import render_curves
    from secli.tables.plots import plot_curves

    places = []
    if subject.run is not None:
        places.append(subject.run / CURVES_FILE)
    if save is not None:
        name = (
            f"{record.model.name}-s{record.seed}" if subject.run is None else "-".join(subject.run.parts[-2:])
        )
        places.append(save / f"{name}.json")
    for place in places:
        write_record(place, record)
        write_text(place.with_suffix(".csv"), render_curves([record], "csv"))
        plot_curves([record], place.with_suffix(".png"))
        if not quiet:
            note(f"results: {place} (and .csv, .png)")
