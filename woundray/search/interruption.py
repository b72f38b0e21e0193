"""Ctrl-C once: trials that run finish their epoch. Twice: all stop at once. A closed terminal counts as Ctrl-C."""

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
"""Ctrl-C; what batch systems send before they take a machine away; what a terminal sends when it is closed."""

OUTPUT_FILE = "output.txt"
"""In the folder of a study or run: what it would have told a terminal that was closed."""

log = logging.getLogger(__name__)


@contextmanager
def resume_hint_on_interrupt(line: Callable[[], str]) -> Iterator[None]:
    """Makes a Ctrl-C within the block, which says nothing itself, one that says how to go on.

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
    """Watches for Ctrl-C while a study or run goes on; a context manager of the main thread.

    Args:
        signum: the signal that this process is sent when all running trials have finished their epoch.
        folder: of the study or run.
        read_current_trials: gives all trials as they are at the moment; what this is told of them is a little late.
    """

    def __init__(self, signum: signal.Signals, folder: Path, read_current_trials: Callable[[], tuple[TrialResult, ...]]) -> None:
        self.interrupted = False
        self._folder = folder
        self._read_current_trials = read_current_trials
        self._signum = signum
        self._trials: tuple[TrialResult, ...] = ()
        self._epochs_at_interrupt: dict[str, int] = {}  # trial that is waited for -> epochs that it had
        self._signalled = False
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            wanted = [s for s in SIGNALS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]  # of nohup
            self._previous_handlers = {signum: signal.signal(signum, self._on_signal) for signum in wanted}
            if self._signum not in SIGNALS:  # until Tune handles it
                self._previous_handlers[self._signum] = signal.signal(self._signum, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for wanted, before in self._previous_handlers.items():
            signal.signal(wanted, before)

    def __call__(self, trials: tuple[TrialResult, ...]) -> None:
        """Told all trials after each event."""
        self._trials = trials
        if self.interrupted:
            self._stop_if_done()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
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
        """Has all further words for the terminal written to a file: one that was closed answers with errors."""
        with (self._folder / OUTPUT_FILE).open("ab") as file:
            for stream in (sys.__stdout__, sys.__stderr__):
                if stream is not None and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                    os.dup2(file.fileno(), stream.fileno())

    def _stop_if_done(self) -> None:
        waits = [t for t in self._trials if t.status == "running" and t.epochs == self._epochs_at_interrupt.get(t.id)]
        if not waits and not self._signalled:
            self._signalled = True
            os.kill(os.getpid(), self._signum)
