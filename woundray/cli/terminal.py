"""Terminal output of a command: progress bars, logs, one-line error messages, and exit codes."""

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
_NOTE_EVERY_S = 10.0  # in a pipe or log file


def run(main: Callable[[], None]) -> None:
    """Run a command's body: a user's mistake is one line and exit code 2; Ctrl-C is exit code 130.

    SIGTERM and SIGHUP, from batch systems and closed terminals, count as Ctrl-C. A closed pipe (`| head`) ends the
    command with exit code 141, as usual.
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails again at exit
        sys.exit(_PIPE_CLOSED)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Handle SIGINT: confirm Ctrl-C at once, before anything is ended."""
    with contextlib.suppress(OSError):
        os.write(2, b"\nstopping\n")  # unbuffered: the signal may have interrupted a write to the buffer
    raise KeyboardInterrupt


def _stop(signum: int, frame: FrameType | None) -> None:
    """Handle SIGTERM or SIGHUP, once: a shell sends a second signal when its terminal is closed."""
    signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


class ProgressBars:
    """Progress bars with rate and time left, one for each stage, on a terminal; plain lines elsewhere."""

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
        """Show the progress of a stage: name, done, total, and a note."""
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
            self._stop()  # a live table of trials may follow
        if note and not self._live and time.monotonic() - self._noted_s > _NOTE_EVERY_S:
            self._print(f"{name}: {note}")
            self._noted_s = time.monotonic()

    def _print(self, line: str) -> None:
        self._progress.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _stop(self) -> None:
        if self._live:  # otherwise rich would write an empty line
            self._progress.stop()


def time_left(seconds: float | None) -> str:
    """Return the remaining time: `about 40 s left`; empty while unknown."""
    if seconds is None or seconds <= 0:
        return ""
    return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"


def rate(per_s: float | None, total: int) -> str:
    """Return a rate: `3.2/s`, or `41.3 MB/s` if the total is so large that it counts bytes; empty while unknown."""
    if per_s is None:
        return ""
    return f"{per_s / 1e6:.1f} MB/s" if total > 10_000_000 else f"{per_s:.1f}/s"


def fail(message: str) -> NoReturn:
    """Write one line to stderr, without secrets, and exit with code 2."""
    sys.stderr.write(f"woundray: {redact(' '.join(message.split()))}\n")
    sys.exit(2)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Log handler of the current sys.stderr, which a live table replaces to write lines above itself."""

    @property
    def stream(self) -> TextIO:
        """Current sys.stderr."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None: ...


class RedactingFormatter(logging.Formatter):
    """Log formatter that removes secrets from lines and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure_logging() -> None:
    """Log woundray's messages as plain lines to stderr; other libraries' only from warnings up."""
    logging.basicConfig(level=logging.WARNING, handlers=[_StderrHandler()])
    for handler in logging.getLogger().handlers:
        handler.setFormatter(RedactingFormatter("%(message)s"))
    logging.getLogger("woundray").setLevel(logging.INFO)
