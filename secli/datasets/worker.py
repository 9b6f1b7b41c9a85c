"""A worker process: does the tasks that arrive on stdin until its parent closes it or exits."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from secli.datasets.png import png_files
from secli.datasets.transforms import apply

TASKS: Mapping[str, Callable[..., Any]] = {"transform": apply, "png": png_files}
"""A worker's tasks by name."""


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each (task, arguments) with the result, until the stream ends."""
    while True:
        try:
            task, arguments = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(TASKS[task](*arguments), answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


def main() -> None:
    """Serve on stdin and stdout; an interrupt is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # whatever a library prints must not mix with the answers
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers)
