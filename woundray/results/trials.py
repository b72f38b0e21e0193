"""Results of trials, read from a study's journal."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from woundray.evaluation.checkpoint_selection import best_epoch, copies
from woundray.tracking.journal import EpochReported, Event, FinalistScored, TrialEnded, TrialStarted

Status = Literal["running", "finished", "failed", "killed"]


@dataclass(frozen=True)
class TrialResult:
    """Result of one trial so far.

    Attributes:
        id: name of the trial and of its folder.
        number: number in the order of proposals, from 1; the first is the study's own configuration.
        status: running, finished, failed or killed.
        values: searched settings by dotted name.
        epochs: last epoch that was finished; 0: none.
        best_epoch: earliest epoch within one sd of the lowest objective, of those without copies; 0: none.
        best_score: objective at the best epoch.
        last_score: objective at the last epoch.
        metrics: metrics of the best epoch.
        checkpoint: folder of the best epoch.
        stopped_early: ASHA ended the trial.
        reason: reason of a failure, in one line.
        permanent: the trial diverged, and would fail in the same way again.
        final: metrics of the new images of a finalist; None: it was no finalist.
        reports: all epochs so far.
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
    reason: str = ""
    permanent: bool = False
    final: dict[str, float] | None = None
    reports: tuple[EpochReported, ...] = ()

    @property
    def unfinished(self) -> bool:
        """Whether the trial continues when the study is resumed."""
        return self.status in ("running", "killed") or (self.status == "failed" and not self.permanent)

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of all epochs, each with the key `epoch`."""
        return [{**report.metrics, "epoch": float(report.epoch)} for report in self.reports]

    @property
    def copies(self) -> str:
        """Reason that its images count as copies of training photographs; empty: they do not."""
        flagged = next((metrics for metrics in (self.final, self.metrics) if metrics and copies(metrics)), None)
        if flagged is None:
            return ""
        return (
            f"{flagged['copy_rate']:.0%} of its pictures look like copies of training photographs, "
            f"{flagged['copy_rate_held_out']:.0%} of unseen photographs do"
        )

    def score(self, objective: str) -> float | None:
        """Return the score of a finalist's new images, else of the best epoch; None: no epoch was finished.

        Scores of finalists and of other trials can not be compared with each other.
        """
        return self.final[objective] if self.final else self.best_score

    def with_event(self, event: EpochReported | FinalistScored | TrialEnded, objective: str) -> "TrialResult":
        """Return the trial after one more event."""
        if isinstance(event, TrialEnded):
            status: dict[str, Status] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed"}
            return replace(
                self,
                status=status[event.status],
                stopped_early=event.stopped_early,
                reason=event.reason,
                permanent=event.permanent,
            )
        if isinstance(event, FinalistScored):
            return replace(self, final=event.metrics)
        reports = (*self.reports, event)
        latest = replace(self, reports=reports)
        epoch = best_epoch(latest.history, objective)
        best = next(report for report in reports if report.epoch == epoch)
        return replace(
            latest,
            epochs=event.epoch,
            last_score=event.metrics[objective],
            best_epoch=best.epoch,
            best_score=best.metrics[objective],
            metrics=best.metrics,
            checkpoint=best.checkpoint,
        )


def apply_event(trials: dict[str, TrialResult], event: Event, objective: str) -> dict[str, TrialResult]:
    """Return the trials of a study by id, after one more event. A resumed trial keeps its earlier epochs."""
    if isinstance(event, TrialStarted):
        trial = trials.get(event.trial, TrialResult(event.trial, event.number, "running", event.values))
        return trials | {event.trial: replace(trial, status="running", stopped_early=False, reason="", permanent=False)}
    if isinstance(event, EpochReported | FinalistScored | TrialEnded):
        return trials | {event.trial: trials[event.trial].with_event(event, objective)}
    return trials


def read_trials(events: Iterable[Event], objective: str) -> tuple[TrialResult, ...]:
    """Return all trials of a journal by number."""
    trials: dict[str, TrialResult] = {}
    for event in events:
        trials = apply_event(trials, event, objective)
    return by_number(trials)


def by_number(trials: dict[str, TrialResult]) -> tuple[TrialResult, ...]:
    """Return the trials in the order of their numbers."""
    return tuple(sorted(trials.values(), key=lambda trial: trial.number))


def best_trial(trials: Iterable[TrialResult], objective: str) -> TrialResult | None:
    """Return the best finalist, or without finalists the best of all trials (see `ranked`); None: there is none."""
    eligible = ranked(trials)
    finalists = [trial for trial in eligible if trial.final]
    return min(finalists or eligible, key=lambda trial: _score(trial.score(objective)), default=None)


def ranked(trials: Iterable[TrialResult]) -> list[TrialResult]:
    """Return the trials that can win by their best epochs, the lowest objective first; equal ones by number.

    Failed trials can not win, nor those whose images copy training photographs.
    """
    eligible = [t for t in trials if t.best_score is not None and t.status != "failed" and not t.copies]
    return sorted(eligible, key=lambda trial: _score(trial.best_score))


def finalists(trials: Iterable[TrialResult], count: int) -> list[TrialResult]:
    """Return the trials to score on new images: the best by their epochs, so far.

    A finalist stays one even if its new images turn out to be copies.
    """
    eligible = [t for t in trials if t.best_score is not None and t.status != "failed" and not copies(t.metrics or {})]
    return sorted(eligible, key=lambda trial: _score(trial.best_score))[:count]


def _score(score: float | None) -> float:
    assert score is not None
    return score
