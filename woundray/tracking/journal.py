"""Journal of a study on disk, one JSON line per event: nothing is lost if the process or MLflow dies."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from woundray.errors import UserError

JOURNAL_NAME = "events.jsonl"
"""File in the folder of a study or run."""

_CHUNK_BYTES = 2**16  # read at once, from the end, to find the last whole line


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Event(BaseModel):
    """Base of all events."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    time_ms: int = Field(default_factory=_now_ms)
    """Unix time, ms."""


class StudyStarted(_Event):
    """A study has started, with values that it keeps when it is resumed."""

    kind: Literal["study_started"] = "study_started"
    first_points: list[dict[str, JsonValue]]
    """Values of the first trials, by dotted name; the search proposes the others."""


class TrialStarted(_Event):
    """A trial has started; written again when the trial is resumed."""

    kind: Literal["trial_started"] = "trial_started"
    trial: str
    number: int
    """In the order of proposals, from 1."""
    values: dict[str, JsonValue]
    """Searched settings by dotted name."""
    settings: dict[str, JsonValue]
    """All settings by dotted name."""


class EpochReported(_Event):
    """A trial has finished an epoch."""

    kind: Literal["epoch"] = "epoch"
    trial: str
    epoch: int
    metrics: dict[str, float]
    checkpoint: Path
    """The epoch's folder."""


class FinalistScored(_Event):
    """New images of a finalist were generated, with new seeds, and scored."""

    kind: Literal["finalist"] = "finalist"
    trial: str
    pictures: int
    """Number of new images."""
    metrics: dict[str, float]


class TrialEnded(_Event):
    """A trial has ended."""

    kind: Literal["trial_ended"] = "trial_ended"
    trial: str
    status: Literal["FINISHED", "FAILED", "KILLED"]
    stopped_early: bool
    """The scheduler ended it before its last epoch."""
    output: Path
    """The trial's folder."""
    reason: str = ""
    """Reason that it failed, in one line."""
    permanent: bool = False
    """It diverged, and would fail in the same way again: a resumed study does not retry it."""


class StudyEnded(_Event):
    """All trials have ended."""

    kind: Literal["study_ended"] = "study_ended"
    status: Literal["FINISHED", "FAILED", "KILLED"]
    best_trial: str | None
    metrics: dict[str, float]
    """The best trial's metrics at its best epoch."""


class Refitted(_Event):
    """The best trial's settings were trained on all photographs."""

    kind: Literal["refitted"] = "refitted"
    checkpoint: Path


class ModelSaved(_Event):
    """The best trial's checkpoint was evaluated in full and saved as a model that can be served."""

    kind: Literal["model_saved"] = "model_saved"
    study: str
    trial: str
    name: str
    """Name of the registered model."""
    folder: Path
    """Folder of the saved model."""
    data: str
    """Hash of the photographs and of their split."""
    objective: str
    score: float
    missed: list[str]
    """Scores that miss a threshold, where real photographs hold it."""


class ReportWritten(_Event):
    """The study's report was written."""

    kind: Literal["report_written"] = "report_written"
    file: Path
    """Report for MLflow, without photographs of patients."""


class MeasurementStarted(_Event):
    """A measurement of the effect of synthetic images on a classifier has started; its folder is no study's."""

    kind: Literal["measurement_started"] = "measurement_started"


class ArmMeasured(_Event):
    """One arm of a measurement, classifiers trained in one way, has its scores."""

    kind: Literal["arm"] = "arm"
    name: str
    metrics: dict[str, float]


class MeasurementEnded(_Event):
    """A measurement of the effect of synthetic images on a classifier has ended."""

    kind: Literal["measurement_ended"] = "measurement_ended"
    metrics: dict[str, float]
    folder: Path
    """Folder of `result.json`, `result.md` and `result.html`."""


Event = (
    StudyStarted
    | TrialStarted
    | EpochReported
    | FinalistScored
    | TrialEnded
    | StudyEnded
    | Refitted
    | ModelSaved
    | ReportWritten
    | MeasurementStarted
    | ArmMeasured
    | MeasurementEnded
)
_EVENT_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


class Journal:
    """Events of a study or run, in the order in which they were written.

    Several processes can write and read at the same time. Paths below the journal's folder are written relative to it,
    so that the folder can be moved.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def append(self, event: Event) -> None:
        """Write one line to the disk; first remove an incomplete line of a writer that was killed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = _EVENT_ADAPTER.dump_json(_map_paths(event, self._relative)) + b"\n"
        with FileLock(self.path.with_suffix(".lock")), self.path.open("ab+") as file:
            file.truncate(_whole_lines_end(file))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())  # the machine may lose power, and the journal is the only record of a study

    def read(self, offset: int = 0) -> Iterator[tuple[Event, int]]:
        """Yield the events of whole lines from a byte offset on, each with the offset after it.

        Raises:
            UserError: a line is no event, as the file was changed by another program, or the disk is damaged.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                try:
                    event = _EVENT_ADAPTER.validate_json(line)
                except ValidationError:
                    raise UserError(
                        f"{self.path}: damaged after byte {offset}; put the file back from a copy, or begin a new study"
                    ) from None
                offset += len(line)
                yield _map_paths(event, self.path.parent.joinpath), offset

    def last_epoch(self, trial: str) -> int:
        """Return the last epoch that a trial reported; 0: none."""
        epochs = [event for event in self.events() if isinstance(event, EpochReported) and event.trial == trial]
        return max((event.epoch for event in epochs), default=0)

    def events(self) -> list[Event]:
        """Return all events so far."""
        return [event for event, _ in self.read()]

    def _relative(self, path: Path) -> Path:
        folder = self.path.parent
        return path.relative_to(folder) if path.is_relative_to(folder) else path


def _map_paths(event: Event, change: Callable[[Path], Path]) -> Event:
    """Return the event with a function applied to each of its paths."""
    return event.model_copy(update={name: change(value) for name, value in event if isinstance(value, Path)})


def _whole_lines_end(file: BinaryIO) -> int:
    """Return the offset of the end of a file's last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _CHUNK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
