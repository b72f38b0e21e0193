"""Ctrl-C once: trials that run finish their epoch. Twice: all stop at once."""

import logging
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from woundray.search.summary import TrialSummary

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # batch systems send the second before they take a machine away

log = logging.getLogger(__name__)


class Interruption:
    """Watches for Ctrl-C while a study or run goes on; a context manager of the main thread.

    Args:
        signum: the signal that this process is sent when all running trials have finished their epoch.
    """

    def __init__(self, signum: signal.Signals) -> None:
        self.asked = False
        self._signum = signum
        self._trials: tuple[TrialSummary, ...] = ()
        self._begun: dict[str, int] = {}  # trial that is waited for -> epochs that it had
        self._told = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {wanted: signal.signal(wanted, self._ask) for wanted in SIGNALS}
            if self._signum not in SIGNALS:  # until Tune handles it
                self._before[self._signum] = signal.signal(self._signum, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for wanted, before in self._before.items():
            signal.signal(wanted, before)

    def __call__(self, trials: tuple[TrialSummary, ...]) -> None:
        """Told all trials after each event."""
        self._trials = trials
        if self.asked:
            self._stop_if_done()

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self._begun = {trial.id: trial.epochs for trial in self._trials if trial.status == "running"}
        self.asked = True
        log.warning("stopping: %d trials finish their epoch first; Ctrl-C again stops at once", len(self._begun))
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        waits = [t for t in self._trials if t.status == "running" and t.epochs == self._begun.get(t.id)]
        if not waits and not self._told:
            self._told = True
            os.kill(os.getpid(), self._signum)
