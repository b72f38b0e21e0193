"""Ctrl-C: after the first, running trials finish their epoch; after the second, all stop at once.

Signals of batch systems and of a closed terminal are handled like Ctrl-C.
"""

import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from woundray.errors import Stopped
from woundray.results.trials import TrialResult

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals of Ctrl-C, of batch systems before the end of a job, and of a terminal that is closed."""

OUTPUT_FILE = "output.txt"
"""File in the folder of a study or run: its output after the terminal was closed."""

log = logging.getLogger(__name__)


@contextmanager
def resume_hint_on_interrupt(line: Callable[[], str]) -> Iterator[None]:
    """Turn a KeyboardInterrupt in the block into Stopped, with a line that says how to resume.

    Raises:
        Stopped: with the line.
    """
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt:
        raise Stopped(line()) from None


class InterruptHandler:
    """Context manager of the main thread that handles Ctrl-C while a study or run goes on.

    It is also a listener of `JournalFollower`, which calls it with all trials after each event.

    Args:
        signum: signal that this process sends itself when all running trials have finished their epoch.
        folder: folder of the study or run.
        read_current_trials: reads all trials from the journal; the listener's are up to a poll interval older.
    """

    def __init__(
        self, signum: signal.Signals, folder: Path, read_current_trials: Callable[[], tuple[TrialResult, ...]]
    ) -> None:
        self.interrupted = False
        self._folder = folder
        self._read_current_trials = read_current_trials
        self._signum = signum
        self._trials: tuple[TrialResult, ...] = ()
        self._epochs_at_interrupt: dict[str, int] = {}  # running trial -> its epochs at the first Ctrl-C
        self._signalled = False
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            handled = [signum for signum in SIGNALS if signum != signal.SIGHUP or not nohup]
            self._previous_handlers = {signum: signal.signal(signum, self._on_signal) for signum in handled}
            if self._signum not in SIGNALS:  # until Tune sets its own handler
                self._previous_handlers[self._signum] = signal.signal(self._signum, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous_handlers.items():
            signal.signal(signum, handler)

    def __call__(self, trials: tuple[TrialResult, ...]) -> None:
        """Take all trials after an event of the journal."""
        self._trials = trials
        if self.interrupted:
            self._stop_if_done()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Note the epochs of running trials at the first signal; raise KeyboardInterrupt at the second."""
        if signum == signal.SIGHUP:
            signal.signal(signum, signal.SIG_IGN)  # a shell sends its jobs a second one
            self._redirect_output()
        if self.interrupted:
            raise KeyboardInterrupt
        self._trials = self._read_current_trials()
        self._epochs_at_interrupt = {trial.id: trial.epochs for trial in self._trials if trial.status == "running"}
        self.interrupted = True
        log.warning(
            "stopping: %d trials finish their epoch first; Ctrl-C again stops at once", len(self._epochs_at_interrupt)
        )
        self._stop_if_done()

    def _redirect_output(self) -> None:
        """Write further terminal output to a file: writing to a closed terminal raises errors."""
        with (self._folder / OUTPUT_FILE).open("ab") as file:
            for stream in (sys.__stdout__, sys.__stderr__):
                if stream is not None and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                    os.dup2(file.fileno(), stream.fileno())

    def _stop_if_done(self) -> None:
        """Send the signal, once, when no trial is still in the epoch of the first Ctrl-C."""
        pending = [t for t in self._trials if t.status == "running" and t.epochs == self._epochs_at_interrupt.get(t.id)]
        if not pending and not self._signalled:
            self._signalled = True
            os.kill(os.getpid(), self._signum)
