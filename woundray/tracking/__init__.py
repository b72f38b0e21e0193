"""Every study, trial and run in MLflow, without holding training up: a thread copies the journal there."""

import json
import logging
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from woundray.config import Config
from woundray.config.layers import read_yaml
from woundray.tracking.events import JOURNAL_NAME, Event, Journal
from woundray.tracking.runs import Runs, check_tracking, tracking_uri
from woundray.tracking.surroundings import DatasetFacts

__all__ = ["DatasetFacts", "Runs", "Tracker", "catch_up", "check_tracking", "tracking_uri", "versions"]

_POLL_S = 0.5
_LONGEST_PAUSE_S = 10.0
_REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")  # what no second try mends

log = logging.getLogger(__name__)


class Tracker:
    """Copies a journal to MLflow while it is written. What MLflow did not take stays on disk for next time.

    Use as a context manager around the study. Making it creates database, experiment and parent run.

    Args:
        journal: the study's journal; a file beside it says how far it has been copied.
        study: name of the study or single run.
        settings: every setting by dotted name.
        tags: of each run, e.g. versions and the data's hash.
        nested: trials become runs below one of the study; False for a single run.
        uri: address of MLflow; empty: see `tracking_uri`.
        dataset: what is told of the photographs.

    Raises:
        UserError: MLflow does not answer.
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
        self._reached = _copied_of(journal)
        self._runs = Runs(self.uri, study, nested=nested, tags=tags, dataset=dataset)
        self._runs.log_settings(settings)
        self._runs.watch_machine()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._copy, name="mlflow", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, timeout_s: float = 60.0) -> int:
        """Waits until everything is copied, `timeout_s` at most, and returns how many events are left."""
        self._deadline = time.monotonic() + timeout_s
        self._closing.set()
        self._thread.join(timeout_s + _LONGEST_PAUSE_S)
        self._runs.close()
        left = sum(1 for _ in self._journal.read(self._reached))
        if left:
            log.warning(
                "MLflow at %s did not take %d events; they are kept: `python -m woundray.sync %s` writes them",
                *(self.uri, left, self._journal.path.parent),
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
            if last:
                return

    def _note(self, offset: int) -> None:
        """Keeps how far the journal has been copied. An event that comes twice changes nothing in MLflow."""
        self._reached = offset
        beside = self._copied.with_suffix(".part")
        try:
            beside.write_text(str(offset), encoding="ascii")
            beside.replace(self._copied)
        except OSError as error:  # no room: the study itself says so
            log.debug("%s: %s", self._copied, error)

    def _write(self, event: Event) -> bool:
        """Tries until MLflow takes an event; False if time ran out at closing."""
        from mlflow.exceptions import MlflowException

        pause_s = 0.5
        while time.monotonic() < self._deadline:
            try:
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
    config = Config.from_nested(read_yaml(path), source=str(path))
    journal = Journal(folder / JOURNAL_NAME)
    behind = sum(1 for _ in journal.read(_copied_of(journal.path)))
    if not behind:
        return 0, 0
    facts = json.loads((folder / "materials" / "baseline.json").read_text(encoding="utf-8"))
    tracker = Tracker(
        journal.path,
        study=folder.name,
        settings=config.flat(),
        tags=versions() | {"phase": config.phase, "data": facts["key"]},
        nested=path != single,
    )
    left = tracker.close(timeout_s)
    return behind - left, left


def _copied_of(journal: Path) -> int:
    """Bytes of a journal that MLflow has."""
    copied = journal.with_suffix(".copied")
    return int(copied.read_text(encoding="ascii")) if copied.exists() else 0


def versions() -> dict[str, str]:
    """Versions of what a run was computed with, as tags; packages that are not installed are left out."""
    found = {}
    for package in ("woundray", "torch", "ray", "diffusers", "peft"):
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return found
