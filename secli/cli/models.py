"""``secli models``: what is in the registry, and all about one model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secli.catalogue import MODELS
from secli.cli.console import note, out_json, show
from secli.cli.options import format_option
from secli.errors import SecliError

if TYPE_CHECKING:
    from rich.table import Table

    from secli.models.describe import Description, OptionInfo


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Registry name of one model; none lists all.")
    ] = None,
    format: Annotated[
        str, format_option("table", "json", note=": table for the eye, json for programs, all of each")
    ] = "table",
) -> None:
    """List the networks that secli can build, with their real parameter counts, or describe one of them.

    With NAME: the idea, its equation, the paper, every tap with its field (how scale acts there) and shape, every
    option (set it by --set model.OPTION=VALUE) with default and range, and the training settings. Shapes leave out
    the batch axis; strides, origins and blurs are in image pixels.
    """
    names = list(MODELS) if name is None else [MODELS[name].name]

    from secli.models.describe import describe

    own = MODELS.own
    descriptions = []
    for each in names:
        try:
            descriptions.append(describe(each))
        except SecliError as error:
            # another package's broken model must not hide the rest; asked for by name, it is an error
            if name is not None or each in own:
                raise
            note(f"{each}: left out: {error}")
    if format == "json":
        out_json([asdict(description) for description in descriptions])
    elif name is None:
        _show_all(descriptions)
    else:
        _show_one(descriptions[0])


def _table(*headers: str, title: str | None = None) -> Table:
    """Return an empty table whose first column never breaks."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for i, header in enumerate(headers):
        table.add_column(header, no_wrap=i == 0)
    return table


def _show_all(descriptions: list[Description]) -> None:
    """Print one table per idea, its paper above it: so there is room for words at 80 columns."""
    groups: dict[tuple[str, str], list[Description]] = {}
    for each in descriptions:
        groups.setdefault((each.family, each.paper), []).append(each)
    width = max(len(each.name) for each in descriptions)
    for (family, paper), members in groups.items():
        table = _table("name", "parameters", "input", "what it is", title=_plain(f"{family} · {paper}"))
        table.columns[0].min_width = width
        table.columns[1].justify = "right"
        for column in table.columns[1:3]:
            column.no_wrap = True
        for each in members:
            table.add_row(each.name, _count(each.parameters), _times(each.input), MODELS[each.name].idea)
        show(table)


def _show_one(description: Description) -> None:
    from secli.models.describe import describe_training, summary

    spec = MODELS[description.name]
    facts = _table("model", description.name)
    for key, value in (
        ("what it is", spec.idea),
        ("in full", summary(description.name)),
        *_idea(description.family),
        ("paper", description.paper),
        ("licence", spec.licence),
        ("parameters", _count(description.parameters)),
        ("FLOPs", f"{_count(description.flops)}, multiply–adds × 2 of one picture's forward pass"),
        ("input", f"{_times(description.input)}, pixels in [0, 1]"),
    ):
        facts.add_row(key, _plain(value))
    show(facts)
    taps = _table("tap", "shape", "field", title="Taps")
    for tap in description.taps:
        taps.add_row(tap.name, _times(tap.shape), tap.field)
    show(taps)
    show(_options("Options: --set model.OPTION=VALUE", "option", description.options))
    show(_options("Training: --set training.SETTING=VALUE", "setting", describe_training(description.name)))


def _idea(name: str) -> list[tuple[str, str]]:
    """Return what there is to say of a family; another package's has no entry."""
    from secli.catalogue.families import FAMILIES

    if name not in FAMILIES:
        return [("family", name)]
    family = FAMILIES[name]
    differs = [("differs from published code" * (i == 0), each) for i, each in enumerate(family.differs)]
    return [("family", family.title), ("its idea", family.idea), ("equation", family.equation), *differs]


def _options(title: str, header: str, options: tuple[OptionInfo, ...]) -> Table:
    table = _table(header, "default", "allowed", "what it does", title=title)
    for option in options:
        table.add_row(option.name, _value(option.default), option.allowed, _plain(option.description))
    return table


def _plain(text: str) -> str:
    """Keep rich from reading brackets as markup."""
    from rich.markup import escape

    escaped: str = escape(text)
    return escaped


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(str(length) for length in shape)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return _plain(f"[{', '.join(_value(each) for each in value)}]")
    return f"{value:g}" if isinstance(value, float) else str(value)
