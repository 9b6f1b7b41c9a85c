"""``secli equivariance``: the equivariance error of networks at their taps, over scale factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secli.cli.console import names, note, out, terminal_width
from secli.cli.drawings import Drawings, parse_labels
from secli.cli.options import (
    MEASURE,
    NETWORKS,
    TABLES,
    Batch,
    Device,
    Images,
    InputShape,
    Mean,
    Protocol,
    Quiet,
    State,
    Std,
    Targets,
    Threads,
    Weights,
    caption_option,
    config_option,
    factors_option,
    force_option,
    format_option,
    label_option,
    merged_settings,
    offline_option,
    option,
    seed_option,
    set_option,
)
from secli.metrics import METRICS

if TYPE_CHECKING:
    from secli.records.schema import EquivarianceRecord
    from secli.training.load import Subject

of_measure = partial(option, panel=MEASURE)
of_network = partial(option, panel=NETWORKS)
of_output = partial(option, panel="Output")


def equivariance(
    targets: Targets,
    data: Annotated[
        Path | None,
        option(
            "Pictures to measure on, unscaled: a dataset directory (its test images), a folder of class folders, or a "
            "dataset's name (digits is made on the spot).",
            default="the unscaled twin of a run's own data",
            metavar="DIR",
        ),
    ] = None,
    factors: Annotated[str | None, factors_option(", and the network's own levels")] = None,
    protocol: Protocol = None,
    taps: Annotated[
        str | None,
        of_measure(
            "Taps, separated by commas: names or shell globs, name@k for the k-th call, NET:NAME for one network.",
            default="all declared, or the outermost",
        ),
    ] = None,
    images: Images = None,
    batch: Batch = None,
    metric: Annotated[
        str | None, of_measure("The error.", default="squared", metavar="|".join(METRICS.own))
    ] = None,
    background: Annotated[
        str | None, of_measure("What is subtracted from features.", default="empty", metavar="empty|none")
    ] = None,
    border: Annotated[
        float | None,
        of_measure(
            "Pixels left out along the edges of picture and canvas.",
            default="0 for pictures on black, else the radius of the tap's receptive field",
        ),
    ] = None,
    surround: Annotated[
        str | None,
        of_measure(
            "What is around a picture: black, or the photograph that it is a window of.",
            default="photo for photographs that are large enough, else black",
            metavar="black|photo",
        ),
    ] = None,
    margin: Annotated[
        str | None,
        of_measure(
            "Empty pixels around pictures on black; auto: as far as the taps see.",
            default="none",
            metavar="PX|auto",
        ),
    ] = None,
    per: Annotated[
        str | None, of_measure("Also each scale level, each channel, by itself.", metavar="level,channel")
    ] = None,
    lie: Annotated[bool, of_measure("Also the Lie derivative at every tap.", "--lie")] = False,
    local: Annotated[bool, of_measure("Also what each stage adds by itself.", "--local")] = False,
    attribute: Annotated[
        str | None,
        of_measure(
            "Also what each layer of these kinds adds by itself.", metavar="conv,pool,norm,activation"
        ),
    ] = None,
    controls: Annotated[
        bool,
        of_measure(
            "Also the controls: identity, pointwise, the network untrained, a plain CNN of its size, untrained too.",
            "--controls",
        ),
    ] = False,
    explain: Annotated[
        bool,
        of_measure(
            "Also where the error comes from: the canvas, what lies between levels, the grid.", "--explain"
        ),
    ] = False,
    fields: Annotated[
        list[str] | None,
        of_network(
            "How scale acts at taps: plane[,stride=4,origin=1.5], scale:1,1.41,2[,blur=0.5], tokens:14x14+1, "
            "channels-last, invariant; repeatable.",
            "--field",
            metavar="PATTERN=FIELD",
        ),
    ] = None,
    shape: InputShape = None,
    mean: Mean = None,
    std: Std = None,
    weights: Weights = None,
    state: State = None,
    offline: Annotated[bool, offline_option(NETWORKS)] = False,
    list_taps: Annotated[
        bool, of_network("Print the taps that a network offers, and leave.", "--list-taps")
    ] = False,
    plot: Annotated[
        Path | None,
        of_output(
            "Curves of all networks together: .png, .svg, .pdf.", default="in each run", metavar="FILE"
        ),
    ] = None,
    heatmap: Annotated[Path | None, of_output("Tap × factor as colour.", metavar="FILE")] = None,
    log: Annotated[bool, of_output("A log axis of Δ in --plot; s = 1 is not on it.", "--log")] = False,
    label: Annotated[list[str] | None, label_option()] = None,
    caption: Annotated[bool, caption_option("--plot and --heatmap")] = False,
    explain_plot: Annotated[
        Path | None,
        of_output("What --explain finds at the smallest factor, as bars.", "--explain-plot", metavar="FILE"),
    ] = None,
    show_features: Annotated[
        Path | None,
        of_output(
            "L_sΦ(f), Φ(L_s f) and their difference, for one picture and the smallest factor.", metavar="FILE"
        ),
    ] = None,
    save: Annotated[
        Path | None, of_output("Directory for the results, as 'secli compare' reads them.", metavar="DIR")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        set_option("model.KEY=V|measure.KEY=V", "Set an option of a registry name, or of the measure"),
    ] = None,
    config: Annotated[Path | None, config_option("data and measure")] = None,
    seed: Annotated[int, seed_option("fresh weights")] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    format: Annotated[str, format_option(*TABLES, panel="Output")] = "table",
    force: Annotated[bool, force_option("a measurement")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure how far networks are from equivariant under change of scale.

    At every tap and factor: the mean over images of Δ = ‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖² with a 95 %
    interval, beside it the floor that the grid alone costs, and the accuracy on the rescaled images. A run's
    results are written into it as equivariance.csv, .json and .png, or into the --save directory; runs that differ
    only in seed or realisation are printed as one network, with intervals over them.
    """
    from secli.config import Config, MeasureSettings, parse_assignments, parse_factors, read_config, validated

    drawings = Drawings(plot, heatmap, show_features, log, parse_labels(label or []), caption, explain_plot)
    drawings.check()
    explain = explain or explain_plot is not None
    file = Config() if config is None else read_config(config)
    given = parse_assignments(assignments or [], ["model", "measure"])
    flags = {
        "factors": None if factors is None else parse_factors(factors),
        "protocol": protocol,
        "taps": None if taps is None else _all_names("--taps", taps),
        "images": images,
        "batch": batch,
        "metric": metric,
        "background": background,
        "border": border,
        "surround": surround,
        "margin": margin,
        "per": None if per is None else names("--per", per),
    }
    kinds = () if attribute is None else names("--attribute", attribute)
    merged = merged_settings(MeasureSettings, "measure", file.measure, config, given["measure"], flags)
    settings = validated(MeasureSettings, merged, "measure")
    _note_repeats(merged)

    # these bring torch, for which a mistake in the options does not wait
    from secli.cli.data_names import directory_of
    from secli.cli.networks import load_networks, read_numbers, tap_table
    from secli.cli.results import Measurement, check_files, measure_all, pooled
    from secli.sweeps.measure import MeasureRequest, check_black, machine, pictures_for
    from secli.tables.curve_tables import render_curves
    from secli.training.load import Foreign

    where = machine(device, threads)
    foreign = Foreign(
        taps=settings.taps,
        fields=tuple(fields or ()),
        mean=read_numbers("--mean", mean),
        std=read_numbers("--std", std),
        weights=weights,
        state=state,
        offline=offline,
        check_taps=not list_taps,
    )
    pictures = directory_of(data or (Path(file.data) if file.data else None))
    loaded = load_networks(targets, given["model"], seed, foreign, pictures, shape)
    subjects = [each.subject for each in loaded]
    if list_taps:
        out(tap_table(subjects, settings, pictures, quiet))
        return
    for each in loaded:
        if each.remark and not quiet:
            note(f"remark: {each.remark}")
    check_files(subjects, save, force)
    drawings.check_networks(subjects)
    own = [settings.model_copy(update={"taps": each.taps}) for each in loaded]
    sets = [
        pictures_for(each.subject, data_of(each.subject, pictures), mine, where.device)
        for each, mine in zip(loaded, own, strict=True)
    ]
    for found, mine in zip(sets, own, strict=True):
        check_black(found, mine, explain)
    questions = [MeasureRequest(each, lie, local, kinds, controls, explain) for each in own]
    measurements = [Measurement(*each) for each in zip(subjects, sets, questions, strict=True)]
    records = measure_all(measurements, where, save, force, quiet)
    together = pooled(subjects, records)
    out(render_curves(together, format, terminal_width()), format)
    drawings.draw(together, measurements[0], where.device, quiet)
    leave_when_nothing_was_measured(records)


