"""A network as its builder returns it, and the origin of its weights."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from secli.external.foreign_code import ForeignCode

Shape = tuple[int, int, int]


class WeightsOrigin(NamedTuple):
    """The origin of weights.

    Attributes
    ----------
    name
        A file as given, or the name of published weights.
    digest
        sha256 of the file; None where there is none.
    state
        Which of the state dicts in the file; None when it holds only one.
    prefix
        Stripped from the front of every key.
    left_out
        Entries of the file that are no weights of the network (counters).
    file
        Whether it is a file that the user named.
    """

    name: str
    digest: str | None = None
    state: str | None = None
    prefix: str = ""
    left_out: tuple[str, ...] = ()
    file: bool = False


class Loaded(NamedTuple):
    """A network as its builder returns it, in training mode, with the context of every run of it (``code``).

    Attributes
    ----------
    input_shape
        Channels, height and width that its weights were made for, or that it requires; None: unknown.
    mean, std
        The normalisation that its weights were made for; None: unknown.
    origin
        Of its weights; None: freshly drawn.
    """

    network: nn.Module
    code: ForeignCode
    input_shape: Shape | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    origin: WeightsOrigin | None = None
