"""Options that commands share, each declared once: its name, metavar, help, bounds and check.

Where a command truly means another thing by a name, the difference is an argument of a small function here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secli.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from pydantic import BaseModel

# as in secli.config, for whose pydantic --help does not wait
MOST = 1_000_000
MOST_THREADS = 1024
MOST_SEED = 2**32 - 1
MOST_PROCESSES = 1024
MOST_ROUNDS = 10_000
MOST_SIDE = 4096

COUNT: dict[str, Any] = {"min": 1, "max": MOST}
"""Images, and what else there is a whole number of."""
PROCESSES: dict[str, Any] = {"min": 1, "max": MOST_PROCESSES}
ROUNDS: dict[str, Any] = {"min": 1, "max": MOST_ROUNDS}

NETWORKS, MEASURE = "Networks outside the registry", "Measure"
DEVICES, PRECISIONS = "auto|cpu|cuda|mps", "32|tf32|bf16|16"
TABLES = ("table", "markdown", "latex", "csv", "json")


def option(text: str, *names: str, default: str | bool = False, panel: str | None = None, **more: Any) -> Any:
    """Return an option.

    Parameters
    ----------
    text : str
        What it does.
    *names : str
        Where they are not the parameter's own: ``--out``, or a switch that has no ``--no-`` twin.
    default : str or bool
        In words what holds where the option is left out, as the model's published setting; True shows the value that
        the function has for it.
    panel : str
        Its heading in the help.
    **more
        As ``typer.Option`` takes them: metavar, min, max, …
    """
    words = f"{text} \\[default: {default}]" if isinstance(default, str) else text
    if isinstance(more.get("min"), float):
        more.setdefault("callback", _number)
    return typer.Option(*names, help=words, show_default=default is True, rich_help_panel=panel, **more)


def _number(value: float | None) -> float | None:
    """Refuse NaN, which lies in every range."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter(f"{value} is not a number")
    return value


def argument(metavar: str, text: str) -> Any:
    """Return an argument whose help says all that there is to say."""
    return typer.Argument(metavar=metavar, help=text, show_default=False)


def format_option(*known: str, note: str = "", panel: str | None = None) -> Any:
    """Return ``--format``, which refuses all but the known names."""

    def check(value: str) -> str:
        if value not in known:
            raise UnknownNameError("format --format", value, known)
        return value

    text, metavar = f"What is printed{note}.", "|".join(known)
    return option(text, "--format", default=True, panel=panel, metavar=metavar, callback=check)


def out_option(text: str, default: str | bool = True) -> Any:
    """Return ``--out``: the directory that a command makes."""
    return option(text, "--out", default=default, metavar="DIR")


def config_option(text: str) -> Any:
    """Return ``--config``: a YAML file with settings."""
    return option(f"YAML with {text}. Flags win.", metavar="FILE")


def set_option(metavar: str, text: str) -> Any:
    """Return ``--set``: settings by their names."""
    return option(f"{text}; repeatable.", "--set", metavar=metavar)


def seed_option(text: str) -> Any:
    """Return ``--seed``."""
    return option(f"Seed of {text}.", default=True, min=0, max=MOST_SEED)


def force_option(what: str) -> Any:
    """Return ``--force``, without which nothing that is there is replaced."""
    return option(f"Replace {what} that is there already.", "--force")


def source_option(panel: str | None = None) -> Any:
    """Return ``--source``: raw pictures that need no download."""
    return option(
        "Directory with the raw pictures (idx or idx.gz, torchvision's layout, class folders).",
        default="the cache (SECLI_CACHE), then a download",
        panel=panel,
        metavar="DIR",
    )


def offline_option(panel: str | None = None) -> Any:
    """Return ``--offline``."""
    return option("Never download.", "--offline", panel=panel)


def quiet_option(text: str = "No progress and no remarks.") -> Any:
    """Return ``--quiet``."""
    return option(text, "--quiet", "-q")


def label_option() -> Any:
    """Return ``--label``."""
    text = "What a figure's legend calls a network, by its name or its run; repeatable."
    return option(text, "--label", panel="Output", metavar="NET=TEXT")


def caption_option(figures: str) -> Any:
    """Return ``--caption``: the words of the figures that these options draw."""
    return option(
        f"Also what must be said of {figures}, in FILE.txt beside each.", "--caption", panel="Output"
    )


