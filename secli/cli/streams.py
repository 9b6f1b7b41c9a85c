"""stdout and stderr of any encoding, or closed: what does not fit is written in letters that do, and nothing fails."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from pathlib import Path
from typing import IO

READABLE = "secli.readable"

_GREEK = {
    "ΑΒΓΔΕΖΗΙΚΛΜΝΞΟΠΡΣΤΥΩ": "ABGDEZHIKLMNXOPRSTYO",
    "αβγδεζηικλμνξοπρςστυω": "abgdezhiklmnxoprsstyo",
}
# one character where there is one, so that the columns of a table stay below each other
_SAME_WIDTH = {
    "\u00a0": " ",
    "—–−‐‑‒―⁻": "--------",
    "‘’“”′″": "''\"\"'\"",
    "×·÷⋆⊗∘•": "x*/**o*",
    "°†‡ŷĝ₀₁₂₃ⁿᵀ": "o+#yg0123nT",
    "─━═╌╍│┃║┌┐└┘├┤┬┴┼╭╮╰╯╒╕╘╛╞╡╤╧╪╔╗╚╝╠╣╦╩╬┏┓┗┛┡┩┢┪┣┫┳┻╋┯┷┿┠┨┰┸╂╇╈╸╺╴╶╷╵╹╻": None,
    "█▉▊▋▌▍▎▏░▒▓▲▼▶◀■□●○✓✔✗✘": "########..#^v><##*o++xx",
    "≈∝∂∇⌈⌉⌊⌋⟨⟩": "~~dV[][]<>",
    "Θθ": "Tt",
}
_WIDER = {
    "Φ": "Phi",
    "φ": "phi",
    "Ψ": "Psi",
    "ψ": "psi",
    "Χ": "Chi",
    "χ": "chi",
    "ϕ": "phi",
    "‖": "||",
    "¹": "^1",
    "²": "^2",
    "³": "^3",
    "±": "+-",
    "∓": "-+",
    "…": "...",
    "√": "sqrt",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "→": "->",
    "←": "<-",
    "↦": "|->",
    "⟺": "<=>",
    "∞": "inf",
    "½": "1/2",
    "µ": "u",
    "\u0302": "^",
}


def _letters() -> dict[str, str]:
    """Return the letters for each character that may not fit."""
    found = dict(_WIDER)
    for characters, others in {**_GREEK, **_SAME_WIDTH}.items():
        # of lines, only the two that run straight have a letter of their own; all others are corners
        straight = {"─": "-", "━": "-", "═": "=", "╌": "-", "╍": "-", "│": "|", "┃": "|", "║": "|"}
        stand_ins = others if others is not None else [straight.get(each, "+") for each in characters]
        found.update(zip(characters, stand_ins, strict=True))
    return found


_LETTERS = _letters()


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Give letters for what an encoding cannot write; what has none is escaped, so that nothing is lost.

    A byte of a file name that is no text (a lone surrogate) is written as the byte that it is.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    if all("\udc80" <= each <= "\udcff" for each in part) and not error.encoding.startswith("utf-16"):
        return bytes(ord(each) - 0xDC00 for each in part), error.end
    letters = (
        _LETTERS.get(each) or each.encode("ascii", "backslashreplace").decode("ascii") for each in part
    )
    return "".join(letters), error.end


def prepare_streams() -> None:
    """Let stdout and stderr write any text whatever their encoding is; where they are closed, to nowhere."""
    codecs.register_error(READABLE, _replace)
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != READABLE:
            stream.reconfigure(errors=READABLE)


def _open_closed() -> None:
    """Give the null device to standard streams that are closed, before a file that is opened takes their number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        stream: IO[str] | None = getattr(sys, name)
        if stream is not None:
            continue
        with contextlib.suppress(OSError):
            try:
                os.fstat(number)
            except OSError:
                opened = os.open(os.devnull, os.O_RDWR)
                os.dup2(opened, number)
                if opened != number:
                    os.close(opened)
                os.set_inheritable(number, True)
        setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (open until the end)


def write_utf8(text: str) -> None:
    """Write text to stdout as UTF-8, whatever its encoding is: data for programs has one encoding."""
    stream = sys.stdout
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(text)
        return
    stream.flush()
    buffer.write(text.encode("utf-8", READABLE))
