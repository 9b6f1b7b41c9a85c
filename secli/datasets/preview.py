"""Figures of a dataset: samples with their factors, or the stages of an augmentation."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from secli.datasets.manifest import SPLITS
from secli.datasets.protocols import DATASETS
from secli.datasets.store import ScaleDataset, Split
from secli.errors import InputError
from secli.storage.writing import atomic_path

FORMATS = (".png", ".pdf", ".svg")
COLUMNS = 8
MAX_ROWS = 10
CELL_INCHES = 0.85
DPI = 200


def check_preview_path(path: Path) -> None:
    """Refuse a figure's path whose format cannot be written, or that is a directory."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--preview {path}: the figure's name must end in {', '.join(FORMATS)}")
    if path.is_dir():
        raise InputError(f"--preview {path}: is a directory")


def write_preview(dataset: ScaleDataset, path: Path) -> None:
    """Draw a dataset by its protocol's function, and write the figure atomically; InputError on a bad path."""
    check_preview_path(path)
    module, _, function = DATASETS[dataset.manifest.protocol].preview.partition(":")
    draw: Callable[[ScaleDataset], Any] = getattr(importlib.import_module(module), function)
    figure = draw(dataset)
    # without a date the same data give the same file
    undated = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}[path.suffix.lower()]
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format=path.suffix[1:].lower(), metadata=undated)


def samples_by_factor(dataset: ScaleDataset) -> Any:
    """Draw one row per class; along it, samples from the smallest factor to the largest."""
    name = next(name for name in SPLITS if dataset.manifest.sizes[name])
    split = dataset.split(name)
    labels: list[int] = np.unique(split.labels)[:MAX_ROWS].tolist()
    chosen = [_spread(split, label) for label in labels]
    figure, axes = _grid(len(labels), COLUMNS, dataset.image_size)
    for row, indices in enumerate(chosen):
        axes[row][0].set_ylabel(
            _short(dataset.classes[labels[row]]), rotation=0, ha="right", va="center", fontsize=7
        )
        for column, index in enumerate(indices):
            _show(axes[row][column], split.images[index])
            axes[row][column].set_title(f"s = {split.factors[index]:.2f}", fontsize=6, pad=2)
    shown = f", {len(labels)} of {len(dataset.classes)} classes" if len(labels) < len(dataset.classes) else ""
    height, width = dataset.image_size
    title = f"{dataset.name} r{dataset.realisation}, {name} split, {width}×{height} px{shown}"
    figure.suptitle(title, fontsize=9)
    return figure


def augmentation_stages(dataset: ScaleDataset) -> Any:
    """Draw what the STL-10 protocol's augmentation does to a training picture of each of six classes."""
    import torch

    from secli.datasets.loading import pixels, to_device
    from secli.datasets.stl10 import draw, stages

    split = dataset.split("train")
    rows = [int(np.flatnonzero(split.labels == label)[0]) for label in np.unique(split.labels)[:6]]
    images, _ = to_device(Split(split.images[rows], split.labels[rows], split.factors[rows]))
    generator = torch.Generator().manual_seed(dataset.realisation)
    draws = draw(len(rows), dataset.image_size, generator)
    shown = stages(pixels(images), draws)
    figure, axes = _grid(len(rows), len(shown), dataset.image_size, inches=1.3)
    for column, (stage, pictures) in enumerate(shown.items()):
        for row in range(len(rows)):
            _show(axes[row][column], pictures[row].permute(1, 2, 0).numpy())
        axes[0][column].set_title(f"{stage}\n{pictures.shape[3]}×{pictures.shape[2]} px", fontsize=7, pad=3)
    for row, index in enumerate(rows):
        label = _short(dataset.classes[split.labels[index]])
        axes[row][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
    title = f"{dataset.name} r{dataset.realisation}: stages of the augmentation, before normalisation"
    figure.suptitle(title, fontsize=9)
    return figure


def _spread(split: Split, label: int) -> np.ndarray:
    """Return up to eight images of a class whose factors spread evenly over the class's range."""
    members = np.flatnonzero(split.labels == label)
    ordered = members[np.argsort(split.factors[members], kind="stable")]
    ranks = np.linspace(0, len(ordered) - 1, min(COLUMNS, len(ordered))).round().astype(int)
    chosen: np.ndarray = ordered[ranks]
    return chosen


def _grid(rows: int, columns: int, size: tuple[int, int], inches: float = CELL_INCHES) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cell = inches * min(max(size[0] / size[1], 0.4), 2.5)
    figure = Figure(figsize=(columns * inches + 1.0, rows * (cell + 0.17) + 0.45), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    return figure, axes


def _show(axis: Any, image: np.ndarray) -> None:
    limit = 255 if image.dtype == np.uint8 else 1
    axis.imshow(image, cmap="gray", vmin=0, vmax=limit, interpolation="nearest")


def _short(name: str, length: int = 14) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
