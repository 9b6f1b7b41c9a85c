"""Several networks in one call: which of them a pattern of ``--taps``, ``--field`` or a size of ``--input`` is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from secli.errors import InputError, UnmatchedPatternError

if TYPE_CHECKING:
    from secli.training.load import Foreign, Subject

Shape = tuple[int, int, int]


def addressee(text: str, targets: Sequence[str]) -> tuple[str | None, str]:
    """Return the network that a text begins with, as ``NET:REST``, and the rest; None where it is for all.

    A network is called as on the command line, or by what follows its last colon.

    Raises
    ------
    InputError
        When several networks are called so.

    Examples
    --------
    >>> addressee("torchvision:resnet18:layer1", ["torchvision:resnet18", "cnn"])
    ('torchvision:resnet18', 'layer1')
    >>> addressee("resnet18:layer1", ["torchvision:resnet18", "cnn"])
    ('torchvision:resnet18', 'layer1')
    >>> addressee("layer1", ["torchvision:resnet18", "cnn"])
    (None, 'layer1')
    """
    for target in sorted(set(targets), key=len, reverse=True):
        if text.startswith(f"{target}:"):
            return target, text[len(target) + 1 :]
    name, colon, rest = text.partition(":")
    # "scale:1,2" and "tokens:14x14" are fields, whatever a network is called
    if not colon or name in ("scale", "tokens"):
        return None, text
    called = sorted({target for target in targets if target.rpartition(":")[2] == name})
    if len(called) > 1:
        raise InputError(f"{text}: {' and '.join(called)} are both called {name}; write {called[0]}:{rest}")
    return (called[0], rest) if called else (None, text)


@dataclass
class Patterns:
    """Patterns of taps and fields for several networks; each applies to the networks that have such taps.

    Attributes
    ----------
    targets
        The networks as on the command line.
    missed
        Which networks have no tap that a text of an option matches.
    """

    targets: Sequence[str]
    missed: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def own(self, option: str, texts: Iterable[str], target: str) -> dict[str, str]:
        """Return the patterns that a network takes, by the text that they come from."""
        found = {}
        for text in texts:
            only, pattern = addressee(text, self.targets)
            if only in (None, target) and target not in self.missed.get((option, text), ()):
                found[text] = pattern
        return found

    def miss(self, text: str, target: str, error: UnmatchedPatternError) -> None:
        """Note that a network has no tap for a text, or raise the error where no other network could have one."""
        if len(set(self.targets)) == 1 or addressee(text, self.targets)[0] is not None:
            raise error
        self.missed.setdefault((error.option, text), set()).add(target)

    def check(self) -> None:
        """Raise ``InputError`` on a pattern that no network has a tap for."""
        for (option, text), lacking in self.missed.items():
            if lacking >= set(self.targets):
                raise InputError(
                    f"{option} {text}: no tap of any of the {len(lacking)} networks matches; --list-taps shows all, "
                    "and NET:PATTERN is for one network"
                )


def load_foreign(
    patterns: Patterns, target: str, foreign: Foreign, load: Callable[[Foreign], Subject]
) -> Subject:
    """Load a network outside the registry with the taps and fields that it has among those asked for.

    Which they are shows only when it has been run, so a pattern that it does not have costs a second loading.

    Raises
    ------
    InputError
        When the network cannot be loaded, or lacks a tap that is asked of it alone.
    """
    while True:
        taps = None if foreign.taps is None else patterns.own("--taps", foreign.taps, target)
        fields = patterns.own("--field", foreign.fields, target)
        own = replace(foreign, taps=list(taps.values()) if taps else None, fields=tuple(fields.values()))
        try:
            return load(own)
        except UnmatchedPatternError as error:
            given = (taps or {}) if error.option == "--taps" else fields
            lacking = [text for text, pattern in given.items() if _pattern(pattern, error) in error.patterns]
            if not lacking:
                raise
            for text in lacking:
                patterns.miss(text, target, error)


def _pattern(text: str, error: UnmatchedPatternError) -> str:
    """Return the pattern of ``PATTERN`` or of ``PATTERN=FIELD``."""
    if error.option == "--taps":
        return text
    from secli.external.field_text import parse_fields

    return parse_fields([text])[0][0]


def registered_taps(
    patterns: Patterns, target: str, texts: Sequence[str] | None, taps: Iterable[str]
) -> tuple[str, ...] | None:
    """Return the patterns that a network of the registry has taps for; None measures all of them.

    Raises
    ------
    InputError
        When it lacks a tap that is asked of it alone.
    """
    from fnmatch import fnmatchcase

    from secli.errors import suggestion

    names = list(taps)
    kept = []
    for text, pattern in patterns.own("--taps", texts or (), target).items():
        if any(fnmatchcase(name, pattern) for name in names):
            kept.append(pattern)
        else:
            message = f"--taps {pattern}: unknown tap '{pattern}'{suggestion(pattern, names)}"
            patterns.miss(text, target, UnmatchedPatternError(message, "--taps", (pattern,)))
    return tuple(kept) or None


def refuse_fields(patterns: Patterns, target: str, texts: Sequence[str]) -> None:
    """Note that fields cannot be declared for a network of the registry, whose taps have theirs.

    Raises
    ------
    InputError
        When a field is declared for it alone.
    """
    for text in patterns.own("--field", texts, target):
        message = f"--field {text}: the taps of {target} have their fields; leave --field out"
        patterns.miss(text, target, UnmatchedPatternError(message, "--field", (text,)))


def shapes_of(text: str | None, targets: Sequence[str]) -> dict[str | None, str]:
    """Read ``CxHxW`` for all networks, or ``NET:CxHxW`` for one, separated by commas.

    Raises
    ------
    InputError
        When one network gets two sizes.
    """
    found: dict[str | None, str] = {}
    for part in [] if text is None else text.split(","):
        only, shape = addressee(part.strip(), targets)
        if only in found:
            raise InputError(f"--input {text}: two sizes for {only or 'all networks'}; write NET:CxHxW")
        found[only] = shape
    return found
