"""A registry of frozen specifications: an unknown name suggests the near miss, a duplicate is an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from secli.errors import UnknownNameError


class Named(Protocol):
    """Anything that carries the name it is registered under."""

    @property
    def name(self) -> str:
        """The registry key."""
        ...


T = TypeVar("T", bound=Named)


class Registry(Mapping[str, T]):
    """An ordered, append-only mapping from names to specifications.

    Parameters
    ----------
    kind : str
        What is registered, as error messages say it ("model", "dataset").
    specs : iterable
        The specifications to begin with, in the order in which they are listed.

    Raises
    ------
    ValueError
        When two specifications share a name.
    UnknownNameError
        When a name is looked up that is not registered.
    """

    def __init__(self, kind: str, specs: Iterable[T] = ()) -> None:
        self.kind = kind
        self._specs: dict[str, T] = {}
        for spec in specs:
            self.register(spec)

    def register(self, spec: T) -> T:
        """Add one specification under its own name and return it."""
        if spec.name in self._specs:
            raise ValueError(f"{self.kind} '{spec.name}' is registered twice")
        self._specs[spec.name] = spec
        return spec

    def __getitem__(self, name: str) -> T:
        try:
            return self._specs[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._specs) from None

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)
