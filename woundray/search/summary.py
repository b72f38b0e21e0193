"""What a study came to, read from its journal."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from woundray.tracking.events import EpochReported, Event, TrialEnded, TrialStarted

Status = Literal["running", "finished", "failed", "killed"]


@dataclass(frozen=True)
class TrialSummary:
    """One trial so far.

    Attributes:
        id: Ray Tune's name of it, and of its folder.
        number: its place in the order in which they were proposed, from 1; the configuration itself is first.
        values: its searched settings by dotted name.
        epochs: the last epoch that it finished; 0: none.
        best_epoch: the epoch of the lowest objective, the first of equals; 0: none.
        metrics: the metrics of that epoch.
        checkpoint: the folder of that epoch.
        last_score: the objective at the last epoch.
        stopped_early: ASHA ended it.
    """

    id: str
    number: int
    status: Status
    values: dict[str, JsonValue]
    epochs: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    last_score: float | None = None
    metrics: dict[str, float] | None = None
    checkpoint: Path | None = None
    stopped_early: bool = False

    def after(self, event: EpochReported | TrialEnded, objective: str) -> "TrialSummary":
        """The trial after one more event."""
        if isinstance(event, TrialEnded):
            status: dict[str, Status] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed"}
            return replace(self, status=status[event.status], stopped_early=event.stopped_early)
        score = event.metrics[objective]
        later = replace(self, epochs=event.epoch, last_score=score)
        if self.best_score is not None and score >= self.best_score:
            return later
        return replace(
            later,
            best_epoch=event.epoch,
            best_score=score,
            metrics=event.metrics,
            checkpoint=event.checkpoint,
        )


def update(trials: dict[str, TrialSummary], event: Event, objective: str) -> dict[str, TrialSummary]:
    """The trials of a study after one more event, by id.

    A trial that is resumed goes on from what it had.
    """
    if isinstance(event, TrialStarted):
        begun = trials.get(event.trial, TrialSummary(event.trial, event.number, "running", event.values))
        return trials | {event.trial: replace(begun, status="running", stopped_early=False)}
    if isinstance(event, EpochReported | TrialEnded):
        return trials | {event.trial: trials[event.trial].after(event, objective)}
    return trials


def summarise(events: Iterable[Event], objective: str) -> tuple[TrialSummary, ...]:
    """All trials of a journal by number."""
    trials: dict[str, TrialSummary] = {}
    for event in events:
        trials = update(trials, event, objective)
    return by_number(trials)


def by_number(trials: dict[str, TrialSummary]) -> tuple[TrialSummary, ...]:
    """The trials in the order in which they were proposed."""
    return tuple(sorted(trials.values(), key=lambda trial: trial.number))


def best_trial(trials: Iterable[TrialSummary]) -> TrialSummary | None:
    """The trial with the lowest objective, the first of equals; one that failed can not win."""
    scored = [trial for trial in trials if trial.best_score is not None and trial.status != "failed"]
    return min(scored, key=lambda trial: trial.best_score or 0.0, default=None)
