"""A network as its maker gives it, and where its weights come from."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from secli.external.foreign_code import ForeignCode

Shape = tuple[int, int, int]


class WeightsOrigin(NamedTuple):
    """Where weights come from.

    Attributes
    ----------
    name
        A file as given, or the name of published weights.
    digest
        sha256 of the file; None where there is none.
    state
        Which of the state dicts in the file; None when it holds one alone.
    prefix
        What was stripped from the front of every key; empty: nothing.
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
    """A network as its maker gives it.

    Attributes
    ----------
    network
        The network, in training mode.
    code
        What stands around every run of it.
    input_shape
        Channels, height and width that its weights were made for, or that it insists on; None: it does not say.
    mean, std
        The normalisation that its weights were made for; None: it does not say.
    origin
        Where its weights come from; None: freshly drawn.
    """

    network: nn.Module
    code: ForeignCode
    input_shape: Shape | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    origin: WeightsOrigin | None = None
