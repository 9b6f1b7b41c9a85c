"""Taps by module name: inner outputs of a foreign network, read by forward hooks in one pass."""

from __future__ import annotations

import fnmatch
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from secli.errors import UnmatchedPatternError, suggestion
from secli.records.notes import Note

LOGITS = "logits"
OUTPUT = "output"
LOGIT_KEYS = ("logits", "out")


class Visit(NamedTuple):
    """One call of a module during a forward pass.

    Attributes
    ----------
    name
        The module's name; ``name@k`` for the k-th call (from 1) of a module that is called again later; or the key of
        a tensor in the network's output (see :func:`named_outputs`).
    kind
        Its class; ``output`` for the network's output.
    shape
        Of the first tensor that it returned, with the batch axis; None when it returned none.
    bare
        Whether it is a tensor of the network's output that no module returned.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    bare: bool = False


def trace(network: nn.Module, run: Callable[[], Any]) -> tuple[list[Visit], Any]:
    """Run a network once and return every call of its modules, in the order of their ends, and the output."""
    calls: list[tuple[str, int, str, tuple[int, ...] | None]] = []
    counts: Counter[str] = Counter()
    by_modules: list[weakref.ref[Tensor]] = []

    def on_call(name: str, module: nn.Module, output: Any) -> None:
        counts[name] += 1
        tensor = first_tensor(output)
        shape = None if tensor is None else tuple(tensor.shape)
        if tensor is not None:
            by_modules.append(weakref.ref(tensor))
        calls.append((name, counts[name], type(module).__name__, shape))

    with listening(_named(network), on_call):
        output = run()
    visits = [
        Visit(name if turn == counts[name] else f"{name}@{turn}", kind, shape)
        for name, turn, kind, shape in calls
    ]
    taken = {visit.name for visit in visits} | _named(network).keys()
    returned = [
        Visit(name, OUTPUT, tuple(tensor.shape), all(one() is not tensor for one in by_modules))
        for name, tensor in named_outputs(output, taken).items()
    ]
    return visits + returned, output


def capture(
    network: nn.Module, names: Iterable[str], run: Callable[[], Any]
) -> tuple[dict[str, Tensor], Any]:
    """Run a network once and return a copy of the named calls' outputs, and the network's output.

    Copies, because an operation in place that follows (``ReLU(inplace=True)``, ``x += y``) would change them.
    """
    requested = set(names)
    modules = {name.partition("@")[0] for name in requested}
    counts: Counter[str] = Counter()
    found: dict[str, Tensor] = {}

    def on_call(name: str, module: nn.Module, output: Any) -> None:
        counts[name] += 1
        for key in (name, f"{name}@{counts[name]}"):
            if key in requested and (tensor := first_tensor(output)) is not None:
                found[key] = tensor.clone()

    named = _named(network)
    with listening({name: module for name, module in named.items() if name in modules}, on_call):
        output = run()
    returned = named_outputs(output, named.keys()) if requested - found.keys() else {}
    found |= {name: tensor for name, tensor in returned.items() if name in requested}
    return found, output


def named_outputs(output: Any, taken: Collection[str] = ()) -> dict[str, Tensor]:
    """Return the tensors in a network's output, by their keys: of mappings, data classes and tuples in them.

    A key that is a module's name (``taken``), or ``logits``, is written ``output.KEY``, and so are the numbers of a
    tuple. A tensor alone has no key.

    Examples
    --------
    >>> import torch
    >>> list(named_outputs({"maps": [torch.ones(1), torch.ones(1)], "logits": torch.ones(1)}))
    ['maps.0', 'maps.1', 'output.logits']
    """
    found: dict[str, Tensor] = {}

    def collect(part: Any, name: str) -> None:
        if isinstance(part, Tensor):
            clash = name in taken or name in ("", LOGITS) or name[0].isdigit()
            found[f"{OUTPUT}.{name}" if clash else name] = part
        for key, value in _parts(part):
            collect(value, f"{name}.{key}" if name else str(key))

    if not isinstance(output, Tensor):
        collect(output, "")
    return found


def _parts(output: Any) -> list[tuple[Any, Any]]:
    """Return the parts of a mapping, a tuple, a list or a data class, by key; of anything else none."""
    if isinstance(output, Mapping):
        return list(output.items())
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return list(zip(output._fields, output, strict=True))
    if isinstance(output, (tuple, list)):
        return list(enumerate(output))
    return list(vars(output).items()) if hasattr(output, "__dataclass_fields__") else []


@contextmanager
def listening(
    modules: Mapping[str, nn.Module], on_call: Callable[[str, nn.Module, Any], None]
) -> Iterator[None]:
    """Call ``on_call(name, module, output)`` after every call of the modules inside; remove the hooks after."""
    handles = []

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            on_call(name, module, output)

        return hook

    try:
        for name, module in modules.items():
            handles.append(module.register_forward_hook(hook_of(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _named(network: nn.Module) -> dict[str, nn.Module]:
    """Return all modules inside a network by name, shared ones under each of their names."""
    return {name: module for name, module in network.named_modules(remove_duplicate=False) if name}


def first_tensor(output: Any) -> Tensor | None:
    """Return the output, or the first tensor in a tuple, a mapping or a data class of outputs; None without one."""
    if isinstance(output, Tensor):
        return output
    found = (first_tensor(part) for _, part in _parts(output))
    return next((tensor for tensor in found if tensor is not None), None)


def find_logits(output: Any, images: int) -> tuple[Tensor | None, Note | None]:
    """Return the class scores (N, classes) in a network's output for so many images, or None and the reason.

    They are the tensor itself, ``logits`` or ``out`` in a mapping or object, or the first tensor. Trailing axes of
    length 1 are dropped.
    """
    found = first_tensor(output)
    for key in LOGIT_KEYS:
        part = output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)
        if not isinstance(output, Tensor) and isinstance(part, Tensor):
            found = part
            break
    if found is None:
        return None, Note.of("no-tensor", type=type(output).__name__)
    tensor = found
    while tensor.ndim > 2 and tensor.shape[-1] == 1:
        tensor = tensor.squeeze(-1)
    if tensor.ndim != 2 or len(tensor) != images or not tensor.is_floating_point():
        if found.ndim == 0:
            return None, Note.of("one-number", images=images)
        return None, Note.of("no-class-scores", shape=tuple(found.shape), images=images)
    return tensor, None


def matches_pattern(name: str, pattern: str) -> bool:
    """Return whether a module's name matches a shell glob; ``*`` stays within one part of the name, ``**`` does not.

    Examples
    --------
    >>> matches_pattern("blocks.3", "blocks.*"), matches_pattern("blocks.3.attn", "blocks.*")
    (True, False)
    >>> matches_pattern("blocks.3.attn", "**.attn")
    True
    """

    def within(parts: Sequence[str], globs: Sequence[str]) -> bool:
        if not globs:
            return not parts
        if globs[0] == "**":
            return any(within(parts[k:], globs[1:]) for k in range(len(parts) + 1))
        return bool(parts) and fnmatch.fnmatchcase(parts[0], globs[0]) and within(parts[1:], globs[1:])

    return within(name.split("."), pattern.split("."))


def select(
    names: Sequence[str], patterns: Sequence[str], option: str, known: Iterable[str] = ()
) -> list[str]:
    """Return the names that match any of the patterns (names, or shell globs), in their own order.

    ``known`` are names that exist but cannot be chosen, because the forward pass never calls them.

    Raises
    ------
    UnmatchedPatternError
        When a pattern matches nothing; the message names the option and suggests the closest name.
    """
    silent = set(known) - set(names)
    unmatched = [pattern for pattern in patterns if not any(matches_pattern(name, pattern) for name in names)]
    for pattern in unmatched:
        reason = "the forward pass never calls this module; --list-taps shows which"
        if not any(matches_pattern(name, pattern) for name in silent):
            near = suggestion(pattern, names) if len(names) <= 12 else suggestion_near(pattern, names)
            reason = f"no tap matches{near}"
        raise UnmatchedPatternError(f"{option} {pattern}: {reason}", option, unmatched)
    return [name for name in names if any(matches_pattern(name, pattern) for pattern in patterns)]


def suggestion_near(name: str, known: Sequence[str]) -> str:
    """Suggest the closest name; where there is none and too many are known, the option that lists them."""
    near = suggestion(name, known)
    return near if "did you mean" in near else "; --list-taps shows all"
