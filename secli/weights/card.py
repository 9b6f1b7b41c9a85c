"""The model card of a trained network, made from its records alone."""

from __future__ import annotations

from collections.abc import Sequence

from secli.catalogue import MODELS
from secli.records.kept import KeptRun
from secli.records.schema import EquivarianceRecord


def card(name: str, kept: KeptRun) -> str:
    """Return the README of a network's folder: what it is, how it was trained, its errors, how it is used."""
    return "\n".join([*_head(name, kept), *_training(kept), *_curves(kept.curves), *_use(name, kept)])


def _head(name: str, kept: KeptRun) -> list[str]:
    model = kept.record.model
    lines = ["---", "library_name: secli", "tags: [image-classification, scale-equivariance]", "---"]
    lines += [f"# {name}", ""]
    if model.name in MODELS:
        spec = MODELS[model.name]
        lines += [f"`{model.name}`: {spec.idea}. Source: {spec.paper}.", ""]
    return lines


def _training(kept: KeptRun) -> list[str]:
    record, results = kept.record, kept.record.results
    assert results is not None  # a kept run is finished
    settings = ", ".join(f"{key} {value}" for key, value in record.training.items())
    changed = ", ".join(f"{key} {record.model.options.get(key)}" for key in record.model.changed)
    error = (
        "—"
        if results.test_error is None
        else f"{100 * results.test_error:.2f} % of {results.test_images} images"
    )
    made = record.provenance
    rows = [
        ("parameters", f"{record.model.parameters}"),
        ("options that differ", changed or "none"),
        (
            "trained on",
            f"{record.data.name}, realisation {record.data.realisation} (`{record.data.digest[:16]}…`)",
        ),
        ("test error", error),
        ("epochs", f"{results.epochs}, weights of epoch {results.best_epoch}"),
        ("settings", settings),
        (
            "time",
            f"{results.train_seconds:.0f} s on {made.device}, {made.threads} thread{'s' * (made.threads != 1)}",
        ),
        (
            "made by",
            f"secli {made.secli} ({made.commit or 'no commit'}), torch {made.libraries.get('torch', '?')}",
        ),
        ("command", f"`{made.command}`"),
    ]
    return ["| | |", "| --- | --- |", *(f"| {key} | {value.replace('|', '/')} |" for key, value in rows), ""]


def _curves(curves: EquivarianceRecord | None) -> list[str]:
    """Return Δ at every tap and factor, and the accuracy, as far as they were measured."""
    if curves is None:
        return []
    factors = list(dict.fromkeys(row.factor for row in curves.rows))
    taps: dict[str, dict[float, float | None]] = {}
    for row in curves.rows:
        if row.level is None and row.channel is None:
            taps.setdefault(row.tap, {})[row.factor] = row.mean
    accuracy = {row.factor: row.accuracy for row in curves.accuracy}
    lines = [
        f"Equivariance error ({curves.metric}) on {curves.data.name}, realisation {curves.data.realisation}:",
        "",
    ]
    lines += [_line(["tap", *(f"s = {s:.3g}" for s in factors)]), _line(["---"] * (1 + len(factors)))]
    lines += [_line([tap, *(_number(found.get(s)) for s in factors)]) for tap, found in taps.items()]
    if accuracy:
        lines.append(_line(["accuracy (%)", *(_number(accuracy.get(s), 100) for s in factors)]))
    return [*lines, ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, times: float = 1) -> str:
    return "—" if value is None else f"{times * value:.3g}"


def _use(name: str, kept: KeptRun) -> list[str]:
    return [
        "The weights are safetensors: nothing is executed when they are read. This folder is a run directory of secli:",
        "",
        "```text",
        f"secli weights fetch {name} --from PLACE",
        f"secli equivariance {kept.record.model.name} --weights published --data DIR",
        "```",
        "",
    ]
