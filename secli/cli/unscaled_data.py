"""The pictures that a run was trained on, at their own scale: the same source, splits and sizes, not rescaled."""

from __future__ import annotations

import shlex
from pathlib import Path

from secli.datasets.manifest import Manifest, read_manifest
from secli.datasets.protocols import DATASETS, Parameters, unscaled_twin
from secli.errors import InputError
from secli.records.schema import DataInfo
from secli.sources.registry import SOURCES
from secli.tables.dataset_names import parameters_of
from secli.tables.model_names import base_dataset


def twin_of(data: DataInfo) -> Path:
    """Return where the unscaled twin of a dataset is, as a sweep would have made it.

    Its folder has a hash where sizes or side are not the protocol's, and for pictures of one's own.

    Raises
    ------
    InputError
        When the dataset has no twin, or it was not made; the message says how to make it.
    """
    trained, protocol = Path(data.path), base_dataset(data.name)
    own_scale = unscaled_twin(protocol) if protocol in DATASETS else None
    if own_scale is None:
        raise InputError(
            f"--data: {trained} has no unscaled twin that is known; say which pictures to measure on"
        )
    asked = _asked(data, protocol)
    if asked is None:
        raise InputError(
            f"--data: {trained} is gone, and its record does not say its sizes; say which pictures to measure on"
        )
    spec = DATASETS[own_scale]
    # of the user's own pictures the digest is part of the name
    digest = None if _published(own_scale) else "".join(_manifest(data).source.digests.values())
    folder = spec.folder(spec.parameters(None, asked.sizes, asked.image_size), digest)
    twin = trained.parent.parent / folder / trained.name
    if not twin.is_dir():
        command = _command(own_scale, asked, data, trained.parent.parent)
        raise InputError(
            f"--data: {twin}, the pictures of {trained} at their own scale, does not exist; make it with '{command}' "
            "or give another"
        )
    return twin


def _asked(data: DataInfo, protocol: str) -> Parameters | None:
    """Return the parameters of a dataset that are not its protocol's; None where they are not known any more."""
    standard = DATASETS[protocol].standard
    if data.name == protocol:
        return Parameters(None, None, None)
    # a record has the sizes that a folder of pictures came to, the manifest those that were asked for
    known = parameters_of(data) if _published(protocol) else _manifest(data).parameters
    if not known:
        return None
    sizes = None if known.get("sizes") is None else tuple(known["sizes"])
    side = known.get("image_size")
    return Parameters(
        None,
        None if sizes == standard.sizes else sizes,
        None if side == standard.image_size else side,
    )


def _published(name: str) -> bool:
    return SOURCES[DATASETS[name].source].published


def _manifest(data: DataInfo) -> Manifest:
    return read_manifest(Path(data.path))


def _command(name: str, asked: Parameters, data: DataInfo, out: Path) -> str:
    """Return the command that makes a dataset in a folder."""
    words = ["secli", "make-data", name]
    words += [] if _published(name) else ["--source", "DIR"]
    words += [] if asked.sizes is None else ["--sizes", *map(str, asked.sizes)]
    words += [] if asked.image_size is None else ["--image-size", str(asked.image_size)]
    words += [] if data.realisation == 0 else ["--realisations", str(data.realisation)]
    words += [] if out == Path("data") else ["--out", str(out)]
    return shlex.join(words)
