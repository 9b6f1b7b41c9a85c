"""Measure freshly drawn networks and write the tables of ``docs/untrained.md``: what architectures promise untrained.

``python -m tools.untrained_page --data data/mnist/r0 --format json > docs/untrained.json`` measures,
``python -m tools.untrained_page --rows docs/untrained.json --page docs/untrained.md`` writes the page.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from secli.action.fields import Invariant, Plane
from secli.catalogue import MODELS
from secli.config import MeasureSettings, validated
from secli.datasets.pictures import open_pictures
from secli.equivariance.curves import measure_curves
from secli.equivariance.evaluation_mode import measuring
from secli.errors import InputError, SecliError
from secli.layers.deform_dss import DeformableDSSConv
from secli.layers.deformable import DeformConv
from secli.models.building import build
from secli.models.contract import Stage, StagedModel
from secli.storage.writing import write_text
from secli.sweeps.measure import machine
from secli.training.determinism import reproducible

BEGIN = "<!-- written by `python -m tools.untrained_page`: edit the text around it, not this -->"
END = "<!-- end of what `python -m tools.untrained_page` wrote -->"
KEYS = {"model", "variant", "tap", "field", "factor", "mean", "low", "high", "compared", "seeds", "images"}
"""Of a row, what the tables show."""

Row = Mapping[str, Any]

MISSING = {
    "too-few-cells": "too small",
    "no-level-maps": "no level",
    "no-level-large-enough": "no level",
}
FACTORS = (1 / 1.26, 3**-0.5, 0.5)
"""Near 0.8 (a resizing of vector fields), a step of the narrow stacks, and a step of the wide ones."""
SHIFT = 1.0
"""Root mean square by which random offsets move the taps of a convolution, in cells of its plane."""


@dataclass(frozen=True)
class Untrained:
    """One line of the table: a network of the registry, freshly drawn.

    Attributes
    ----------
    model
        Registry name.
    options
        Options that differ from its own.
    moved
        Whether its offset branches, which start at zero, are drawn at random.
    as_plane
        Whether its scale axis is read as channels of a plane.
    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    moved: bool = False
    as_plane: bool = False

    @property
    def variant(self) -> str:
        """What differs from the registry's network, in words; empty for that network itself."""
        words = [
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in self.options.items()
        ]
        words += ["random offsets"] * self.moved + ["read as a plane"] * self.as_plane
        return ", ".join(words)


def _variants() -> tuple[Untrained, ...]:
    exact: dict[str, Any] = {"base": 1.5, "dilation": "exact"}
    scaled = [{"offsets": "absolute"}, {"offsets": "scaled"}]
    return (
        *(Untrained("dss_v1", {"base": 1.5, "dilation": how}) for how in ("floor", "round", "exact")),
        *(Untrained("deform_dss", each, moved=True) for each in scaled),
        *(Untrained("deform_dss", exact | each, moved=True) for each in scaled),
        Untrained("dcn", moved=True),
        Untrained("dcn_v2", moved=True),
        *(Untrained(f"mnist_sevf_vector_{size}", {"turn": "along"}) for size in (28, 56)),
        *(Untrained(f"mnist_xu_{size}", as_plane=True) for size in (28, 56)),
    )


VARIANTS = _variants()
"""What is expected of options, to be held against figures."""


@dataclass(frozen=True)
class UntrainedRow:
    """Δ of one tap at one factor, over seeds.

    Attributes
    ----------
    model, variant, tap, field, factor
        Where; the variant is empty for the registry's own network.
    mean, low, high
        The mean over seeds of the means over images, the smallest and the largest of them; None with a reason.
    compared
        Share of the tap's cells that are compared, the mean over seeds.
    seeds, images
        How many of each.
    reason
        Why there is no value: a code with its data (docs/reasons.md).
    """

    model: str
    variant: str
    tap: str
    field: str
    factor: float
    mean: float | None
    low: float | None
    high: float | None
    compared: float | None
    seeds: int
    images: int
    reason: dict[str, Any] | None


def measure_untrained(
    each: Untrained,
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    border: float | None = None,
    on_black: bool | None = None,
    device: str = "cpu",
) -> list[UntrainedRow]:
    """Measure Δ of a freshly drawn network at every tap that has a plane.

    Parameters
    ----------
    each : Untrained
        Which network.
    images : tensor (N, C, H, W)
        Pixels at their own scale; all are taken.
    seeds : sequence of int
        Of the weights.
    border : float, optional
        Pixels left out along the edges; None: 0 for pictures on black, else each tap's receptive-field radius.
    on_black : bool, optional
        Whether the pictures lie on black; None tells by their pixels.
    device : str
        Where to compute.
    """
    settings = MeasureSettings(factors=FACTORS, border=border, images=len(images), batch=min(len(images), 25))
    found = []
    for seed in seeds:
        model = build(each.model, each.options, seed).eval()
        if each.moved:
            draw_offsets(model, images, seed)
        if each.as_plane:
            model = read_as_plane(model)
        taps = tuple(tap for tap, kind in model.taps.items() if not isinstance(kind, Invariant))
        with_taps = settings.model_copy(update={"taps": taps})
        found.append(measure_curves(model, images, with_taps, on_black=on_black, device=device).rows)
    rows = []
    for group in zip(*found, strict=True):
        first, means = group[0], [row.mean for row in group if row.mean is not None]
        shares = [row.compared for row in group if row.compared is not None]
        whole = len(means) == len(group)
        rows.append(
            UntrainedRow(
                model=each.model,
                variant=each.variant,
                tap=first.tap,
                field=first.field,
                factor=first.factor,
                mean=sum(means) / len(means) if whole else None,
                low=min(means) if whole else None,
                high=max(means) if whole else None,
                compared=sum(shares) / len(shares) if shares else None,
                seeds=len(group),
                images=len(images),
                reason=next((row.reason.model_dump() for row in group if row.reason is not None), None),
            )
        )
    return rows


