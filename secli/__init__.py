"""secli measures how well vision networks keep their promise under change of scale.

Public names are loaded when they are first used, so that ``import secli`` is cheap:

``measure``
    The equivariance error of a network at its taps, as a table.
``ScaleEquivariance``
    The same inside an evaluation loop, as a torchmetrics metric.
``load_model``
    A network from a run directory or a registry name.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # this is the first that a command imports, and typing takes its time
if TYPE_CHECKING:
    from typing import Any

    from secli.equivariance.measure import measure as measure
    from secli.equivariance.scale_metric import ScaleEquivariance as ScaleEquivariance
    from secli.training.load import load_model as load_model

__version__ = "0.1.0"

_PUBLIC = {
    "ScaleEquivariance": "secli.equivariance.scale_metric",
    "measure": "secli.equivariance.measure",
    "load_model": "secli.training.load",
}
__all__ = ["ScaleEquivariance", "load_model", "measure"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'secli' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
