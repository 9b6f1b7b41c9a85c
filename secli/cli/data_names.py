"""``--data digits``: a dataset's name in place of its directory, where it can be made on the spot without a network."""

from __future__ import annotations

from pathlib import Path

from secli.datasets.build import make_dataset
from secli.datasets.protocols import DATASETS
from secli.errors import InputError
from secli.sources.files import cache_directory

BUNDLED = "digits"
"""The source that comes with an installed library."""


def directory_of(data: Path | None) -> Path | None:
    """Return the directory of the pictures that ``--data`` names; None where nothing is named.

    What is no directory but the name of a dataset is realisation 0 of it: as 'secli make-data' made it here, or, for
    small digits alone, made now and kept in the cache.

    Raises
    ------
    InputError
        When the dataset would have to be made from pictures that are not at hand; the message says how.
    """
    name = str(data)
    if data is None or name not in DATASETS or data.exists():
        return data
    made = Path("data", DATASETS[name].name, "r0")
    if made.is_dir():
        return made
    if DATASETS[name].source != BUNDLED:
        raise InputError(
            f"--data {name}: no such directory; make it with 'secli make-data {name}', then --data {made}"
        )
    (result,) = make_dataset(name, cache_directory() / "data", [0], jobs=1)
    return result.path
