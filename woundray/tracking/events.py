"""What happened in a study, one JSON line each, on disk: nothing is lost if the process or MLflow dies."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

JOURNAL_NAME = "events.jsonl"
"""In the folder of a study or run."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    time_ms: int = Field(default_factory=_now_ms)
    """Unix time, ms."""


class TrialStarted(_Event):
    """A trial was given its values; comes again if the trial is resumed."""

    kind: Literal["trial_started"] = "trial_started"
    trial: str
    number: int
    """Trials count from 1 in the order in which they were proposed."""
    values: dict[str, JsonValue]
    """The searched settings by dotted name."""
    settings: dict[str, JsonValue]
    """Every setting by dotted name."""


class EpochReported(_Event):
    """A trial finished an epoch."""

    kind: Literal["epoch"] = "epoch"
    trial: str
    epoch: int
    metrics: dict[str, float]
    checkpoint: Path
    """The epoch's folder."""


class FinalistScored(_Event):
    """A finalist's pictures were drawn and scored again, with new seeds."""

    kind: Literal["finalist"] = "finalist"
    trial: str
    pictures: int
    """How many were drawn."""
    metrics: dict[str, float]


class TrialEnded(_Event):
    """A trial will not go on."""

    kind: Literal["trial_ended"] = "trial_ended"
    trial: str
    status: Literal["FINISHED", "FAILED", "KILLED"]
    stopped_early: bool
    """The scheduler ended it before its last epoch."""
    output: Path
    """The trial's folder."""


class StudyEnded(_Event):
    """All trials have ended."""

    kind: Literal["study_ended"] = "study_ended"
    status: Literal["FINISHED", "FAILED", "KILLED"]
    best_trial: str | None
    metrics: dict[str, float]
    """The best trial's metrics at its best epoch."""


class Refitted(_Event):
    """The winner's settings were trained on all photographs."""

    kind: Literal["refitted"] = "refitted"
    checkpoint: Path


class ModelSaved(_Event):
    """The best trial's checkpoint was judged in full and saved as a model that can be served."""

    kind: Literal["model_saved"] = "model_saved"
    study: str
    trial: str
    name: str
    """Of the registered model."""
    folder: Path
    """Of the saved model."""
    data: str
    """Hash of the photographs and of how they were split."""
    objective: str
    score: float
    missed: list[str]
    """Scores that miss a bar which real photographs hold."""


class ReportWritten(_Event):
    """The study's report was written."""

    kind: Literal["report_written"] = "report_written"
    file: Path
    """What MLflow gets: without photographs of patients."""


Event = TrialStarted | EpochReported | FinalistScored | TrialEnded | StudyEnded | Refitted | ModelSaved | ReportWritten
_LINE: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


class Journal:
    """The events of a study or run in the order they happened. One process writes, any number read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: Event) -> None:
        """Writes one line. What a killed writer left of a line is taken off first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            file.write(_LINE.dump_json(event) + b"\n")

    def read(self, offset: int = 0) -> Iterator[tuple[Event, int]]:
        """Whole lines from a byte offset on, each with the offset after it."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield _LINE.validate_json(line), offset

    def last_epoch(self, trial: str) -> int:
        """The last epoch that a trial reported; 0: none."""
        epochs = [event for event in self.events() if isinstance(event, EpochReported) and event.trial == trial]
        return max((event.epoch for event in epochs), default=0)

    def events(self) -> list[Event]:
        """Every event so far."""
        return [event for event, _ in self.read()]
