"""The faster forms of the layers, each of which can be left out: for tests against the literal form, and for timing.

All of them compute the same function. ``without("fourier")`` takes one away while its body runs;
``secli bench NETWORK --forms`` says what each brings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal[
    "cropped-kernels",
    "kept-kernels",
    "levels-first",
    "pool-first",
    "running-max",
    "fourier",
    "wide-gradient",
]

FORMS: dict[Form, str] = {
    "cropped-kernels": "kernels are cut to their support, and to the taps that meet a pixel",
    "kept-kernels": "in evaluation kernels are expanded once",
    "levels-first": "the levels of a scale space are stored one behind the other, not within each channel",
    "pool-first": "max-pooling stands before ReLU, which then sees fewer cells",
    "running-max": "maxima over scale and over windows are taken neighbour after neighbour",
    "fourier": "wide kernels are applied by their Fourier transforms",
    "wide-gradient": "the gradient of kernels from 15 cells on is a convolution, too",
}
"""Every form, in the order in which the layers came to it, in one sentence each."""

assert set(FORMS) == set(get_args(Form))

_left_out: frozenset[str] = frozenset()  # of all threads: older compilers cannot trace a ContextVar


def in_use(form: Form) -> bool:
    """Whether a form is taken where it pays."""
    return form not in _left_out


def on_cpu(x: Tensor) -> bool:
    """Whether a tensor takes the forms that are for CPUs; one on the meta device does, so that they can be counted."""
    return x.device.type in ("cpu", "meta")


@contextmanager
def without(*forms: str) -> Iterator[None]:
    """Leave some forms out while the body runs.

    Raises
    ------
    ValueError
        When there is no such form.

    Examples
    --------
    >>> with without("fourier"):
    ...     print(in_use("fourier"), in_use("running-max"))
    False True
    """
    for form in forms:
        if form not in FORMS:
            raise ValueError(f"unknown form '{form}'; known: {', '.join(FORMS)}")
    global _left_out
    before = _left_out
    _left_out = before | set(forms)
    try:
        yield
    finally:
        _left_out = before
