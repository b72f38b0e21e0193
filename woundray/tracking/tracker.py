"""Every study, trial and run in MLflow, without holding training up: a thread copies the journal there."""

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
from pydantic import JsonValue

from woundray.config.saved import read_saved_config
from woundray.errors import UserError
from woundray.tracking.address import tracking_uri, why_silent
from woundray.tracking.connection import check_tracking
from woundray.tracking.journal import JOURNAL_NAME, Event, Journal
from woundray.tracking.mlflow_runs import Runs
from woundray.tracking.run_context import DatasetFacts
from woundray.tracking.study_id import study_id

__all__ = ["DatasetFacts", "Runs", "Tracker", "catch_up", "check_tracking", "study_id", "tracking_uri", "versions"]

_POLL_S = 0.5
_LONGEST_PAUSE_S = 10.0
_AFTER_AN_ERROR_S = 60.0
_SOON_S = 2.0
_REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")  # what no second try mends

log = logging.getLogger(__name__)


class Tracker:
    """Copies a journal to MLflow while it is written. What MLflow did not take stays on disk for next time.

    Use as a context manager around the study. Making it creates database, experiment and parent run.

    Args:
        journal: the study's journal; files beside it say how far it has been copied, and which study it is.
        study: name of the study or single run.
        settings: every setting by dotted name.
        tags: of each run, e.g. versions and the data's hash.
        nested: trials become runs below one of the study; False for a single run.
        uri: address of MLflow; empty: see `tracking_uri`.
        dataset: what is told of the photographs.

    Raises:
        UserError: MLflow does not answer, or another process copies the journal.
    """

    def __init__(
        self,
        journal: Path,
        *,
        study: str,
        settings: dict[str, JsonValue],
        tags: dict[str, str],
        nested: bool = True,
        uri: str = "",
        dataset: DatasetFacts | None = None,
    ) -> None:
        self.uri = uri or tracking_uri()
        self._journal = Journal(journal)
        self._copied = journal.with_suffix(".copied")
        self._alone = _alone_at(journal)
        self._reached = _copied_of(journal, self.uri)
        identifier = study_id(journal.parent)
        try:
            self._runs = Runs(self.uri, study, identifier=identifier, nested=nested, tags=tags, dataset=dataset)
            self._runs.log_settings(settings)
        except BaseException:
            self._alone.release()
            raise
        self._runs.watch_machine()
        self._closing = threading.Event()
        self._patience_s = float("inf")
        self._answered = time.monotonic()
        self._thread = threading.Thread(target=self._copy, name="mlflow", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_most_s=None if error is None else _AFTER_AN_ERROR_S)

    def close(self, timeout_s: float = 60.0, *, at_most_s: float | None = None) -> int:
        """Waits until everything is copied, and returns how many events are left. Ctrl-C ends the wait.

        Args:
            timeout_s: without an answer of MLflow, which ends the wait; one that is slow is waited for.
            at_most_s: longest wait; None: as long as MLflow takes events.
        """
        self._answered, self._patience_s = time.monotonic(), timeout_s
        self._closing.set()
        try:
            self._thread.join(_SOON_S)
            if self._thread.is_alive():
                log.info("waiting for MLflow at %s; Ctrl-C leaves the rest to `sync`", self.uri)
            self._thread.join(at_most_s)
        except KeyboardInterrupt:
            log.debug("MLflow is not waited for")
        self._patience_s = 0.0
        self._runs.close()
        if not self._thread.is_alive():  # else its end, which is this process's, frees the journal
            self._alone.release()
        left = sum(1 for _ in self._journal.read(self._reached))
        if left:
            log.warning(
                "MLflow at %s did not take %d events; they are kept: `python -m woundray.sync %s` writes them",
                *(self.uri, left, shlex.quote(str(self._journal.path.parent))),
            )
        return left

    @property
    def registered(self) -> str:
        """Address of the model that was registered, `models:/NAME@ALIAS`; empty: none yet."""
        return self._runs.registered

    @property
    def page(self) -> str:
        """Address of the table of runs in a browser."""
        return self._runs.page

    def _copy(self) -> None:
        while True:
            last = self._closing.wait(_POLL_S)
            for event, offset in self._journal.read(self._reached):
                if not self._write(event):
                    return
                self._note(offset)
                self._answered = time.monotonic()
            if last:
                return

    def _note(self, offset: int) -> None:
        """Keeps how far the journal has been copied. An event that comes twice changes nothing in MLflow."""
        self._reached = offset
        beside = self._copied.with_suffix(".part")
        try:
            beside.write_text(f"{offset} {_place(self.uri)}", encoding="ascii")
            beside.replace(self._copied)
        except OSError as error:  # no room: the study itself says so
            log.debug("%s: %s", self._copied, error)

    def _write(self, event: Event) -> bool:
        """Tries until MLflow takes an event; False if patience ran out at closing."""
        from mlflow.exceptions import MlflowException

        pause_s = 0.5
        while time.monotonic() < self._answered + self._patience_s:
            try:
                if not why_silent(self.uri):  # seconds; a call would wait as long as a payload may take
                    self._runs.apply(event)
                    return True
            except (MlflowException, OSError) as error:
                if getattr(error, "error_code", "") in _REFUSED:
                    log.warning("MLflow refused an event of %s: %s", self._journal.path, error)
                    return True
                log.debug("MLflow at %s: %s", self.uri, error)  # no answer, or a busy database: again
            except Exception:  # one odd event must not keep the others from MLflow
                log.exception("an event of %s could not be written to MLflow", self._journal.path)
                return True
            self._closing.wait(pause_s)
            if self._closing.is_set():
                time.sleep(min(pause_s, 0.5))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return False


