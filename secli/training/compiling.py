"""A network compiled for its training steps, and whether this machine can compile."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from importlib.util import find_spec
from typing import cast

import torch
from torch import nn

from secli.errors import InputError

BACKEND = "inductor"

# it warns of CUDA's tools without a card on stderr, where only the command line prints
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def compiled(network: nn.Module, device: torch.device, parts: int = 1) -> nn.Module:
    """Return the network compiled, sharing its weights; the network itself is unchanged, names included.

    Every size of batch is compiled by itself, when it first occurs. On CUDA the kernels of a pass are replayed as CUDA
    graphs: in a small network starting the kernels one by one costs more than running them. Not when a batch has
    several ``parts``, because a replayed graph overwrites the gradients of the part before.
    """
    torch.compiler.reset()  # of networks that this process trained before: torch compiles one function only so often
    mode = "reduce-overhead" if device.type == "cuda" and parts == 1 else "default"
    # Fabric replaces torch.compile by an untyped function of its own
    return cast(nn.Module, torch.compile(network, backend=BACKEND, mode=mode, dynamic=False))


def check_compiler(device: str) -> None:
    """Refuse to compile without a compiler for C++ (CPU) or for C and Triton (CUDA), or on another device."""
    if device == "cuda":
        found = find_spec("triton") is not None and _found("CC", "gcc", "clang")
        needed = "the package triton and a C compiler (gcc)"
    elif device == "cpu":
        found = _found("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))
        needed = "a C++ compiler (g++, or the one that CXX names)"
    else:
        raise InputError(f"--compile: works on cpu and cuda, not on {device}; leave it out")
    if not found:
        raise InputError(
            f"--compile: torch needs {needed}, which is not here; install it, or leave out --compile"
        )


def _found(variable: str, *usual: str) -> bool:
    chosen = os.environ.get(variable)
    return any(shutil.which(name) for name in ([chosen] if chosen else usual))


def compiler_failure(error: RuntimeError) -> str | None:
    """Return the first line of an error of torch's compilers; None for any other error."""
    if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
