"""Published figures, each with its source, and which of them may stand beside a measured row."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.datasets.protocols import DATASETS
from secli.tables.aggregate import Row
from secli.tables.derived import base_dataset
from secli.tables.naming import parameters_of
from secli.yaml_files import parse_yaml

Metric = Literal["test_error", "accuracy", "equivariance_error", "parameters"]
Kind = Literal["paper", "reproduction", "citation", "code"]


class _Strict(BaseModel):
    """Frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(_Strict):
    """Where figures were printed."""

    text: str = Field(description="authors, title, venue, as far as known")
    year: int | None = Field(description="year of publication; null if unknown")
    kind: Kind = Field(description="the paper itself, a reproduction, another paper that cites it, or code")


class Range(_Strict):
    """A setting of which only the range is known."""

    low: float
    high: float


class Protocol(_Strict):
    """On what data, and how, a published network was trained."""

    dataset: str = Field(description="data set, by our name")
    augment: Literal["none", "scale"] = Field(description="augmentation in training")
    comparable: bool = Field(description="whether a run of ours on this data measures the same thing")
    description: str = Field(description="the protocol in words")
    realisations: int | None = Field(
        default=None, ge=1, description="realisations averaged over, where known"
    )
    sizes: tuple[int | None, int | None, int | None] | None = Field(
        default=None,
        description="images in train, val and test as published, null where not said; none: the data set's own",
    )
    training: dict[str, int | float | str | list[int] | Range] = Field(
        default_factory=dict, description="training settings as published"
    )

    @model_validator(mode="after")
    def _known_settings(self) -> Protocol:
        unknown = set(self.training) - set(TrainingSettings.model_fields)
        if unknown:
            raise ValueError(f"unknown training settings {sorted(unknown)}")
        return self


class Figure(_Strict):
    """One published figure: a value, or one per downscaling factor."""

    system: str = Field(description="the system, by its authors' name")
    models: tuple[str, ...] = Field(description="registry names of the same network; empty if we have none")
    metric: Metric = Field(description="what the value is; errors and accuracies are fractions")
    value: float | None = Field(default=None, ge=0, description="the figure")
    std: float | None = Field(default=None, ge=0, description="its standard deviation, where printed")
    by_downscaling: dict[float, float] | None = Field(
        default=None, description="downscaling factor 1/s ↦ value, for figures over scale"
    )
    source: str = Field(description="key of the source")
    protocol: str = Field(description="key of the protocol")
    place: str | None = Field(default=None, description="table, section or plot in the source, where known")
    uncertainty: float | None = Field(default=None, description="± of a value that was read off a plot")
    options: dict[str, int | float | str | bool | list[int]] = Field(
        default_factory=dict,
        description="options of the published network, where they are not those of our registry",
    )

    @model_validator(mode="after")
    def _one_kind_of_value(self) -> Figure:
        if (self.value is None) == (self.by_downscaling is None):
            raise ValueError(f"{self.system}: give either value or by_downscaling")
        if self.metric in ("test_error", "accuracy"):
            values = [self.value] if self.by_downscaling is None else list(self.by_downscaling.values())
            if any(value is not None and value > 1 for value in values):
                raise ValueError(f"{self.system}: {self.metric} is a fraction")
        return self

    @property
    def by_factor(self) -> dict[float, float]:
        """Scale factor s ↦ value, for figures over scale."""
        return {1 / downscaling: value for downscaling, value in (self.by_downscaling or {}).items()}


class Published(_Strict):
    """All published figures with their sources and protocols."""

    sources: dict[str, Source]
    protocols: dict[str, Protocol]
    figures: tuple[Figure, ...]

    @model_validator(mode="after")
    def _keys_stand(self) -> Published:
        for figure in self.figures:
            if figure.source not in self.sources:
                raise ValueError(f"{figure.system}: no source '{figure.source}'")
            if figure.protocol not in self.protocols:
                raise ValueError(f"{figure.system}: no protocol '{figure.protocol}'")
        return self


@dataclass(frozen=True)
class Reported:
    """A published figure, with its source, and in what the measured row departs from its protocol."""

    figure: Figure
    source: Source
    protocol: Protocol
    departures: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the entry of a row's ``reported`` list."""
        figure = self.figure
        return {
            "system": figure.system,
            "metric": figure.metric,
            "mean": figure.value,
            "std": figure.std,
            "by_factor": [{"factor": s, "value": value} for s, value in figure.by_factor.items()] or None,
            "uncertainty": figure.uncertainty,
            "n": self.protocol.realisations,
            "source": self.source.text,
            "kind": self.source.kind,
            "place": figure.place,
            "protocol": self.protocol.description,
            "departures": list(self.departures),
        }


