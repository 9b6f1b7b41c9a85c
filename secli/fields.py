"""L_s on features (being written): constructors only."""
from __future__ import annotations
from dataclasses import dataclass

class Field: ...

@dataclass(frozen=True)
class Plane(Field):
    stride: float = 1.0
    origin: float | None = None

@dataclass(frozen=True)
class ScaleSpace(Field):
    scales: tuple[float, ...]
    base_blur: float = 0.0
    stride: float = 1.0
    origin: float | None = None
    truncated: int = 0

@dataclass(frozen=True)
class Invariant(Field):
    pass