def factors_option(more: str) -> Any:
    """Return ``--factors``; ``more`` says what a command adds to the default ones."""
    return option(
        "Scale factors s: a list 1,0.9,0.5 or a range LOW:HIGH:COUNT; s < 1 shrinks.",
        "--factors",
        default=f"nine from 1/3 to 1, their inverses up to 1.5{more}",
        panel=MEASURE,
    )


Targets = Annotated[
    list[str],
    argument(
        "(RUN|MODEL)...",
        "Run directories, registry names (fresh weights), torchvision:NAME, timm:NAME, package.module:factory or "
        "file.py:factory.",
    ),
]
Protocol = Annotated[
    str | None,
    option(
        "A named list of factors. downscale-2020: 1/s = 1, 1.1, 1.5, 2, 2.5, 3.",
        panel=MEASURE,
        metavar="downscale-2020",
    ),
]
Images = Annotated[int | None, option("Pictures, from the first.", default="1000", panel=MEASURE)]
Batch = Annotated[
    int | None, option("Pictures per forward pass.", default="from measured memory", panel=MEASURE)
]
InputShape = Annotated[
    str | None,
    option(
        "Resize the pictures to it; NET:CxHxW for one network.",
        "--input",
        default="what the network or its weights want, else as they are",
        panel=NETWORKS,
        metavar="CxHxW",
    ),
]
Mean = Annotated[
    str | None,
    option("Mean of the normalisation, for pixels in 0 to 1.", panel=NETWORKS, metavar="M[,M,M]"),
]
Std = Annotated[str | None, option("Deviation of the normalisation.", panel=NETWORKS, metavar="S[,S,S]")]
Weights = Annotated[
    str | None,
    option(
        "safetensors, a state dict, or published weights by name (DEFAULT; of a registry name: published).",
        panel=NETWORKS,
        metavar="FILE|NAME",
    ),
]
State = Annotated[
    str | None,
    option(
        "Which state dict of the file of weights, where several fit (model_ema).",
        panel=NETWORKS,
        metavar="KEY",
    ),
]
Depth = Annotated[
    float | None,
    option(
        "Relative depth at which Δ is read, in each network's order of taps.",
        default="the depth that all rows have most values at",
        min=0.01,
        max=1.0,
    ),
]
Device = Annotated[str, option("Where to compute.", default=True, metavar=DEVICES)]
Threads = Annotated[
    int, option("CPU threads, recorded; 0: one per core.", default=True, min=0, max=MOST_THREADS)
]
Quiet = Annotated[bool, quiet_option()]
Published = Annotated[
    bool, option("Put published figures beside the measured ones, with their sources.", "--published")
]
Track = Annotated[
    list[str] | None,
    option(
        "Also tell mlflow or tensorboard, in OUT (MLflow: or at its tracking URI); repeatable.",
        metavar="TRACKER",
    ),
]


def merged_settings(
    kind: type[BaseModel],
    section: str,
    file: Mapping[str, Any],
    config: Path | None,
    given: Mapping[str, Any],
    flags: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what is set of a section: flag > ``--set`` > ``--config``; each is checked where it stands."""
    from secli.config import validated

    chosen = {key: value for key, value in flags.items() if value is not None}
    validated(kind, file, f"--config {config}: {section}")
    validated(kind, given, f"--set {section}")
    for key, value in chosen.items():
        validated(kind, {key: value}, f"--{key.replace('_', '-')}")
    return {**file, **given, **chosen}


WITH_PATHS = frozenset(("compare", "report", "equivariance", "robustness", "sweep"))
"""Commands whose arguments are paths."""
PATHS = frozenset(
    (
        *("--out", "--output", "-o", "--save", "--data", "--source", "--config", "--runs"),
        *("--plot", "--heatmap", "--show-features", "--preview", "--export-png"),
        *("--results", "--from", "--to"),
    )
)


def refuse_empty_paths(arguments: Sequence[str], commands: Mapping[str, Any]) -> None:
    """Refuse an empty path: it would mean the working directory, and comes of a shell variable that is not set.

    ``commands`` are click's, by their names.

    Raises
    ------
    InputError
        Naming the option, or the argument by its number.
    """
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        before = arguments[number - 1] if number else ""
        if argument == "" and before in PATHS:
            name = before
        elif not (equals and value == "" and name in PATHS):
            if argument or not number or arguments[0] not in WITH_PATHS:
                continue
            # after an option that takes a value the empty text is that value
            options = [each for each in commands[arguments[0]].params if before in each.opts]
            if before.startswith("-") and not any(each.is_flag for each in options):
                continue
            name = f"argument {number}"
        raise InputError(
            f"{name}: an empty path; is a variable of the shell not set? ('.' is this directory)"
        )