def draw_offsets(model: StagedModel, images: Tensor, seed: int) -> None:
    """Draw the weights of every offset branch normally, scaled so that taps move by one cell on these pictures.

    One cell: the root mean square of all offsets of a layer, over taps, cells and levels. Biases stay zero, as do
    the logits of masks.

    Parameters
    ----------
    model : StagedModel
        A network with ``DeformConv`` or ``DeformableDSSConv``; others are left as they are.
    images : tensor (N, C, H, W)
        Pictures, uint8 or float in [0, 1].
    seed : int
        Of the weights.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, DeformConv | DeformableDSSConv)
        x, weight = args[0], layer.offset.weight
        assert isinstance(weight, Tensor)
        shifts = layer.shifts if isinstance(layer, DeformConv) else len(weight)
        noise = torch.randn(weight[:shifts].shape, generator=generator).to(weight)
        weight[:shifts] = noise
        if isinstance(layer, DeformConv):
            offsets = layer.offset(x)[:, :shifts]
        else:
            offsets = layer.offset(x[:, :, : layer.out_levels])
            if layer.offsets == "scaled":
                steps = torch.tensor(layer.dilations[: layer.out_levels]).to(offsets)
                offsets = offsets * steps.view(-1, 1, 1)
        weight[:shifts] *= SHIFT / offsets.square().mean().sqrt()

    handles = [
        module.register_forward_pre_hook(draw)
        for module in model.modules()
        if isinstance(module, DeformConv | DeformableDSSConv)
    ]
    try:
        with measuring(model, "cpu") as dtype:
            pictures = images.to(dtype)
            model.features(pictures if images.is_floating_point() else pictures / 255)
    finally:
        for handle in handles:
            handle.remove()


def read_as_plane(model: StagedModel) -> StagedModel:
    """Return the same network with every tap that lies on a grid declared as a plane on that grid."""
    stages = []
    for (tap, module), kind in zip(model.stages, model.taps.values(), strict=True):
        stride, origin = getattr(kind, "stride", None), getattr(kind, "origin", None)
        stages.append(Stage(tap, module, kind if stride is None else Plane(stride, origin)))
    return StagedModel(stages).eval()


def plain_of(model: str) -> str:
    """Return the plain network of a network's body.

    Examples
    --------
    >>> plain_of("mnist_ses_vector_56p"), plain_of("dss_v1")
    ('mnist_cnn_56', 'cnn')
    """
    found = re.fullmatch(r"mnist_.*_(28|56)p?", model)
    return f"mnist_cnn_{found[1]}" if found else "cnn"


def reference(rows: Sequence[Row], row: Row) -> Row | None:
    """Return the plain network's row to compare one with: the tap of the same name, else the block of its number."""
    for tap in (row["tap"], row["tap"].replace("conv", "block")):
        for other in rows:
            where = (plain_of(row["model"]), "", tap, row["factor"])
            if (other["model"], other["variant"], other["tap"], other["factor"]) == where:
                return other
    return None


def not_below(rows: Sequence[Row], row: Row) -> bool:
    """Say whether a network is measured, and farther from equivariance than the plain one."""
    other = reference(rows, row)
    if other is None or (other["model"] == row["model"] and not row["variant"]):
        return False
    return row["mean"] is not None and other["mean"] is not None and row["mean"] > other["mean"]


def block(rows: Sequence[Row], command: str) -> str:
    """Return the generated part of the page, markers included.

    Parameters
    ----------
    rows : sequence of mapping
        As ``--format json`` prints them.
    command : str
        What printed this.
    """
    own = [row for row in rows if not row["variant"]]
    parts = [BEGIN, f"`{command}`", _measured(rows), "### Every network", _table(rows, own)]
    variants = [row for row in rows if row["variant"]]
    if variants:
        parts += ["### Options", _table(rows, variants)]
    return "\n\n".join([*parts, END]) + "\n"


