"""What stands before a campaign begins: datasets, runs, results, a sweep, pictures, weights; does it still stand?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.campaigns.forked import invoke

SWEEP = """\
name: small
about: "a sweep of one network"
models: [{name: cnn, options: {widths: [2, 2, 2, 2]}}]
datasets: [{name: digits-scale, realisations: [0], sizes: [40, 10, 10]}]
training: {epochs: 1, milestones: [], device: cpu}
measure: {factors: [1, 0.5], images: 4}
tables: [{title: Errors, rows: [model]}]
"""
CONFIG = """\
model: {name: cnn, options: {widths: [2, 2, 2, 2]}}
training: {epochs: 1, milestones: [], device: cpu}
measure: {factors: [1, 0.5], images: 4}
"""
NETWORK = """\
from torch import nn


def make():
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 10)
    return nn.Sequential(*layers)
"""


@dataclass(frozen=True)
class Standing:
    """Where everything stands, below one directory."""

    root: Path
    data: Path
    twin: Path
    run: Path
    result: Path
    sweep: Path
    swept: Path
    config: Path
    network: Path
    pictures: Path
    weights: Path
    checkpoint: Path


def stand_up(root: Path) -> Standing:
    """Make everything, by the commands themselves."""
    root.mkdir(parents=True)
    for name, text in (("sweep.yaml", SWEEP), ("config.yaml", CONFIG), ("net.py", NETWORK)):
        (root / name).write_text(text)
    noise = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / "pictures" / label).mkdir(parents=True)
        for number in range(8):
            picture = Image.fromarray(noise.integers(0, 256, (28, 28), dtype=np.uint8))
            picture.save(root / "pictures" / label / f"{number}.png")
    data, twin = _made("digits-scale", root), _made("digits", root)
    run = root / _worked(
        root, "train", "cnn", "--data", str(data), "--out", "runs", "--config", "config.yaml", "--threads", "1", "-q"
    )  # fmt: skip
    measure = ("--data", str(twin), "--config", "config.yaml", "--threads", "1", "-q")
    _worked(root, "equivariance", str(run), *measure)
    _worked(root, "equivariance", "cnn", "--save", "results", *measure)
    swept = root / "swept"
    _sweep_of(run, swept)
    _checkpoints(run, root)
    return Standing(
        root=root,
        data=data,
        twin=twin,
        run=run,
        result=next((root / "results").glob("*.json")),
        sweep=root / "sweep.yaml",
        swept=swept,
        config=root / "config.yaml",
        network=root / "net.py",
        pictures=root / "pictures",
        weights=root / "weights.safetensors",
        checkpoint=root / "weights.pth",
    )


def _made(name: str, root: Path) -> Path:
    sizes = ("--sizes", "40", "10", "10")
    return root / _worked(root, "make-data", name, *sizes, "--out", "data", "-q")


def _worked(root: Path, *arguments: str) -> str:
    """Return the last line that a command printed, which must work."""
    ended = invoke(arguments, root, patience=120)
    if ended.code != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {ended.stderr[-2000:]}")
    return (ended.stdout.strip().splitlines() or [""])[-1]


def _sweep_of(run: Path, out: Path) -> None:
    """Put a run into a sweep's directory, as ``secli sweep`` would, without its worker process of seconds."""
    import shutil

    from secli.records.schema import SweepRecord, SweptRun, read_training_record, write_record

    record = read_training_record(run)
    place = f"cnn/{run.name}"
    shutil.copytree(run, out / place)
    listed = SweptRun(key="0" * 12, run=place, model="cnn", label="cnn", options=record.model.options)
    tables = [{"title": "Errors", "rows": ["model"]}]
    swept = SweepRecord(
        name="small", about="a sweep", command="secli sweep", secli="0", runs=[listed], tables=tables
    )
    write_record(out / "sweep.json", swept)


def _checkpoints(run: Path, root: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file

    shutil.copy(run / "model.safetensors", root / "weights.safetensors")
    torch.save(load_file(run / "model.safetensors"), root / "weights.pth")


def digests(root: Path) -> dict[str, str]:
    """Return what stands below a directory: each file's digest, each link's target."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.name in (".stdout", ".stderr"):
            continue
        if path.is_symlink():
            found[str(path.relative_to(root))] = f"-> {path.readlink()}"
        elif path.is_file() and path.stat().st_size < 1 << 28:
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the names of what is gone or has other content."""
    return [name for name, digest in before.items() if after.get(name) != digest]
