"""``secli equivariance``: the equivariance error of networks at their taps, over scale factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from secli.cli.addressing import Shape, shapes_of
from secli.cli.console import names, note, out
from secli.cli.limits import MOST, MOST_SIDE, SEED, THREADS
from secli.metrics import METRICS

if TYPE_CHECKING:
    from secli.config import MeasureSettings
    from secli.datasets.pictures import Pictures
    from secli.records.schema import EquivarianceRecord
    from secli.training.load import Foreign, Subject

MEASURE, NETWORK, OUTPUT = "Measure", "Networks outside the registry", "Output"


class Chosen(NamedTuple):
    """One of the networks of a call.

    Attributes
    ----------
    subject
        The network.
    taps
        Which taps of a registered network are measured; None: all, or those that a foreign network was loaded with.
    remark
        What the user must know of them; empty where there is nothing.
    """

    subject: Subject
    taps: tuple[str, ...] | None
    remark: str


def _option(text: str, panel: str | None = None, metavar: str | None = None, *names: str) -> Any:
    """Return an option without a default in its help: the text says it."""
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar, show_default=False)


def equivariance(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="(RUN|MODEL)...",
            help="Run directories, registry names (fresh weights), torchvision:NAME, timm:NAME, "
            "package.module:factory or file.py:factory.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        _option(
            "Pictures to measure on, unscaled: a dataset directory (its test images) or a folder of class folders. "
            "\\[default: the unscaled twin of a run's own data]"
        ),
    ] = None,
    factors: Annotated[
        str | None,
        _option(
            "Scale factors s: a list 1,0.9,0.5 or a range LOW:HIGH:COUNT; s < 1 shrinks. \\[default: nine from 1/3 "
            "to 1, their inverses up to 1.5, and the network's own levels]",
            MEASURE,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        _option(
            "A named list of factors. downscale-2020: 1/s = 1, 1.1, 1.5, 2, 2.5, 3.",
            MEASURE,
            "downscale-2020",
        ),
    ] = None,
    taps: Annotated[
        str | None,
        _option(
            "Taps, separated by commas: names or shell globs, name@k for the k-th call, NET:NAME for one network. "
            "\\[default: all declared, or the outermost]",
            MEASURE,
        ),
    ] = None,
    images: Annotated[int | None, _option("Pictures, from the first. \\[default: 1000]", MEASURE)] = None,
    batch: Annotated[
        int | None, _option("Pictures per forward pass. \\[default: from measured memory]", MEASURE)
    ] = None,
    metric: Annotated[
        str | None, _option("The error. \\[default: squared]", MEASURE, "|".join(METRICS.own))
    ] = None,
    background: Annotated[
        str | None, _option("What is subtracted from features. \\[default: empty]", MEASURE, "empty|none")
    ] = None,
    border: Annotated[
        float | None,
        _option(
            "Pixels left out along the edges of picture and canvas. \\[default: 0 for pictures on black, else the "
            "radius of the tap's receptive field]",
            MEASURE,
        ),
    ] = None,
    per: Annotated[
        str | None, _option("Also each scale level, each channel, by itself.", MEASURE, "level,channel")
    ] = None,
    lie: Annotated[bool, _option("Also the Lie derivative at every tap.", MEASURE, None, "--lie")] = False,
    local: Annotated[bool, _option("Also what each stage adds by itself.", MEASURE, None, "--local")] = False,
    attribute: Annotated[
        str | None,
        _option("Also what each layer of these kinds adds by itself.", MEASURE, "conv,pool,norm,activation"),
    ] = None,
    controls: Annotated[
        bool,
        _option(
            "Also the controls: identity, pointwise, the network untrained, a plain CNN of its size, untrained too.",
            MEASURE,
            None,
            "--controls",
        ),
    ] = False,
    fields: Annotated[
        list[str] | None,
        _option(
            "How scale acts at taps: plane[,stride=4,origin=1.5], scale:1,1.41,2[,blur=0.5], tokens:14x14+1, "
            "channels-last, invariant; repeatable.",
            NETWORK,
            "PATTERN=FIELD",
            "--field",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        _option(
            "Resize the pictures to it; NET:CxHxW for one network. \\[default: what the network or its weights want, "
            "else as they are]",
            NETWORK,
            "CxHxW",
            "--input",
        ),
    ] = None,
    mean: Annotated[
        str | None, _option("Mean of the normalisation, for pixels in 0 to 1.", NETWORK, "M[,M,M]")
    ] = None,
    std: Annotated[str | None, _option("Deviation of the normalisation.", NETWORK, "S[,S,S]")] = None,
    weights: Annotated[
        str | None,
        _option("safetensors, a state dict, or published weights by name (DEFAULT).", NETWORK, "FILE|NAME"),
    ] = None,
    state: Annotated[
        str | None,
        _option("Which state dict of the file of weights, where several fit (model_ema).", NETWORK, "KEY"),
    ] = None,
    offline: Annotated[bool, _option("Never download.", NETWORK, None, "--offline")] = False,
    list_taps: Annotated[
        bool, _option("Print the taps that a network offers, and leave.", NETWORK, None, "--list-taps")
    ] = False,
    plot: Annotated[
        Path | None,
        _option("Curves of all networks together: .png, .svg, .pdf. \\[default: in each run]", OUTPUT),
    ] = None,
    heatmap: Annotated[Path | None, _option("Tap × factor as colour.", OUTPUT, "FILE")] = None,
    show_features: Annotated[
        Path | None,
        _option(
            "L_sΦ(f), Φ(L_s f) and their difference, for one picture and the smallest factor.", OUTPUT, "FILE"
        ),
    ] = None,
    save: Annotated[
        Path | None, _option("Directory for the results, as 'secli compare' reads them.", OUTPUT)
    ] = None,
    assignments: Annotated[
        list[str] | None,
        _option(
            "Set an option of a registry name, or of the measure; repeatable.",
            None,
            "model.KEY=V|measure.KEY=V",
            "--set",
        ),
    ] = None,
    config: Annotated[Path | None, _option("YAML with data and measure; flags win.")] = None,
    seed: Annotated[int, typer.Option(**SEED, help="Seed of fresh weights.")] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")] = "auto",
    threads: Annotated[int, typer.Option(**THREADS, help="CPU threads, recorded; 0: one per core.")] = 0,
    format: Annotated[
        str,
        typer.Option(
            metavar="table|markdown|latex|csv|json", help="What is printed.", rich_help_panel=OUTPUT
        ),
    ] = "table",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a measurement that stands in a run.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.")] = False,
) -> None:
    """Measure how far networks are from equivariant under change of scale.

    At every tap and factor: the mean over images of Δ = ‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖² with a 95 %
    interval, beside it the floor that the grid alone costs, and the accuracy on the rescaled images. A run's
    results are written into it as equivariance.csv, .json and .png, or into the --save directory; runs that differ
    only in seed or realisation are printed as one network, with intervals over them.
    """
    from dataclasses import replace

    from secli.cli.measuring import check_places, left_over, measure_watched, pooled, write_results
    from secli.config import Config, parse_assignments, read_config
    from secli.errors import InputError
    from secli.storage.disk_space import check_file
    from secli.tables.formats import check_format
    from secli.tables.plots import check_plot_path

    check_format(format)
    for picture in (plot, heatmap, show_features):
        if picture is not None:
            check_plot_path(picture)
            check_file(picture)
    file = Config() if config is None else read_config(config)
    given = parse_assignments(assignments or [], ["model", "measure"])
    flags: dict[str, Any] = {
        "factors": factors,
        "protocol": protocol,
        "taps": None if taps is None else _texts("--taps", taps),
        "images": images,
        "batch": batch,
    }
    flags |= {"metric": metric, "background": background, "border": border, "per": _names("--per", per)}
    kinds = _names("--attribute", attribute) or ()
    settings = measure_settings(file.measure, f"--config {config}", given["measure"], flags)

    # brings torch, for which a mistake in the options does not wait
    from secli.sweeps.measure import MeasureRequest, machine, pictures_for

    where = machine(device, threads)
    targets = once_each(targets)
    shapes = {only: _shape(text) for only, text in shapes_of(shape, targets).items()}
    foreign = foreign_of(settings.taps, fields, shapes.get(None), mean, std, weights, state, offline)
    place = data or (Path(file.data) if file.data else None)
    if list_taps:
        foreign = replace(foreign, check_taps=False)
    chosen = load_subjects(targets, given["model"], seed, foreign, place, shapes)
    subjects = [each.subject for each in chosen]
    if list_taps:
        out(tap_table(subjects, quiet))
        return
    for each in chosen:
        if each.remark and not quiet:
            note(f"remark: {each.remark}")
    check_places(subjects, save, force)
    if show_features is not None and len(subjects) > 1:
        raise InputError(f"--show-features draws one network, not {len(subjects)}")
    sets = [pictures_for(subject, data_of(subject, place), settings) for subject in subjects]
    questions = []
    for _, own_taps, _ in chosen:
        own = settings.model_copy(update={"taps": own_taps})
        questions.append(MeasureRequest(own, lie, local, kinds, controls))
    asked = list(zip(subjects, sets, questions, strict=True))
    known = [None if force else left_over(each[0], save, each[1], each[2]) for each in asked]
    records = []
    for (subject, pictures, wanted), before in zip(asked, known, strict=True):
        record = before or measure_watched(subject, pictures, wanted, where, quiet)
        records.append(record)
        write_results(subject, record, save, quiet)
    together = pooled(subjects, records)
    _print(together, format)
    _draw(together, plot, heatmap, quiet)
    if show_features is not None:
        own = settings.model_copy(update={"taps": chosen[0].taps})
        draw_features(subjects[0], sets[0], records[0], own, show_features, where.device, quiet)
    leave_when_nothing_was_measured(records)


def leave_when_nothing_was_measured(records: Sequence[EquivarianceRecord]) -> None:
    """Leave with exit code 1 when all that was asked for is missing: every curve, or every Lie derivative."""
    from secli.errors import EXIT_FAILED

    curves = [row.mean for record in records for row in record.rows]
    lie = [row.mean for record in records for row in record.lie]
    if any(values and all(value is None for value in values) for values in (curves, lie)):
        note("error: nothing could be measured; the table gives the reasons")
        raise typer.Exit(EXIT_FAILED)


def _names(option: str, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else names(option, text)


def _texts(option: str, text: str) -> list[str]:
    """Return all names, those given twice too: that is said when they are merged."""
    names(option, text)
    return [name.strip() for name in text.split(",") if name.strip()]


def measure_settings(
    file: Mapping[str, Any], file_name: str, given: Mapping[str, Any], flags: Mapping[str, Any]
) -> MeasureSettings:
    """Merge the measure's settings: flag > ``--set`` > YAML > default; each is checked where it stands.

    Factors and taps that come twice are measured once, and that is said.
    """
    from secli.config import MeasureSettings, parse_factors, validated

    chosen = {key: value for key, value in flags.items() if value is not None}
    if "factors" in chosen:
        chosen["factors"] = parse_factors(chosen["factors"])
    validated(MeasureSettings, file, f"{file_name}: measure")
    validated(MeasureSettings, given, "--set measure")
    for key, value in chosen.items():
        validated(MeasureSettings, {key: value}, f"--{key}")
    together = {**file, **given, **chosen}
    settings = validated(MeasureSettings, together, "measure")
    _note_repeats("factors", [float(factor) for factor in together.get("factors") or ()])
    _note_repeats("taps", together.get("taps") or ())
    return settings


def _note_repeats(what: str, values: Sequence[Any]) -> None:
    from secli.config import repeated

    twice = [f"{value:g}" if isinstance(value, float) else value for value in repeated(values)]
    if twice:
        note(f"--{what}: {', '.join(twice)} given more than once, measured once")


def foreign_of(
    taps: Sequence[str] | None,
    fields: Sequence[str] | None,
    shape: tuple[int, int, int] | None,
    mean: str | None,
    std: str | None,
    weights: str | None,
    state: str | None,
    offline: bool,
) -> Foreign:
    """Read the flags for networks outside the registry.

    Raises
    ------
    InputError
        When the shape or the normalisation cannot be read.
    """
    from secli.training.load import Foreign

    return Foreign(
        taps,
        tuple(fields or ()),
        shape,
        _numbers("--mean", mean),
        _numbers("--std", std),
        weights,
        state,
        offline,
    )


def _shape(text: str) -> Shape:
    from secli.errors import InputError

    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--input {text}: write channels, height and width, for example 3x224x224")
    if max(len(part) for part in parts) > 5 or max(map(int, parts)) > MOST_SIDE:
        raise InputError(f"--input {text}: at most {MOST_SIDE} channels and pixels along a side")
    channels, height, width = map(int, parts)
    return channels, height, width


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    from secli.errors import InputError

    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
        if any(not abs(number) <= MOST or 0 < abs(number) < 1 / MOST for number in numbers):
            raise InputError(
                f"{option} {text}: the values must be finite numbers, from {1 / MOST:g} to {MOST} in size"
            )
        return numbers
    except ValueError:
        raise InputError(
            f"{option} {text}: write one number, or one per channel separated by commas"
        ) from None


def load_subjects(
    targets: Sequence[str],
    options: Mapping[str, Any],
    seed: int,
    foreign: Foreign,
    place: Path | None,
    shapes: Mapping[str | None, Shape],
) -> list[Chosen]:
    """Load every network before the first is measured, so that a wrong name costs no time.

    A foreign network that does not say what images it takes is given the pictures as they are. Each network is given
    the patterns of taps and fields that it has taps for.

    Raises
    ------
    InputError
        When a network cannot be loaded, or no network has taps for a pattern.
    """
    from dataclasses import replace
    from functools import partial

    from secli.cli.addressing import Patterns, load_foreign, refuse_fields, registered_taps
    from secli.datasets.pictures import open_pictures
    from secli.external.load import is_external, suggested_input
    from secli.training.load import load_subject

    patterns = Patterns(targets)
    subjects = []
    for target in targets:
        known = replace(foreign, input_shape=shapes.get(target, foreign.input_shape))
        if is_external(target) and known.input_shape is None and place is not None:
            shape = suggested_input(target, foreign.weights)
            if shape is None:
                _, channels, height, width = open_pictures(place, images=1).images.shape
                shape = (channels, height, width)
            known = replace(known, input_shape=shape)
        subjects.append(load_foreign(patterns, target, known, partial(load_subject, target, options, seed)))
    chosen = []
    for target, subject in zip(targets, subjects, strict=True):
        taps = None
        if not subject.foreign:
            refuse_fields(patterns, target, foreign.fields)
            taps = registered_taps(patterns, target, foreign.taps, subject.model.taps)
        left = patterns.own("--taps", foreign.taps or (), target)
        none = f"{target} has none of the taps asked for: all of its own are measured"
        remark = "" if left or not foreign.taps else none
        # the taps of a foreign network are those it was loaded with
        chosen.append(Chosen(subject, taps, remark))
    patterns.check()
    _check_used(targets, subjects, foreign, shapes)
    return chosen


def once_each(targets: Sequence[str]) -> list[str]:
    """Return targets without those that name a network for the second time, and say so."""
    from secli.external.load import same_network

    found: dict[str, str] = {}
    for target in targets:
        network = same_network(target)
        if network in found:
            other = f", as {found[network]}" * (found[network] != target)
            note(f"remark: {target} is given twice{other}: measured once")
        found.setdefault(network, target)
    return list(found.values())


def _check_used(
    targets: Sequence[str], subjects: Sequence[Subject], foreign: Foreign, shapes: Mapping[str | None, Shape]
) -> None:
    """Refuse what is for networks outside the registry where none of them takes it."""
    from secli.errors import InputError

    given: list[tuple[str, str | None]] = [("--input", only) for only in shapes]
    given += [(f"--{key}", None) for key in ("mean", "std") if getattr(foreign, key) is not None]
    for option, only in given:
        named = [subject for target, subject in zip(targets, subjects, strict=True) if only in (None, target)]
        if not any(subject.foreign for subject in named):
            raise InputError(
                f"{option}: {named[0].info.name} takes the pictures as they are; {option} is for networks outside the "
                "registry, leave it out"
            )


def tap_table(subjects: Sequence[Subject], quiet: bool = True) -> str:
    """Return the taps that networks offer, one line each: name, class, shape, stride, origin, radius as probed."""
    from tabulate import tabulate
    from torch import nn

    from secli.cli.console import progress
    from secli.external.load import list_taps

    tables = []
    for subject in subjects:
        assert isinstance(subject.model, nn.Module)
        shape = subject.info.options.get("input")
        size = subject.info.options.get("image_size", 28)
        known = tuple(shape) if shape else (subject.info.options.get("in_channels", 1), size, size)
        with progress(quiet) as display:
            task = display.add_task(f"{subject.info.name}: cells", total=None, unit="taps", detail="")

            def watch(done: int, total: int, display: Any = display, task: Any = task) -> None:
                display.update(task, completed=done, total=total)

            taps = list_taps(subject.model, (known[0], known[1], known[2]), on_progress=watch)
        rows = [
            (tap.name, tap.kind, _cells(tap.shape), _pair(tap.stride), _pair(tap.origin), tap.radius)
            for tap in taps
        ]
        heads = ("tap", "class", "shape", "stride (px)", "origin (px)", "radius (px)")
        tables.append(f"{subject.info.name}\n{tabulate(rows, heads, floatfmt='.3g', missingval='—')}")
    return "\n\n".join(tables)


def _cells(shape: Sequence[int] | None) -> str | None:
    return None if shape is None else "×".join(map(str, shape))


def _pair(values: Sequence[float] | None) -> str | None:
    return None if values is None else ", ".join(f"{value:g}" for value in dict.fromkeys(values))


def data_of(subject: Subject, given: Path | None) -> Path:
    """Return the pictures to measure on: those given, or the unscaled twin of what a run was trained on.

    The twin has the same splits, so that no test image was seen in training.

    Raises
    ------
    InputError
        When there is no twin.
    """
    from secli.cli.twins import twin_of
    from secli.errors import InputError

    if given is not None:
        return given
    if subject.record is None:
        raise InputError(
            f"--data: give the images to measure {subject.info.name} on, for example data/mnist/r0"
        )
    return twin_of(subject.record.data)


def _print(records: Sequence[EquivarianceRecord], format: str) -> None:
    from shutil import get_terminal_size

    from secli.tables.curves import render_curves

    out(render_curves(records, format, get_terminal_size((100, 24)).columns), format)


def _draw(
    records: Sequence[EquivarianceRecord], plot: Path | None, heatmap: Path | None, quiet: bool
) -> None:
    from secli.tables.heatmap import plot_heatmap
    from secli.tables.plots import plot_curves

    for path, draw, what in ((plot, plot_curves, "curves"), (heatmap, plot_heatmap, "heat map")):
        if path is not None:
            draw(records, path)
            if not quiet:
                note(f"{what}: {path}")


def draw_features(
    subject: Subject,
    pictures: Pictures,
    record: EquivarianceRecord,
    settings: MeasureSettings,
    path: Path,
    device: str,
    quiet: bool,
) -> None:
    """Draw what Δ is made of, for the first picture and the smallest factor."""
    from secli.datasets.loading import pixels
    from secli.equivariance.feature_maps import feature_views
    from secli.tables.views import plot_views

    border = 0.0 if settings.border is None and pictures.on_black else settings.border
    views = feature_views(
        subject.model,
        pixels(pictures.images[:1]),
        min(row.factor for row in record.rows),
        taps=None if subject.foreign else settings.taps,
        background=settings.background,
        border=border,
        device=device,
    )
    title = f"{subject.info.name} ({subject.weights})"
    plot_views(views, path, f"{title}: features at scale factor s = {views.factor:.3g}")
    if not quiet:
        note(f"features: {path}")
