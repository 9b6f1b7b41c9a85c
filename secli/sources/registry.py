"""The sources of raw pictures: one line each; a new one is one file with a reader, and its line here."""

from __future__ import annotations

import importlib

from secli.registry import Registry
from secli.sources.contract import RawImages, Reader, Request, SourceSpec

SOURCES: Registry[SourceSpec] = Registry(
    "source",
    [
        SourceSpec("digits", "1 797 grey 8×8 digits of scikit-learn", "secli.sources.digits:read"),
        SourceSpec("mnist", "70 000 grey 28×28 handwritten digits", "secli.sources.mnist:read_mnist"),
        SourceSpec("fashion-mnist", "70 000 grey 28×28 clothes", "secli.sources.mnist:read_fashion_mnist"),
        SourceSpec("cifar10", "60 000 colour 32×32 photographs", "secli.sources.cifar10:read"),
        SourceSpec("stl10", "13 000 labelled colour 96×96 photographs", "secli.sources.stl10:read"),
        SourceSpec(
            "folder", "class folders of pictures of one's own", "secli.sources.folder:read", published=False
        ),
    ],
)


def read_source(name: str, request: Request) -> RawImages:
    """Find, verify and read a source.

    Raises
    ------
    UnknownNameError
        When no source has this name.
    InputError
        When a file is missing (and may not be downloaded), wrong, damaged or truncated; the message names it.
    SecliError
        When a download fails.
    """
    module, _, function = SOURCES[name].reader.partition(":")
    reader: Reader = getattr(importlib.import_module(module), function)
    return reader(request)
