"""The memory of a pass, and the free memory of the machine, which determine a batch."""

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
_UNLIMITED = 1 << 60  # without a limit, version 1 of control groups has a number near 2^63


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operators make inside, each storage once: now and at the peak."""

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
        """Run an operator and count its outputs."""
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
    """Return the peak memory in bytes of the tensors that some work makes; it is the same every time."""
    with LiveBytes() as counted:
        work()
    return int(counted.peak)


def free_bytes(device: torch.device | str) -> int | None:
    """Return the free bytes of a device; None where the system has no such number.

    On the CPU they are bounded by the system's available memory and by the limit of this process's control group
    (a container, a batch system's job).
    """
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # memory of freed tensors that torch keeps is free for new ones
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    available = [int(line.split()[1]) * 1024 for line in _lines(MEMINFO) if line.startswith("MemAvailable:")]
    return min([*available, *(each for each in _left_in_groups() if each is not None)], default=None)


def _left_in_groups() -> Iterator[int | None]:
    """Yield the memory left below the limits of this process's control groups, of version 1 and 2."""
    for line in _lines(OWN_GROUPS):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names, root = ("memory.max", "memory.current", "inactive_file"), GROUPS
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = GROUPS / "memory"
        else:
            continue
        # inside a container the group's own path is not mounted, but its root is the container's group
        group = Path(path.lstrip("/"))
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

    GNU's returns a large block to the system when it is freed, and every new one then costs a page fault for
    each of its pages: up to twice the time of the operators that fill it. Its threshold for large grows with the
    largest block that it has returned so far, up to 32 MiB: one such block, never touched, is returned here.
    """
    if torch.device(device).type == "cpu":
        torch.empty(_LARGEST_KEPT, dtype=torch.uint8)