def _measured(rows: Sequence[Row]) -> str:
    counts = sorted({(row["images"], row["seeds"]) for row in rows})
    measured = "; ".join(f"{images} pictures and {seeds} seeds" for images, seeds in counts)
    return (
        f"Δ, the mean over seeds (smallest–largest), of {measured}. ▲: above the plain network of the same body at the "
        "tap of that name (a convolution without one: at the block of its number); a tap that computes the "
        "same has the same figure. The last column is the share of cells compared at each factor, where "
        "that is not all of them."
    )


def _table(rows: Sequence[Row], shown: Sequence[Row]) -> str:
    factors = list(dict.fromkeys(row["factor"] for row in shown))
    lines: dict[tuple[str, str, str], dict[float, Row]] = {}
    for row in shown:
        lines.setdefault((row["model"], row["variant"], row["tap"]), {})[row["factor"]] = row
    header = ["network", "tap", *(f"s = {factor:.3g}" for factor in factors), "compared"]
    text = ["| " + " | ".join(header) + " |", "| --- | --- |" + " ---: |" * (len(factors) + 1)]
    last = None
    for (model, variant, tap), cells in lines.items():
        name = f"`{model}`" + (f" {variant}" if variant else "")
        values = [_cell(cells[f], not_below(rows, cells[f])) if f in cells else "" for f in factors]
        shares = [cells[f]["compared"] for f in factors if f in cells]
        text.append(
            "| " + " | ".join(["" if name == last else name, f"`{tap}`", *values, _shares(shares)]) + " |"
        )
        last = name
    return "\n".join(text)


def _cell(row: Row, marked: bool) -> str:
    if row["mean"] is None:
        return MISSING.get(row["reason"]["code"], "—")
    value = f"{row['mean']:.3g}"
    if row["seeds"] > 1:
        value += f" ({row['low']:.2g}–{row['high']:.2g})"
    return value + " ▲" * marked


def _shares(shares: Sequence[float | None]) -> str:
    if all(share is None or share > 0.9995 for share in shares):
        return ""
    return ", ".join("—" if share is None else f"{share:.0%}" for share in shares)


def replaced(page: str, written: str) -> str:
    """Return a page with its generated part replaced.

    Raises
    ------
    ValueError
        When the page does not hold the two markers, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines '{BEGIN}' and '{END}'")
    return before + written.rstrip("\n") + after


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read what was measured before.

    Raises
    ------
    InputError
        When the file holds something else.
    """
    try:
        found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        if not found or any(KEYS - row.keys() for row in found):
            raise TypeError
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"--rows {file}: is not what --format json prints") from None
    return found


def measured_networks(models: Sequence[str] = ()) -> list[Untrained]:
    """Return what is measured: the networks named, or all for small grey pictures, and the variants."""
    if models:
        return [Untrained(MODELS[name].name) for name in models]
    small = [name for name in MODELS.own if not name.startswith("wrn_") and not name.endswith("resnet50")]
    return [*(Untrained(name) for name in small), *VARIANTS]


def measure(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure every network, and say on stderr which one is next."""
    if given.border is not None:
        validated(MeasureSettings, {"border": given.border}, "--border")
    large = given.large_images or given.images
    pictures = open_pictures(given.data, images=max(given.images, large))
    where = machine(given.device, given.threads)
    with reproducible(where, strict=False):
        for each in measured_networks(given.models):
            print(f"{each.model} {each.variant}".strip(), file=sys.stderr)
            rows = measure_untrained(
                each,
                pictures.images[: large if "_56" in each.model else given.images],
                seeds=range(given.seeds),
                border=given.border,
                on_black=pictures.on_black,
                device=where.device,
            )
            yield from map(asdict, rows)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="untrained_page", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("models", nargs="*", help="registry names; none: all for small grey pictures, and their variants")
    add("--data", type=Path, help="unscaled pictures to measure on, of one channel")
    add("--images", type=int, default=200, help="pictures, from the first")
    add("--large-images", type=int, help="pictures for networks that enlarge them to 56×56")
    add("--seeds", type=int, default=3, help="seeds 0 to SEEDS − 1")
    add("--border", type=float, help="pixels left out along the edges; default: 0 for pictures on black")
    add("--rows", type=Path, action="append", metavar="FILE", help="take what --format json gave")
    add("--page", type=Path, metavar="FILE", help="write the markdown between the markers of this page")
    add("--device", default="auto", help="where to compute")
    add("--threads", type=int, default=0, help="CPU threads; 0: one per core")
    add("--format", choices=("markdown", "json"), default="markdown")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or read what was measured; print it, or write it into the page."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = _options().parse_args(arguments)
    command = f"python -m tools.untrained_page {shlex.join(arguments)}"
    try:
        if (given.data is None) == (not given.rows):
            raise InputError("--data or --rows: give the pictures to measure on, or what was measured")
        found = (
            [row for file in given.rows for row in read_rows(file)] if given.rows else list(measure(given))
        )
        if given.page is not None:
            text = replaced(given.page.read_text(encoding="utf-8"), block(found, command))
            write_text(given.page, text)
        elif given.format == "json":
            print(json.dumps(found, indent=1, ensure_ascii=False))
        else:
            print(block(found, command), end="")
    except (OSError, SecliError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
