"""How much memory a pass takes, and how much the machine has free: what a batch is chosen from."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
_LARGEST_KEPT = (32 << 20) - (64 << 10)
_UNLIMITED = 1 << 60  # what version 1 of control groups says for no limit is near 2^63


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operators make while it is entered, each storage once.

    Attributes
    ----------
    live
        Bytes that are in use now.
    peak
        The most that were in use at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.layout == torch.strided:
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.live += self._sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes that the tensors which some work makes take at once; it is the same every time."""
    with LiveBytes() as counted:
        work()
    return int(counted.peak)


def free_bytes(device: torch.device | str) -> int | None:
    """Return how much memory a device has free; None where the system does not tell.

    On the CPU the smaller one of what the system has available and what the limit of this process's control group
    (a container, a batch system's job) leaves.
    """
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what torch holds back from freed tensors is free for new ones
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    known = [each for each in (_available(), *_left_in_groups()) if each is not None]
    return min(known, default=None)


def _available() -> int | None:
    for line in _lines(MEMINFO):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_groups() -> Iterator[int | None]:
    """Return what is left below the limits of the control groups above this process, of version 1 and 2."""
    for line in _lines(OWN_GROUPS):
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            names, root = ("memory.max", "memory.current", "inactive_file"), GROUPS
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = GROUPS / "memory"
        else:
            continue
        # inside a container the group's own path is not mounted, but its root is the container's group
        group = Path(place.lstrip("/"))
        for folder in dict.fromkeys((root / group, *(root / above for above in group.parents))):
            yield _left(folder, *names)


def _left(folder: Path, limit_file: str, usage_file: str, cache: str) -> int | None:
    limit, usage = (_number(folder / name) for name in (limit_file, usage_file))
    if limit is None or usage is None or limit >= _UNLIMITED:
        return None
    # cached files count as used, but give way
    cached = [int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.split()[0] == cache]
    return max(0, limit - usage + sum(cached))


def _number(file: Path) -> int | None:
    text = " ".join(_lines(file))
    return int(text) if text.isdecimal() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def keep_freed_memory(device: torch.device | str) -> None:
    """Let the C library keep freed memory for the next tensor.

    GNU's gives a large block back to the system when it is freed, and every new one then costs a page fault for
    each of its pages: up to twice the time of the operators that fill it. What it takes for large grows with the
    largest block that it has given back so far, up to 32 MiB: one such block, never touched, is given back here.
    """
    if torch.device(device).type == "cpu":
        torch.empty(_LARGEST_KEPT, dtype=torch.uint8)
