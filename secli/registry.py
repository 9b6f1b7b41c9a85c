"""A registry of frozen specifications: an unknown name suggests the near miss, a duplicate is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    others : callable, optional
        Returns names that others offer, each with a function that loads its specification. It is asked whenever a
        name is not among the registry's own; a specification is loaded when it is looked up, and not before. An own
        name is never replaced.

    Raises
    ------
    ValueError
        When two specifications share a name.
    UnknownNameError
        When a name is looked up that is not registered.
    """

    def __init__(
        self,
        kind: str,
        specs: Iterable[T] = (),
        others: Callable[[], Mapping[str, Callable[[], T]]] | None = None,
    ) -> None:
        self.kind = kind
        self._specs: dict[str, T] = {}
        self._others = others
        for spec in specs:
            self.register(spec)

    def register(self, spec: T) -> T:
        """Add one specification under its own name and return it."""
        if spec.name in self._specs:
            raise ValueError(f"{self.kind} '{spec.name}' is registered twice")
        self._specs[spec.name] = spec
        return spec

    def __getitem__(self, name: str) -> T:
        if name in self._specs:
            return self._specs[name]
        others = self._offered()
        if name not in others:
            raise UnknownNameError(self.kind, name, self)
        return others[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._specs or name in self._offered()

    def __iter__(self) -> Iterator[str]:
        return iter([*self._specs, *self._offered()])

    def __len__(self) -> int:
        return len(self._specs) + len(self._offered())

    def known(self, name: str) -> str:
        """Return a registered name, or raise ``ValueError``, as a check in a schema does, with the near miss."""
        try:
            return self[name].name
        except UnknownNameError as error:
            raise ValueError(str(error)) from None

    @property
    def own(self) -> tuple[str, ...]:
        """The names that the registry itself holds, without those that others offer."""
        return tuple(self._specs)

    def _offered(self) -> dict[str, Callable[[], T]]:
        offered = {} if self._others is None else self._others()
        return {name: load for name, load in offered.items() if name not in self._specs}
