"""Foreign code, and the only way to run it: its changes to the process stay its own."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from secli.errors import InputError, SecliError, mark_foreign, one_line
from secli.external.private_modules import PrivateModules
from secli.external.process_state import OURS, OWN, Random, read, seed_everything, write
from secli.external.standard_output import StdoutToStderr


class ForeignCode:
    """The code of one network. It runs only inside ``with code():``: import, construction, every pass.

    Inside, the code finds its own modules, search path, environment, default dtype and device, warning filters and
    random numbers as it left them, unchanged by another network's code. Outside, the process is as it was before.
    Its output goes to standard error, and its ``sys.exit`` is an error of ours. Nested contexts do nothing.

    Parameters
    ----------
    name : str
        The network's name in errors.
    directory : Path, optional
        Of its files: modules there can be imported, before all others.
    seed : int
        Of its random numbers.
    """

    def __init__(self, name: str, directory: Path | None = None, seed: int = 0) -> None:
        self.name, self.directory, self.seed = name, directory, seed
        self._modules = PrivateModules(directory)
        self._own: list[Any] | None = None
        self._random: Random | None = None
        self._depth = 0

    def __call__(self) -> AbstractContextManager[None]:
        """Return the context in which the code runs."""
        return contextlib.nullcontext() if self._depth else _Inside(self)

    def __deepcopy__(self, _memo: dict[int, Any]) -> ForeignCode:
        """Return itself: copies of a network run the same code."""
        return self


class _Inside:
    """The context of :class:`ForeignCode`."""

    def __init__(self, code: ForeignCode) -> None:
        self.code = code

    def __enter__(self) -> None:
        code = self.code
        self.random = Random.read()  # first, and restored last: checks of types draw numbers, too
        self.output = StdoutToStderr()
        self.ours, self.own = read(OURS), read(OWN)
        self.output.__enter__()
        code._depth += 1
        code._modules.bring()
        if code._own is not None:
            write(OWN, code._own, self.own)
        elif code.directory is not None:
            sys.path.insert(0, str(code.directory))
            importlib.invalidate_caches()
        if code._random is None:
            seed_everything(code.seed)
        else:
            code._random.write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        code = self.code
        code._random = Random.read()
        code._own = read(OWN)
        write(OURS, self.ours, read(OURS))
        write(OWN, self.own, code._own)
        code._modules.put_away()
        code._depth -= 1
        self.output.__exit__()
        self.random.write()
        # SystemExit, and others that end a process without being an error
        if error is not None and not isinstance(error, (Exception, KeyboardInterrupt, GeneratorExit)):
            raise InputError(f"{code.name}: {error_line(error)}") from None
        if error is not None and not isinstance(error, SecliError) and not _raised_by_us(error):
            mark_foreign(error, f"{code.name}: {error_line(error)}")


@contextlib.contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Turn an error in foreign code into one line with its file and line number."""
    try:
        yield
    except (SecliError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise InputError(f"{name}: {error_line(error)}") from None


def error_line(error: BaseException) -> str:
    """Return an error in one line: file and line, kind, and message."""
    return f"{source_line(error)}: {type(error).__name__}: {one_line(error)}"


def _raised_by_us(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(str(Path(__file__).parents[1]))


def source_line(error: BaseException) -> str:
    """Return ``file:line`` of the innermost frame of an error that is not of an installed library, else of any."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")
    ]
    ours = (str(Path(__file__).parents[1]), str(Path(contextlib.__file__).parent))
    foreign = [
        frame
        for frame in frames
        if "site-packages" not in frame.filename and not frame.filename.startswith(ours)
    ]
    chosen = (foreign or frames)[-1:]
    return f"{_short(chosen[0].filename)}:{chosen[0].lineno}" if chosen else "unknown file"


def _short(filename: str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(filename).relative_to(Path.cwd()))
    return filename
