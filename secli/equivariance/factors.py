"""The scale factors of a curve."""

from __future__ import annotations

import math
from collections.abc import Iterable

from secli.action.fields import LATTICE_TOLERANCE, Field
from secli.config import MeasureSettings

LOWEST, COUNT, HIGHEST = 1 / 3, 9, 1.5

# the comparison of deformable and scale-equivariant networks over six downscaling factors (see published.yaml)
PROTOCOLS = {"downscale-2020": (1.0, 1 / 1.1, 1 / 1.5, 1 / 2.0, 1 / 2.5, 1 / 3.0)}


def factors_of(settings: MeasureSettings, fields: Iterable[Field]) -> tuple[float, ...]:
    """Return the factors of the settings for taps of these fields: given, of a protocol, or the default ones."""
    return settings.factors or PROTOCOLS.get(settings.protocol) or default_factors(fields)


def default_factors(fields: Iterable[Field]) -> tuple[float, ...]:
    """Return nine geometric factors from 1/3 to 1, their inverses up to 1.5, and the lattice of the fields, decreasing.

    A factor of the lattice replaces one of the nine within 2 % of it; 1 is always among them.
    """
    ratio = LOWEST ** (1 / (COUNT - 1))
    regular = [ratio**i for i in range(COUNT)]
    regular += [1 / factor for factor in regular[1:] if 1 / factor <= HIGHEST]
    chosen: list[float] = [1.0]
    lattice = sorted(
        {factor for field in fields for factor in field.lattice if factor >= LOWEST}, reverse=True
    )
    for factor in [*lattice, *regular]:
        if all(abs(math.log(factor / other)) > LATTICE_TOLERANCE for other in chosen):
            chosen.append(factor)
    return tuple(sorted(chosen, reverse=True))
