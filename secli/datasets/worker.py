"""A worker process: rescales the batches that arrive on stdin until its parent closes it or is gone."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import BinaryIO

from secli.datasets.rescaling import rescale


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each (images, factors) with the rescaled images, until the stream ends."""
    while True:
        try:
            images, factors = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(rescale(images, factors), answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


def main() -> None:
    """Serve on stdin and stdout; an interrupt is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(
        sys.stderr.fileno(), sys.stdout.fileno()
    )  # whatever a library prints must not mix with the answers
    serve(sys.stdin.buffer, answers)