@functools.cache
def load_published() -> Published:
    """Read the published figures that secli carries."""
    text = (files("secli.tables") / "published.yaml").read_text(encoding="utf-8")
    return Published.model_validate(parse_yaml(text))


def reported(row: Row, published: Published) -> list[Reported]:
    """Return the figures that may stand beside a row: same network, same kind of data, same augmentation.

    What else differs (sizes of the data, epochs, learning rate, options) is said in ``departures``, not hidden.
    """
    if not row.trained or row.settings is None or row.data is None:
        return []
    found = []
    for figure in published.figures:
        protocol = published.protocols[figure.protocol]
        same = (
            row.model in figure.models and figure.metric in ("test_error", "accuracy") and protocol.comparable
        )
        alike = protocol.dataset in (row.data, base_dataset(row.data))
        if same and alike and row.settings.get("augment") == protocol.augment:
            departures = (
                *_data_departures(row, protocol),
                *_setting_departures(row.settings, protocol),
                *_option_departures(row, figure),
            )
            found.append(Reported(figure, published.sources[figure.source], protocol, departures))
    return found


def elsewhere(rows: Sequence[Row], published: Published) -> list[Reported]:
    """Return the figures of other protocols, other measures and networks we do not have: a table of their own."""
    models = {row.model for row in rows}
    found = []
    for figure in published.figures:
        protocol = published.protocols[figure.protocol]
        beside = figure.metric in ("test_error", "accuracy") and protocol.comparable and bool(figure.models)
        if not beside and (not figure.models or models & set(figure.models)):
            found.append(Reported(figure, published.sources[figure.source], protocol))
    return found


def _data_departures(row: Row, protocol: Protocol) -> list[str]:
    """Say in which the data are not those of the protocol, as far as their manifest is still there to ask."""
    dataset = protocol.dataset
    if row.data is None:
        return []
    standard = DATASETS[dataset].standard.as_dict() if dataset in DATASETS else {}
    found = {**standard, **_parameters(row)} if row.data == dataset else _parameters(row)
    published = {**standard, "sizes": protocol.sizes or standard.get("sizes")}
    said = [
        f"{key.replace('_', ' ')} {_words(published.get(key))} there, {_words(value)} here"
        for key, value in found.items()
        if not _as_published(value, published.get(key))
    ]
    if not said and not found and published["sizes"] is not None:
        tested = {
            run.training.results.test_images for run in row.members if run.training and run.training.results
        }
        if tested != {published["sizes"][2]}:
            said.append(
                f"{published['sizes'][2]} test images there, {', '.join(map(str, sorted(tested)))} here"
            )
    if row.data != dataset and (said or not found):
        said.insert(0, f"data {dataset} there, {row.data} here")
    return said


def _as_published(value: Any, published: Any) -> bool:
    """Say whether a parameter is the published one; what was not published (null) may be anything."""
    if isinstance(value, list | tuple) and isinstance(published, list | tuple):
        return len(value) == len(published) and all(
            b is None or a == b for a, b in zip(value, published, strict=True)
        )
    return bool(value == published)


def _parameters(row: Row) -> dict[str, Any]:
    """Return the parameters of a row's data, as far as they are known."""
    infos = (run.trained_on for run in row.members)
    return next((known for info in infos if info is not None and (known := parameters_of(info))), {})


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "/".join("?" if part is None else str(part) for part in value)
    return str(value)


def _setting_departures(settings: Mapping[str, Any], protocol: Protocol) -> list[str]:
    departures = []
    for key, value in protocol.training.items():
        found = settings.get(key)
        if isinstance(value, Range):
            if not (isinstance(found, int | float) and value.low <= found <= value.high):
                departures.append(f"{key} {value.low:g} to {value.high:g} there, {found} here")
        elif (list(found) if isinstance(found, tuple) else found) != value:
            departures.append(f"{key} {value} there, {found} here")
    return departures


def _option_departures(row: Row, figure: Figure) -> list[str]:
    """Compare with the published options: the figure's own, else the catalogue's (no table builds a network)."""
    if row.model not in MODELS:
        return []
    spec = MODELS[row.model]
    usual = {**spec.options, **row.changed, **figure.options}
    departures = [
        f"option {key} {_words(value)} there, {_words(row.options[key])} here"
        for key, value in usual.items()
        if key in row.options and _words(row.options[key]) != _words(value)
    ]
    if not departures and not figure.options and spec.parameters and spec.parameters != row.parameters:
        departures.append(f"{spec.parameters} parameters there, {row.parameters} here")
    return departures