def catch_up(folder: Path, timeout_s: float = 60.0) -> tuple[int, int]:
    """Writes what MLflow has not got of a study or run that has ended: number of events written, and left.

    Raises:
        UserError: MLflow does not answer.
    """
    single = folder / "run" / "config.yaml"
    path = single if single.is_file() else folder / "config.yaml"
    config = read_saved_config(path)
    journal = Journal(folder / JOURNAL_NAME)
    behind = sum(1 for _ in journal.read(_copied_of(journal.path, tracking_uri())))
    if not behind:
        return 0, 0
    tags, facts = versions() | {"phase": config.phase}, folder / "precomputed" / "base_model_scores.json"
    if facts.is_file():  # a measurement has none
        tags["data"] = json.loads(facts.read_text(encoding="utf-8"))["key"]
    tracker = Tracker(
        journal.path,
        study=folder.name,
        settings=config.flat(),
        tags=tags,
        nested=path != single,
    )
    left = tracker.close(timeout_s)
    return behind - left, left


def _alone_at(journal: Path) -> FileLock:
    """The lock of who copies a journal: two would write everything twice. It goes with the process, however that ends.

    Raises:
        UserError: another one has it.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(journal.with_suffix(".copying"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{journal.parent}: another process copies it to MLflow; wait for its end") from None
    return lock


def _copied_of(journal: Path, uri: str) -> int:
    """Bytes of a journal that MLflow at an address has; 0 where that can't be told: an event may come twice."""
    copied = journal.with_suffix(".copied")
    if not copied.exists() or not journal.exists():
        return 0
    offset, _, place = copied.read_text(encoding="ascii").partition(" ")
    if not offset.isdecimal() or place not in ("", _place(uri)):  # of 0.1, or another server's or database's
        return 0
    with journal.open("rb") as file:  # it may have lost its end with the machine's power
        file.seek(max(0, int(offset) - 1))
        return int(offset) if file.read(1) == b"\n" else 0


def _place(uri: str) -> str:
    """Stands for an address, which may hold a password."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of what a run was computed with, as tags; packages that are not installed are left out."""
    found = {}
    for package in ("woundray", "torch", "ray", "diffusers", "peft"):
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return found
