"""What a reader calls a set of images: its protocol, and what of it is not the protocol's, in place of a hash."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secli.datasets.manifest import read_manifest
from secli.datasets.protocols import DATASETS
from secli.errors import InputError
from secli.records.schema import DataInfo
from secli.tables.derived import base_dataset


def parameters_of(info: DataInfo) -> dict[str, Any]:
    """Return the parameters of a dataset: as recorded, else from its manifest if that still stands; else none."""
    if info.parameters:
        return info.parameters
    try:
        manifest = read_manifest(Path(info.path))
    except (InputError, OSError):
        return {}
    return manifest.parameters if manifest.digest == info.digest else {}


def called(infos: Iterable[DataInfo]) -> dict[str, str]:
    """Return what each dataset is called, by its name; the hash in a name is left out where no two are then equal.

    Parameters
    ----------
    infos : iterable of DataInfo
        All that may stand beside each other, each as often as it comes.
    """
    first = {info.name: info for info in reversed(list(infos))}
    plain = {name: _words(base_dataset(name), info) for name, info in first.items()}
    told = list(plain.values())
    return {
        name: words if told.count(words) == 1 else _words(name, first[name]) for name, words in plain.items()
    }


def with_realisations(infos: Iterable[DataInfo]) -> str:
    """Return what datasets are called, with their realisations.

    Examples
    --------
    >>> one = DataInfo(name="digits", realisation=0, digest="", path="")
    >>> with_realisations([one, one.model_copy(update={"realisation": 1})])
    'digits r0, r1'
    """
    infos = list(infos)
    names = called(infos)
    found: dict[str, set[int]] = {}
    for info in infos:
        found.setdefault(info.name, set()).add(info.realisation)
    return "; ".join(f"{names[name]} {_numbers(numbers)}" for name, numbers in found.items())


def _numbers(realisations: set[int]) -> str:
    """Return r0, r2 or, where three or more follow each other, r0 to r5."""
    first, *_, last = [*sorted(realisations)] * 2
    if len(realisations) > 2 and last - first == len(realisations) - 1:
        return f"r{first} to r{last}"
    return ", ".join(f"r{number}" for number in sorted(realisations))


def _words(name: str, info: DataInfo) -> str:
    """Return a name with what is not the protocol's; the whole name alone where that is not known."""
    base = base_dataset(info.name)
    if base == info.name or base not in DATASETS:
        return info.name
    known, standard = parameters_of(info), DATASETS[base].standard.as_dict()
    if not known:
        return info.name
    said = []
    if known.get("sizes") and list(known["sizes"]) != standard["sizes"]:
        said += [
            f"{count} {part}" for count, part in zip(known["sizes"], ("train", "val", "test"), strict=True)
        ]
    if known.get("factors") and list(known["factors"]) != standard["factors"]:
        said.append("factors {:g} to {:g}".format(*known["factors"]))
    if known.get("image_size") not in (None, standard["image_size"]):
        said.append(f"{known['image_size']} px")
    return f"{name} ({', '.join(said)})" if said else name
