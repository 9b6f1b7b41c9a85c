"""``secli robustness``: networks beside each other by how they stand a change of scale, one row each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secli.cli.console import bar, note, out, terminal_width
from secli.cli.drawings import parse_labels
from secli.cli.options import (
    NETWORKS,
    TABLES,
    Batch,
    Depth,
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
    factors_option,
    format_option,
    label_option,
    merged_settings,
    offline_option,
    option,
    seed_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from secli.config import MeasureSettings, TrainingSettings
    from secli.tables.robustness import Contender, RobustnessRow
    from secli.training.load import Subject

of_output = partial(option, panel="Output")


def robustness(
    targets: Targets,
    data: Annotated[
        Path,
        option(
            "Pictures, unscaled: a dataset directory (its test images) or a folder of class folders, named by the "
            "categories of the weights or by ImageNet's wnids.",
            metavar="DIR",
        ),
    ],
    factors: Annotated[str | None, factors_option("")] = None,
    protocol: Protocol = None,
    images: Images = None,
    batch: Batch = None,
    depth: Depth = None,
    shape: InputShape = None,
    mean: Mean = None,
    std: Std = None,
    weights: Weights = None,
    state: State = None,
    offline: Annotated[bool, offline_option(NETWORKS)] = False,
    sort: Annotated[
        str | None,
        of_output(
            "Column to sort by: network, accuracy, accuracy_area, agreement_area, consistency, probability_drop, "
            "cosine, delta, parameters, flops, images_per_second; a '-' before it sorts from the largest "
            "(--sort=-accuracy_area).",
            default="the order given",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        of_output("Accuracy × robustness, a point per network: .png, .svg, .pdf.", metavar="FILE"),
    ] = None,
    label: Annotated[list[str] | None, label_option()] = None,
    caption: Annotated[bool, caption_option("--plot")] = False,
    seed: Annotated[int, seed_option("fresh weights")] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    format: Annotated[str, format_option(*TABLES, panel="Output")] = "table",
    quiet: Quiet = False,
) -> None:
    """Compare networks by how they stand a change of scale: accuracy, predictions, Δ and cost, one row each.

    The area under the accuracy over log s, how often the prediction stays between neighbouring factors, Δ at one
    relative depth of all, parameters, operations and images per second. Folders are matched to classes by name; without
    a match, or with random weights, the agreement with s = 1 remains. A network that cannot be measured has its reason.
    """
    from secli.config import MeasureSettings, parse_factors, validated
    from secli.errors import EXIT_FAILED
    from secli.tables.render import render
    from secli.tables.robustness import check_sort, robustness_rows, robustness_table

    labels = parse_labels(label or [])
    _check_drawing(plot, labels, targets, caption)
    check_sort(sort)
    flags = {
        "factors": None if factors is None else parse_factors(factors),
        "protocol": protocol,
        "images": images,
        "batch": batch,
        "surround": "black",  # whole pictures: windows would be others for networks that see farther
    }
    merged = merged_settings(MeasureSettings, "measure", {}, None, {}, flags)
    asked = validated(MeasureSettings, merged, "measure")

    # these bring torch, for which a mistake in the options does not wait
    from secli.bench.robustness import timed_how
    from secli.cli.networks import read_numbers
    from secli.cli.robustness_networks import load_each
    from secli.equivariance.factors import factors_of
    from secli.sweeps.measure import machine
    from secli.training.load import Foreign

    where = machine(device, threads)
    settings = asked.model_copy(
        update={"factors": tuple(sorted({1.0, *factors_of(asked, ())}, reverse=True))}
    )
    foreign = Foreign(
        mean=read_numbers("--mean", mean),
        std=read_numbers("--std", std),
        weights=weights,
        state=state,
        offline=offline,
    )
    networks = load_each(targets, seed, foreign, data, shape)
    contenders = _measured(networks, data, settings, where, quiet)
    rows, read = robustness_rows(contenders, depth, sort)
    table = robustness_table(contenders, rows, read, timed_how(settings, where))
    out(render(table, format, terminal_width()), format)
    if format in ("csv", "json"):  # for programs; the rest is for the person at the terminal
        for line in table.notes:
            note(line)
    if all(one.record is None for one in contenders):
        note("error: no network could be measured; the table gives the reasons")
        raise typer.Exit(EXIT_FAILED)
    if plot is not None:
        _draw(rows, plot, labels, table.notes if caption else None, quiet)


def _check_drawing(
    plot: Path | None, labels: Mapping[str, str], targets: Sequence[str], caption: bool
) -> None:
    """Raise ``InputError`` where the figure cannot be written, or nothing is drawn that the options speak of."""
    from secli.errors import InputError, UnknownNameError
    from secli.figures.page import caption_file, check_plot_path
    from secli.storage.disk_space import check_file

    for flag, given in (("--label", labels), ("--caption", caption)):
        if given and plot is None:
            raise InputError(f"{flag}: goes with --plot FILE")
    if plot is not None:
        check_plot_path(plot)
        check_file(plot)
        if caption:
            check_file(caption_file(plot))
    for name in labels:
        if name not in targets:
            raise UnknownNameError("network --label", name, targets)


def _measured(
    networks: Sequence[tuple[str, Subject | str]],
    data: Path,
    settings: MeasureSettings,
    where: TrainingSettings,
    quiet: bool,
) -> list[Contender]:
    """Measure networks with a progress display; what holds for several of them is remarked once."""
    from secli.bench.robustness import measure_robustness

    told: set[str] = set()

    def remark(text: str) -> None:
        if not quiet and text not in told:
            note(f"remark: {text}")
        told.add(text)

    with bar("passes", quiet) as tell:
        return measure_robustness(
            networks,
            data,
            settings,
            where,
            lambda network, what, done, total: tell(done, total, f"{network}: {what}"),
            remark,
            lambda done, total: tell(done, total, "timing in turn"),
        )


def _draw(
    rows: Sequence[RobustnessRow],
    plot: Path,
    labels: Mapping[str, str],
    notes: Sequence[str] | None,
    quiet: bool,
) -> None:
    """Draw the figure; with notes, its caption beside it too."""
    from secli.figures.page import write_caption
    from secli.figures.robustness import plot_robustness, robustness_caption

    plot_robustness(rows, plot, labels)
    if notes is not None:
        write_caption(plot, robustness_caption(rows, notes))
    if not quiet:
        note(f"figure: {plot}")
