"""Published figures, each with its source, and which of them may stand at a group of runs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.datasets.protocols import DATASETS
from secli.tables.dataset_names import parameters_of
from secli.tables.groups import Group
from secli.tables.model_names import base_dataset
from secli.tables.quantities import Quantity
from secli.tables.readings import same_factor
from secli.tables.statistic import Statistic
from secli.yaml_files import parse_yaml

Metric = Literal["test_error", "accuracy", "equivariance_error", "parameters"]
Kind = Literal["paper", "reproduction", "citation", "code"]
KINDS: dict[Kind, str] = {
    "paper": "paper",
    "reproduction": "reproduction",
    "citation": "as cited",
    "code": "code",
}
"""What a reader calls each kind of source, in the order of the lines below a row."""


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
    """A published figure, with its source, and in what the measured runs depart from its protocol."""

    figure: Figure
    source: Source
    protocol: Protocol
    departures: tuple[str, ...] = ()

    @property
    def read_off(self) -> str:
        """Where the figure was read off, with its uncertainty; nothing for a printed one."""
        figure = self.figure
        return f", read off {figure.place}, ±{figure.uncertainty:g}" if figure.uncertainty else ""

    def value(self, quantity: Quantity) -> float | None:
        """Return the figure as a quantity, where it is one; error and accuracy are each other's complement."""
        figure, key = self.figure, quantity.key
        if figure.value is not None and key in ("test_error", "test_accuracy"):
            return figure.value if figure.metric == key.replace("test_acc", "acc") else 1 - figure.value
        if figure.metric == "accuracy" and key.startswith("accuracy_") and quantity.factor is not None:
            return next((v for s, v in figure.by_factor.items() if same_factor(s, quantity.factor)), None)
        return None

    def statistic(self, quantity: Quantity) -> Statistic:
        """Return the figure as a quantity; n is 0 where nobody printed it."""
        return Statistic(self.value(quantity), self.figure.std, self.protocol.realisations or 0)

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


def reported(group: Group, published: Published) -> list[Reported]:
    """Return the figures that may stand at a group of runs: same network, same kind of data, same augmentation.

    What else differs (sizes of the data, epochs, learning rate, options) is named in ``departures``, not hidden.
    """
    settings, data = group.settings, group.data
    if not group.trained or settings is None or data is None:
        return []
    found = []
    for figure in published.figures:
        protocol = published.protocols[figure.protocol]
        same_network = group.model.name in figure.models and _comparable(figure, protocol)
        same_data = protocol.dataset in (data, base_dataset(data))
        if same_network and same_data and settings.get("augment") == protocol.augment:
            departures = (
                *_data_departures(group, data, protocol),
                *_setting_departures(settings, protocol),
                *_option_departures(group, figure),
            )
            found.append(Reported(figure, published.sources[figure.source], protocol, departures))
    return found


def elsewhere(groups: Sequence[Group], published: Published) -> list[Reported]:
    """Return the figures of other protocols, other measures and networks we do not have: a table of their own."""
    models = {group.model.name for group in groups}
    found = []
    for figure in published.figures:
        protocol = published.protocols[figure.protocol]
        ours = bool(figure.models) and _comparable(figure, protocol)
        if not ours and (not figure.models or models & set(figure.models)):
            found.append(Reported(figure, published.sources[figure.source], protocol))
    return found


def source_notes(entries: Iterable[tuple[Kind, str, str]]) -> list[str]:
    """Name each source once, given (kind, source, protocol) of every figure shown, with its protocols."""
    protocols: dict[tuple[Kind, str], dict[str, None]] = {}
    for kind, source, protocol in entries:
        protocols.setdefault((kind, source), {})[protocol] = None
    return [f"{KINDS[kind]}: {source} ({'; '.join(some)})." for (kind, source), some in protocols.items()]


def _comparable(figure: Figure, protocol: Protocol) -> bool:
    return figure.metric in ("test_error", "accuracy") and protocol.comparable


def _data_departures(group: Group, data: str, protocol: Protocol) -> list[str]:
    """Name in which the data are not those of the protocol, as far as their manifest is still there to ask."""
    dataset = protocol.dataset
    standard = DATASETS[dataset].standard.as_dict() if dataset in DATASETS else {}
    infos = (run.trained_on for run in group.members)
    known = next((found for info in infos if info is not None and (found := parameters_of(info))), {})
    here = {**standard, **known} if data == dataset else known
    there = {**standard, "sizes": protocol.sizes or standard.get("sizes")}
    departures = [
        f"{key.replace('_', ' ')} {_words(there.get(key))} there, {_words(value)} here"
        for key, value in here.items()
        if not _as_published(value, there.get(key))
    ]
    if not here and there["sizes"] is not None:
        results = [run.training.results for run in group.members if run.training]
        tested = sorted({one.test_images for one in results if one})
        if tested != [there["sizes"][2]]:
            departures.append(f"{there['sizes'][2]} test images there, {', '.join(map(str, tested))} here")
    if data != dataset and (departures or not here):
        departures.insert(0, f"data {dataset} there, {data} here")
    return departures


def _as_published(value: Any, published: Any) -> bool:
    """Tell whether a value is the published one (3.0 is 3); what was not published (null) may be anything."""
    if isinstance(value, list | tuple) and isinstance(published, list | tuple):
        pairs = zip(value, published, strict=False)
        return len(value) == len(published) and all(there is None or here == there for here, there in pairs)
    return bool(value == published)


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
        elif not _as_published(found, value):
            departures.append(f"{key} {value} there, {found} here")
    return departures


def _option_departures(group: Group, figure: Figure) -> list[str]:
    """Compare with the published options: the figure's own, else the catalogue's (no table builds a network)."""
    model = group.model
    if model.name not in MODELS:
        return []
    spec = MODELS[model.name]
    usual = {**spec.options, **model.changed, **figure.options}
    departures = [
        f"option {key} {_words(value)} there, {_words(model.options[key])} here"
        for key, value in usual.items()
        if key in model.options and not _as_published(model.options[key], value)
    ]
    if not departures and not figure.options and spec.parameters and spec.parameters != model.parameters:
        departures.append(f"{spec.parameters} parameters there, {model.parameters} here")
    return departures
