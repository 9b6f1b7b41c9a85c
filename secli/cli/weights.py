"""``secli weights``: trained networks with their records: those at hand listed, others fetched, one's own pushed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secli.cli.console import note, out, out_json
from secli.cli.options import Quiet, argument, force_option, format_option, option

if TYPE_CHECKING:
    from secli.weights.index import TrainedNetwork

weights = typer.Typer(
    help="Trained networks with their records: list, fetch, push.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

From = Annotated[
    str | None,
    option(
        "Where networks lie: a directory, an https address, or hub:OWNER/NAME (extra hub).",
        "--from",
        default="those that come with secli or were fetched",
        metavar="PLACE",
    ),
]


def _sha256(value: str | None) -> str | None:
    if value is not None and (len(value) != 64 or set(value) - set("0123456789abcdef")):
        raise typer.BadParameter(f"{value} is no sha256: 64 digits and letters a to f")
    return value


@weights.command("list")
def list_networks(
    place: From = None, format: Annotated[str, format_option("table", "json")] = "table", quiet: Quiet = False
) -> None:
    """List trained networks: name, what each was trained on, its test error, the size and sha256 of its weights."""
    from secli.weights.places import index_of, place_of
    from secli.weights.store import known

    if place is None:
        _print([network for _, network in known()], format)
        return
    index, digest = index_of(place_of(place))
    _print(index.networks, format)
    if not quiet:
        note(f"pin this index by --sha256 {digest}")


def _print(networks: Sequence[TrainedNetwork], format: str) -> None:
    from tabulate import tabulate

    if format == "json":
        out_json([_row(network) for network in networks])
        return
    heads = ("name", "model", "trained on", "error (%)", "MB", "sha256")
    rows = [
        (
            network.name,
            network.model,
            f"{network.dataset} r{network.realisation}",
            None if network.test_error is None else f"{100 * network.test_error:.2f}",
            f"{network.size / 1e6:.2f}",
            network.sha256[:16],
        )
        for network in networks
    ]
    aligned = ("left", "left", "left", "right", "right", "left")
    table = tabulate(rows, heads, missingval="—", disable_numparse=True, colalign=aligned) if rows else ""
    out(table or "no trained network at hand")


def _row(network: TrainedNetwork) -> dict[str, Any]:
    told = network.model_dump(mode="json", exclude={"files"})
    return {**told, "size": network.size, "sha256": network.sha256}


@weights.command()
def fetch(
    name: Annotated[str, argument("NAME", "The network, as 'secli weights list --from PLACE' calls it.")],
    place: Annotated[
        str,
        option(
            "Where it lies: a directory, an https address, or hub:OWNER/NAME (extra hub).",
            "--from",
            metavar="PLACE",
        ),
    ],
    sha256: Annotated[
        str | None,
        option("Pins the index of a place that is not on this machine.", metavar="HEX", callback=_sha256),
    ] = None,
    directory: Annotated[
        Path | None,
        option("Directory to put it into.", "--out", default="the cache (SECLI_CACHE)", metavar="DIR"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch a trained network, verified, and print its folder; 'secli equivariance MODEL --weights published' finds it.

    The folder is a run directory: every command that takes a run takes it.
    """
    from secli.weights.places import place_of
    from secli.weights.store import fetch as fetch_network

    folder = fetch_network(place_of(place), name, sha256, directory)
    out(str(folder))
    if not quiet:
        note("verified: every file has the sha256 of the index")


@weights.command()
def push(
    run: Annotated[Path, argument("RUN", "A finished run directory.")],
    to: Annotated[
        str, option("Where to put it: a directory, or hub:OWNER/NAME (extra hub).", "--to", metavar="PLACE")
    ],
    name: Annotated[
        str | None, option("What it is called.", default="model, dataset and realisation", metavar="NAME")
    ] = None,
    force: Annotated[bool, force_option("a network of this name")] = False,
    quiet: Quiet = False,
) -> None:
    """Put a run's network with its record and a model card made from it into a place, and print its name.

    Its records are rewritten without paths of this machine.
    """
    from secli.training.run import load_run
    from secli.weights.store import push as push_network

    load_run(run)  # its weights are whole and its model's
    network, digest = push_network(run, to, name, force)
    out(network.name)
    if not quiet:
        note(f"others pin this index by --sha256 {digest}")
