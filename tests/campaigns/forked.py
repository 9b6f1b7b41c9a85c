"""Invocations of the command line in forked children of one warm process: what costs seconds is loaded once."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 60.0
"""Seconds that one invocation may take in all, when other work keeps the machine busy."""
MOST_MEMORY = 16 << 30
"""Bytes of address space of a child, so that none of them harms the machine."""


@dataclass(frozen=True)
class Ended:
    """How an invocation ended: ``code`` is negative after a signal, ``worked`` is processor time in seconds."""

    code: int
    seconds: float
    worked: float
    stdout: str
    stderr: str

    @property
    def hung(self) -> bool:
        """Whether it was ended because it took too long."""
        return self.code == -signal.SIGKILL


def warm() -> None:
    """Load what the commands load."""
    import torch
    import torchvision.models  # noqa: F401

    import secli.cli.app
    import secli.cli.results
    import secli.sweeps.measure
    import secli.training.run  # noqa: F401

    torch.set_num_threads(1)


def rehearse(arguments: Sequence[str], cwd: Path) -> None:
    """Run one command line here, so that the children find loaded what it loads only when it works."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    from secli.cli.app import app

    here = Path.cwd()
    os.chdir(cwd)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            app(list(arguments), standalone_mode=False)
    finally:
        os.chdir(here)


def invoke(arguments: Sequence[str], cwd: Path, patience: float = PATIENCE) -> Ended:
    """Run one command line in a child, in a directory of its own."""
    out, err = cwd / ".stdout", cwd / ".stderr"
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork while other threads run: the child starts none of its own
        child = os.fork()
    if child == 0:
        _become(arguments, cwd, out, err)
    code, worked = _wait(child, began + patience)
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in (out, err)]
    return Ended(code, time.monotonic() - began, worked, *texts)


def _wait(child: int, until: float) -> tuple[int, float]:
    """Return the exit code of a child and its processor time; one that goes on for too long is killed."""
    pause = 0.002
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.monotonic() > until:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.05, 1.5 * pause)


def _become(arguments: Sequence[str], cwd: Path, out: Path, err: Path) -> None:
    """Be the command line; never returns."""
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        os.chdir(cwd)
        for number, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - these last as long as the process
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.argv = ["secli", *arguments]
        os.environ["TMPDIR"] = str(cwd)
        import tempfile

        tempfile.tempdir = None
        warnings.resetwarnings()
        from secli.cli.app import app

        app(list(arguments))
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
