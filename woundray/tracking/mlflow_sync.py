"""Tracker: a thread that copies a study's journal to MLflow while training goes on."""

import hashlib
import json
import logging
import shlex
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from woundray.config.saved import read_config
from woundray.errors import UserError
from woundray.tracking.address import tracking_uri, unavailable_reason
from woundray.tracking.journal import JOURNAL_NAME, Event, Journal
from woundray.tracking.mlflow_runs import MlflowRuns
from woundray.tracking.run_context import TrackedStudy
from woundray.tracking.study_id import study_id

_POLL_S = 0.5
_MAX_RETRY_PAUSE_S = 10.0
_CLOSE_AFTER_ERROR_S = 60.0
_NOTICE_AFTER_S = 2.0
_PERMANENT_ERRORS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")  # which a retry would repeat

log = logging.getLogger(__name__)


class Tracker:
    """Copies a journal to MLflow while it is written. Events that could not be copied stay on disk for `sync_journal`.

    It is a context manager for the time of the study. The constructor creates database, experiment and parent run.

    Args:
        journal: journal of the study; files in its folder keep the offset of the copy and the study's identifier.
        study: name, settings, tags and data set of the study or single run.
        uri: address of MLflow; empty: see `tracking_uri`.

    Raises:
        UserError: MLflow does not answer, or another process copies the journal.
    """

    def __init__(self, journal: Path, study: TrackedStudy, *, uri: str = "") -> None:
        self.uri = uri or tracking_uri()
        self._journal = Journal(journal)
        self._offset_file = journal.with_suffix(".copied")
        self._lock = _lock_journal(journal)
        self._offset = _copied_bytes(journal, self.uri)
        identifier = study_id(journal.parent)
        try:
            self._runs = MlflowRuns(self.uri, study, identifier)
            self._runs.start_parent()
        except BaseException:
            self._lock.release()
            raise
        self._runs.start_monitor()
        self._closing = threading.Event()
        self._timeout_s = float("inf")
        self._last_answer_s = time.monotonic()
        self._thread = threading.Thread(target=self._copy_events, name="mlflow", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(max_wait_s=None if error is None else _CLOSE_AFTER_ERROR_S)

    def close(self, timeout_s: float = 60.0, *, max_wait_s: float | None = None) -> int:
        """Wait until all events are copied, and return the number of events that are left. Ctrl-C ends the wait.

        Args:
            timeout_s: the wait ends when MLflow has not answered for this time.
            max_wait_s: longest wait; None: as long as MLflow takes events.
        """
        self._last_answer_s, self._timeout_s = time.monotonic(), timeout_s
        self._closing.set()
        try:
            self._thread.join(_NOTICE_AFTER_S)
            if self._thread.is_alive():
                log.info("waiting for MLflow at %s; Ctrl-C leaves the rest to `sync`", self.uri)
            self._thread.join(max_wait_s)
        except KeyboardInterrupt:
            log.debug("the wait for MLflow was interrupted")
        self._timeout_s = 0.0
        self._runs.close()
        if not self._thread.is_alive():  # else the lock is released with the process
            self._lock.release()
        left = sum(1 for _ in self._journal.read(self._offset))
        if left:
            log.warning(
                "MLflow at %s did not take %d events; they are kept: `python -m woundray.sync %s` writes them",
                *(self.uri, left, shlex.quote(str(self._journal.path.parent))),
            )
        return left

    @property
    def registered(self) -> str:
        """Address of the registered model, `models:/NAME@ALIAS`; empty: none yet."""
        return self._runs.registered

    @property
    def page(self) -> str:
        """Address of the table of runs in a browser."""
        return self._runs.page

    def _copy_events(self) -> None:
        """Copy new events until `close`; the target of the thread."""
        while True:
            last = self._closing.wait(_POLL_S)
            for event, offset in self._journal.read(self._offset):
                if not self._write_event(event):
                    return
                self._save_offset(offset)
                self._last_answer_s = time.monotonic()
            if last:
                return

    def _save_offset(self, offset: int) -> None:
        """Save how far the journal is copied. If that fails, events are copied twice, which changes nothing."""
        self._offset = offset
        temporary = self._offset_file.with_suffix(".part")
        try:
            temporary.write_text(f"{offset} {_address_hash(self.uri)}", encoding="ascii")
            temporary.replace(self._offset_file)
        except OSError as error:  # a full disk: the study itself reports it
            log.debug("%s: %s", self._offset_file, error)

    def _write_event(self, event: Event) -> bool:
        """Retry until MLflow takes an event; False: the timeout of `close` is over."""
        from mlflow.exceptions import MlflowException

        pause_s = 0.5
        while time.monotonic() < self._last_answer_s + self._timeout_s:
            try:
                if not unavailable_reason(self.uri):  # takes seconds; a call would wait for the timeout of an upload
                    self._runs.apply(event)
                    return True
            except (MlflowException, OSError) as error:
                if getattr(error, "error_code", "") in _PERMANENT_ERRORS:
                    log.warning("MLflow refused an event of %s: %s", self._journal.path, error)
                    return True
                log.debug("MLflow at %s: %s", self.uri, error)  # no answer, or a busy database: retry
            except Exception:  # an error of one event must not keep the others from MLflow
                log.exception("an event of %s could not be written to MLflow", self._journal.path)
                return True
            self._closing.wait(pause_s)
            if self._closing.is_set():
                time.sleep(min(pause_s, 0.5))
            pause_s = min(2 * pause_s, _MAX_RETRY_PAUSE_S)
        return False


def sync_journal(folder: Path, timeout_s: float = 60.0) -> tuple[int, int]:
    """Copy the events of a study or run that MLflow does not have yet.

    Returns:
        The number of events that were copied, and of those that are left.

    Raises:
        UserError: MLflow does not answer.
    """
    is_run = (folder / "run" / "config.yaml").is_file()
    config = read_config(folder / "run" if is_run else folder)
    journal = Journal(folder / JOURNAL_NAME)
    missing = sum(1 for _ in journal.read(_copied_bytes(journal.path, tracking_uri())))
    if not missing:
        return 0, 0
    tags, scores = versions() | {"phase": config.phase}, folder / "precomputed" / "base_model_scores.json"
    if scores.is_file():  # a measurement has none
        tags["data"] = json.loads(scores.read_text(encoding="utf-8"))["key"]
    tracker = Tracker(journal.path, TrackedStudy(folder.name, config.flat(), tags, nested=not is_run))
    left = tracker.close(timeout_s)
    return missing - left, left


def _lock_journal(journal: Path) -> FileLock:
    """Lock a journal against a second copying process; the lock is released at the end of the process at the latest.

    Raises:
        UserError: another process holds the lock.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(journal.with_suffix(".copying"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{journal.parent}: another process copies it to MLflow; wait for its end") from None
    return lock


def _copied_bytes(journal: Path, uri: str) -> int:
    """Return the bytes of a journal that MLflow at an address has; 0: unknown, and events are copied again."""
    offset_file = journal.with_suffix(".copied")
    if not offset_file.exists() or not journal.exists():
        return 0
    offset, _, address = offset_file.read_text(encoding="ascii").partition(" ")
    if not offset.isdecimal() or address not in ("", _address_hash(uri)):  # empty: woundray 0.1; another address: 0
        return 0
    with journal.open("rb") as file:  # its end may be lost after a power failure
        file.seek(max(0, int(offset) - 1))
        return int(offset) if file.read(1) == b"\n" else 0


def _address_hash(uri: str) -> str:
    """Return a hash of an address, which may contain a password."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Return the versions of woundray and its main packages as tags; packages that are not installed are left out."""
    found = {}
    for package in ("woundray", "torch", "ray", "diffusers", "peft"):
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return found
