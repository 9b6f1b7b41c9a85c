"""The faster forms of the layers, each of which can be switched off for tests and timing.

All of them compute the same function. ``without_forms("fourier")`` switches one off while its body runs;
``secli bench NETWORK --forms`` reports the gain of each.
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
"""Every form, in one sentence each."""

assert set(FORMS) == set(get_args(Form))

_switched_off: frozenset[str] = frozenset()  # of all threads: older compilers cannot trace a ContextVar


def in_use(form: Form) -> bool:
    """Whether a form is used where it pays."""
    return form not in _switched_off


def on_cpu(x: Tensor) -> bool:
    """Whether a tensor takes the forms for CPUs; one on the meta device does, so that they can be counted."""
    return x.device.type in ("cpu", "meta")


@contextmanager
def without_forms(*forms: str) -> Iterator[None]:
    """Switch some forms off while the body runs.

    Raises
    ------
    ValueError
        When there is no such form.

    Examples
    --------
    >>> with without_forms("fourier"):
    ...     print(in_use("fourier"), in_use("running-max"))
    False True
    """
    for form in forms:
        if form not in FORMS:
            raise ValueError(f"unknown form '{form}'; known: {', '.join(FORMS)}")
    global _switched_off
    before = _switched_off
    _switched_off = before | set(forms)
    try:
        yield
    finally:
        _switched_off = before
