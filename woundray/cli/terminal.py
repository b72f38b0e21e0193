"""Terminal output of a command: progress, logs, one line for a mistake, and exit codes."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, Self, TextIO

from woundray.errors import NonFiniteError, UserError
from woundray.system.private_folder import provide_home
from woundray.system.redaction import redact

if TYPE_CHECKING:
    from rich.progress import TaskID

_PIPE_CLOSED = 128 + signal.SIGPIPE
_NOTE_EVERY_S = 10.0  # of a pipe or log file


def run(main: Callable[[], None]) -> None:
    """Runs a command's body: a user's mistake is one line and exit code 2; Ctrl-C is exit code 130.

    What batch systems and closed terminals send counts as Ctrl-C, which is answered at once. A reader that has closed
    the pipe (`| head`) ends the command with exit code 141, as it does other programs.
    """
    configure_logging()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:  # not under nohup
            signal.signal(signum, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        provide_home()
        main()
        sys.stdout.flush()
    except (UserError, NonFiniteError) as error:
        fail(str(error))
    except KeyboardInterrupt as error:
        with contextlib.suppress(OSError):  # the terminal was closed
            sys.stderr.write(f"\n{error or 'stopped'}\n")
        sys.exit(130)
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}; give another path, or mend what is there")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails once more at its end
        sys.exit(_PIPE_CLOSED)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Answers Ctrl-C before whatever has to be ended is ended."""
    with contextlib.suppress(OSError):
        os.write(2, b"\nstopping\n")  # not through a buffer in which the signal may have been caught
    raise KeyboardInterrupt


def _stop(signum: int, frame: FrameType | None) -> None:
    """Once: a shell sends its jobs a second one when its terminal is closed."""
    signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


class ProgressBars:
    """Progress bars with rate and time left, one a stage of slow work, on a terminal; plain lines elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(overflow="fold")),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rate]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._live = self._progress.console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._noted_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, name: str, done: int, total: int, note: str = "", /) -> None:
        """Shows what is being done, how much of it is done, how much there is, and how it goes."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, rate="")
            if not self._live:
                self._print(f"{name} ...")
        task = self._tasks[name]
        self._progress.update(task, completed=done, total=total, visible=done < total)
        of_task = self._progress.tasks[task]
        pace = "" if note else " ".join(filter(None, (rate(of_task.speed, total), time_left(of_task.time_remaining))))
        self._progress.update(task, description=f"{name}: {note}" if note else name, rate=pace)
        if self._live and done < total:
            self._progress.start()
        elif all(task.finished for task in self._progress.tasks):
            self._stop()  # the next thing to draw may be a table of trials
        if note and not self._live and time.monotonic() - self._noted_s > _NOTE_EVERY_S:
            self._print(f"{name}: {note}")
            self._noted_s = time.monotonic()

    def _print(self, line: str) -> None:
        self._progress.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _stop(self) -> None:
        if self._live:  # elsewhere rich would write an empty line
            self._progress.stop()


def time_left(seconds: float | None) -> str:
    """`about 40 s left`; empty while it is not known."""
    if seconds is None or seconds <= 0:
        return ""
    return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"


def rate(per_s: float | None, total: int) -> str:
    """`3.2/s`, or `41.3 MB/s` where so many are counted that they are bytes; empty while it is not known."""
    if per_s is None:
        return ""
    return f"{per_s / 1e6:.1f} MB/s" if total > 10_000_000 else f"{per_s:.1f}/s"


def fail(message: str) -> NoReturn:
    """One line on stderr, without secrets, and exit code 2."""
    sys.stderr.write(f"woundray: {redact(' '.join(message.split()))}\n")
    sys.exit(2)


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: a live table puts lines above itself."""

    @property
    def stream(self) -> TextIO:
        """Stream of stderr at the moment."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None: ...


class Redacted(logging.Formatter):
    """Lines of a log, and tracebacks below them, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure_logging() -> None:
    """Plain lines of woundray's own on stderr; other libraries only from warnings up."""
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStderr()])
    for handler in logging.getLogger().handlers:
        handler.setFormatter(Redacted("%(message)s"))
    logging.getLogger("woundray").setLevel(logging.INFO)
