"""``secli doctor``: what secli runs on, and whether something is in its way."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from secli.cli.console import out_json, show
from secli.cli.options import format_option


def doctor(format: Annotated[str, format_option("table", "json")] = "table") -> None:
    """Show versions, devices, cache and disk; leave with code 1 when something is in the way."""
    report = dict(findings())
    if format == "json":
        out_json(report)
    else:
        show(_table(report))
    if report["problems"]:
        raise typer.Exit(1)


def findings() -> Iterator[tuple[str, Any]]:
    """Yield what there is to say, as (key, value); the last is the list of problems."""
    from secli.provenance import commit, library_versions, secli_version
    from secli.sources.files import cache_directory

    problems: list[str] = []
    yield "secli", secli_version()
    yield "commit", commit()
    yield "python", sys.version.split()[0]
    versions = library_versions()
    yield "libraries", versions
    problems += [f"{name} is not installed" for name in ("torch", "torchvision") if name not in versions]
    devices, trouble = _devices()
    yield "devices", devices
    problems += trouble
    cache = cache_directory()
    yield (
        "cache",
        {"path": str(cache), "chosen_by": "SECLI_CACHE" if "SECLI_CACHE" in os.environ else "platform"},
    )
    for name, folder in {"cache": cache, "here": Path.cwd()}.items():
        standing = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(standing).free / 2**30
        yield f"free_gib_{name}", round(free, 1)
        if free < 1:
            problems.append(f"{standing}: less than 1 GiB free")
        if not os.access(standing, os.W_OK):
            problems.append(f"{standing}: cannot be written")
    yield "problems", problems


def _devices() -> tuple[list[dict[str, Any]], list[str]]:
    """Return the devices that torch finds, each tried with a small product."""
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:
        return [], [f"torch or torchvision does not load: {str(error).splitlines()[0]}"]
    assert torchvision.ops is not None
    found: list[dict[str, Any]] = [
        {"device": "cpu", "name": "CPU", "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    ]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = round(properties.total_memory / 2**30, 1)
        found.append({"device": f"cuda:{index}", "name": properties.name, "memory_gib": memory})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Metal"})
    problems = []
    for entry in found:
        try:
            one = torch.ones(2, 2, device=entry["device"])
            assert float((one @ one).sum()) == 8
        except (RuntimeError, AssertionError) as error:
            problems.append(f"{entry['device']}: a small product fails ({str(error).splitlines()[0]})")
    return found, problems


def _table(report: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "secli", f"{report['secli']}" + (f" (commit {report['commit']})" if report["commit"] else "")
    )
    table.add_row("python", report["python"])
    for name, version in report["libraries"].items():
        table.add_row(name, version)
    for entry in report["devices"]:
        details = ", ".join(
            f"{key.replace('_gib', '')} {value}"
            for key, value in entry.items()
            if key not in ("device", "name")
        )
        table.add_row(entry["device"], f"{entry['name']}" + (f" ({details})" if details else ""))
    table.add_row("cache", f"{report['cache']['path']} ({report['cache']['chosen_by']})")
    table.add_row(
        "disk", f"{report['free_gib_cache']} GiB free at the cache, {report['free_gib_here']} GiB here"
    )
    table.add_row("problems", "; ".join(report["problems"]) or "none")
    return table
