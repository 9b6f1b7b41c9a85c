"""The only place that prints: data on stdout, progress and errors on stderr, and the exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Protocol

from typer.core import TyperGroup

from secli import signals
from secli.cli.options import refuse_empty_paths
from secli.cli.streams import prepare_streams, write_utf8
from secli.errors import (
    DEBUG,
    EXIT_BUG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    InputError,
    InterruptedRunError,
    SecliError,
    as_message,
    bug_message,
    foreign_line,
    one_line,
    printable,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

# A full disk, a full quota, a broken device: the work failed, the input was not at fault.
_SYSTEM_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EFBIG,
}


_LAYOUT = "\n\t"


def out(text: str, format: str = "table") -> None:
    """Write data to stdout; a terminal is shown what it would obey, a program gets the text as it is.

    json and csv, for programs, are UTF-8 whatever the encoding of stdout is.
    """
    if sys.stdout.isatty():
        text = printable(text, _LAYOUT)
    line = text if text.endswith("\n") else text + "\n"
    if format in ("json", "csv"):
        write_utf8(line)
    else:
        sys.stdout.write(line)


def out_json(content: Any) -> None:
    """Write data to stdout as JSON."""
    from secli.tables.render.json import dump_json

    out(dump_json(content), "json")


def terminal_width() -> int:
    """Return the columns of the terminal, or COLUMNS."""
    return get_terminal_size((100, 24)).columns


def names(option: str, text: str) -> tuple[str, ...]:
    """Read names separated by commas, each once.

    Raises
    ------
    InputError
        When there is none.
    """
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise InputError(f"{option} '{text}': names nothing; give a name, or leave {option} out")
    return found


def note(text: str) -> None:
    """Write a remark for the person at the terminal to stderr."""
    sys.stderr.write(printable(text, _LAYOUT) + "\n")


def stderr_console() -> Console:
    """Return a rich console on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def show(renderable: Any) -> None:
    """Print a rich renderable (a table) to stdout; its width follows the terminal, or COLUMNS."""
    from rich.console import Console

    Console(highlight=False).print(renderable)


@contextmanager
def progress(quiet: bool, count: bool = True) -> Iterator[Progress]:
    """Give a progress display on stderr; it draws nothing with ``quiet`` or when stderr is no terminal.

    ``count=False`` leaves out the "done/total unit" column, for tasks whose description counts.
    """
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    console = stderr_console()
    columns = (
        words("{task.description}"),
        BarColumn(),
        *([words("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}")] if count else []),
        TimeRemainingColumn(),
        words("{task.fields[detail]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as display:
        yield display


class Tell(Protocol):
    """How work says how far it has come, and, where that changes, what is being done."""

    def __call__(self, done: int, total: int, now: str | None = None) -> None:
        """Show it."""


@contextmanager
def bar(unit: str, quiet: bool, what: str = "") -> Iterator[Tell]:
    """Give a function that shows how far work is; the bar appears with its first call, after any download's."""
    with ExitStack() as stack:
        display: Progress | None = None
        task: Any = None

        def tell(done: int, total: int, now: str | None = None) -> None:
            nonlocal display, task
            if display is None:
                display = stack.enter_context(progress(quiet))
                task = display.add_task(what, total=total, unit=unit, detail="")
            display.update(task, completed=done, total=total, description=now)

        yield tell


@contextmanager
def advice(text: str) -> Iterator[None]:
    """Let the line that tells of a signal end in this advice, while the body runs.

    Raises
    ------
    InterruptedRunError
        In the place of a ``KeyboardInterrupt``, where the signals' own handler is not set.
    """
    with signals.advising(text):
        try:
            yield
        except KeyboardInterrupt:
            raise InterruptedRunError(text) from None


def words(format: str) -> ProgressColumn:
    """Return a column of a progress display whose words are shown as they read, markup and controls too."""
    from rich.progress import ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        """Text of a task."""

        def render(self, task: Task) -> Text:
            """Return the text as it stands now."""
            return Text(printable(format.format(task=task)))

    return Words(table_column=Column(no_wrap=True))


class OneLineErrors(TyperGroup):
    """A command group that turns every expected failure into one line on stderr and the right exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; with ``standalone_mode`` leave the process with the exit code."""
        signals.forget()
        prepare_streams()
        try:
            refuse_empty_paths(sys.argv[1:] if args is None else args, self.commands)
            result = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            sys.stdout.flush()
        except InterruptedRunError as error:
            code = fail(str(error), signals.exit_code())
        except SecliError as error:
            code = fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            code = fail("", signals.exit_code())
        except BrokenPipeError:
            # the reader (head, less) has gone: nothing to say, and nothing left to flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = EXIT_FAILED
        except OSError as error:
            known = EXIT_FAILED if error.errno in _SYSTEM_ERRORS else EXIT_USAGE
            code = fail(foreign_line(error) or _os_message(error), known)
        except Exception as error:
            code = _fail_unforeseen(error)
        else:
            code = result if isinstance(result, int) else 0
            if code == EXIT_INTERRUPTED:  # typer's word for Ctrl-C
                code = fail("", signals.exit_code())
        if not standalone_mode:
            return code
        signals.finish()
        sys.exit(code)


def fail(message: str, code: int) -> int:
    """Print one line, what happened and what to do next as far as that is known, and return the exit code."""
    what = "interrupted" if code in (EXIT_INTERRUPTED, signals.exit_code()) else "error"
    note(": ".join(part for part in (what, as_message(message)) if part))
    return code


def _fail_unforeseen(error: Exception) -> int:
    """Print one line on what is no error of ours: a usage error of typer, no memory left, or else a bug."""
    # typer carries its own copy of click: usage errors are known by what they can do
    if hasattr(error, "format_message"):
        return fail(_usage_message(error), EXIT_USAGE)
    if _out_of_memory(error):
        return fail("out of memory; give smaller pictures, batches or networks", EXIT_FAILED)
    if os.environ.get(DEBUG) == "1":
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
    foreign = foreign_line(error)
    return fail(foreign, EXIT_USAGE) if foreign is not None else fail(bug_message(error), EXIT_BUG)


def _out_of_memory(error: Exception) -> bool:
    """Say whether an error means that there was no memory, of this machine or of its GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in one_line(error))
    )


def _os_message(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _usage_message(error: Any) -> str:
    message = str(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message} (see '{context.command_path} --help')" if context is not None else message
