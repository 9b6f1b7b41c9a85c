"""Where a number comes from: versions, commit, device, threads, command, hashes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from secli import __version__
from secli.records.schema import Provenance

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pillow", "lightning-fabric", "pandas")


def library_versions() -> dict[str, str]:
    """Return the installed version of each library that numbers depend on (without importing any)."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def secli_version() -> str:
    """Return the version of this code, installed or not."""
    return __version__


def commit() -> str | None:
    """Return the git commit of the checkout that secli runs from, with '+' if it has changes, else None."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "")


def gather(device: str, threads: int) -> Provenance:
    """Collect the provenance of a result that was computed on ``device`` with ``threads`` CPU threads."""
    return Provenance(
        secli=secli_version(),
        commit=commit(),
        python=platform.python_version(),
        libraries=library_versions(),
        platform=f"{platform.system()} {platform.machine()}",
        device=device,
        threads=threads,
        command=command_line(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


COMMAND = "SECLI_COMMAND"
"""Environment variable by which a process that works for another says whose command it carries out."""


def command_line() -> str:
    """Return the command line, as given; of a sweep's worker, that of the sweep."""
    return os.environ.get(COMMAND) or shlex.join([_program(), *sys.argv[1:]])


def _program() -> str:
    """Return what the program was called by; ``python -m secli`` shows as its file."""
    name = Path(sys.argv[0]).name
    return "secli" if name == "__main__.py" else name


WEIGHTS_SUFFIXES = frozenset((".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl"))


def names_a_file(weights: str) -> bool:
    """Say whether ``--weights`` names a file rather than published weights."""
    return Path(weights).suffix.lower() in WEIGHTS_SUFFIXES or "/" in weights or Path(weights).is_file()


def origin_of_weights(options: Mapping[str, Any], seed: int, run: str | None = None) -> str:
    """Return where a network's weights come from, in words.

    Parameters
    ----------
    options : mapping
        Of the network, as a record has them: ``weights``, ``weights_state``.
    seed : int
        Of fresh weights.
    run : str, optional
        The run directory.

    Examples
    --------
    >>> origin_of_weights({}, 3), origin_of_weights({"weights": "w.pth", "weights_state": "ema"}, 3)
    ('untrained, seed 3', 'weights w.pth, state ema')
    """
    weights, state = options.get("weights"), options.get("weights_state")
    if run is not None:
        return f"run {run}"
    if weights is None:
        return f"untrained, seed {seed}"
    named = f"weights {weights}" if names_a_file(weights) else str(weights)
    return named if state is None else f"{named}, state {state}"


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
