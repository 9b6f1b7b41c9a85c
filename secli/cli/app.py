"""The command line: one thin file per command; heavy imports stay inside the commands."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from secli import signals
from secli.cli.bench import bench
from secli.cli.compare import compare
from secli.cli.console import OneLineErrors, out
from secli.cli.demo import demo
from secli.cli.doctor import doctor
from secli.cli.equivariance import equivariance
from secli.cli.make_data import make_data
from secli.cli.models import models
from secli.cli.report import report
from secli.cli.robustness import robustness
from secli.cli.sweep import sweep
from secli.cli.train import train
from secli.cli.weights import weights
from secli.external.standard_output import no_more_results

app = typer.Typer(
    name="secli",
    cls=OneLineErrors,
    help="Measure how well vision networks keep their promise under change of scale.",
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from secli.provenance import secli_version

        out(f"secli {secli_version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Measure how well vision networks keep their promise under change of scale."""
    if context.invoked_subcommand is None:
        out(context.get_help())


app.command("make-data")(make_data)
app.command("train")(train)
app.command("equivariance")(equivariance)
app.command("compare")(compare)
app.command("robustness")(robustness)
app.command("sweep")(sweep)
app.command("report")(report)
app.command("models")(models)
app.add_typer(weights, name="weights")
app.command("demo")(demo)
app.command("doctor")(doctor)
app.command("bench")(bench)


def main() -> None:
    """Entry point of the console script."""
    # Two processes whose threads wait by spinning stall each other (small networks: up to ten times slower);
    # short spinning costs nothing measurable when a process is alone. Read by OpenMP when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    signals.install()
    try:
        app()
    finally:
        no_more_results()