def _all_names(option: str, text: str) -> list[str]:
    """Return all names, those given twice too: that is told when they are merged."""
    names(option, text)
    return [name.strip() for name in text.split(",") if name.strip()]


def _note_repeats(settings: Mapping[str, Any]) -> None:
    """Tell which factors and taps are given more than once; they are measured once."""
    from secli.config import repeated

    factors = [f"{factor:g}" for factor in repeated([float(s) for s in settings.get("factors") or ()])]
    for what, twice in (("factors", factors), ("taps", repeated(settings.get("taps") or ()))):
        if twice:
            note(f"--{what}: {', '.join(twice)} given more than once, measured once")


def data_of(subject: Subject, given: Path | None) -> Path:
    """Return the pictures to measure on: those given, or the unscaled twin of what a run was trained on.

    The twin has the same splits, so that no test image was seen in training.

    Raises
    ------
    InputError
        When there is no twin.
    """
    from secli.cli.unscaled_data import twin_of
    from secli.errors import InputError

    if given is not None:
        return given
    if subject.record is None:
        raise InputError(
            f"--data: give the images to measure {subject.info.name} on, for example data/mnist/r0"
        )
    return twin_of(subject.record.data)


def leave_when_nothing_was_measured(records: Sequence[EquivarianceRecord]) -> None:
    """Leave with exit code 1 when all that was asked for is missing: every curve, or every Lie derivative."""
    from secli.errors import EXIT_FAILED

    curves = [row.mean for record in records for row in record.rows]
    lie = [row.mean for record in records for row in record.lie]
    if any(values and all(value is None for value in values) for values in (curves, lie)):
        note("error: nothing could be measured; the table gives the reasons")
        raise typer.Exit(EXIT_FAILED)
