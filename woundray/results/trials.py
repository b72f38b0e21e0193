"""What a study came to, read from its journal."""

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
    """One trial so far.

    Attributes:
        id: its name, and that of its folder.
        number: its place in the order in which they were proposed, from 1; the configuration itself is first.
        values: its searched settings by dotted name.
        epochs: the last epoch that it finished; 0: none.
        best_epoch: the earliest epoch within one sd of the lowest objective, of those that do not copy; 0: none.
        metrics: the metrics of that epoch.
        checkpoint: the folder of that epoch.
        last_score: the objective at the last epoch.
        stopped_early: ASHA ended it.
        reason: why it failed, in one line.
        permanent: it diverged, and would fail in the same way again.
        final: the metrics of its new pictures, where it was a finalist.
        reports: every epoch so far.
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
        """Whether it goes on when the study is resumed."""
        return self.status in ("running", "killed") or (self.status == "failed" and not self.permanent)

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of its epochs, each with `epoch`."""
        return [{**report.metrics, "epoch": float(report.epoch)} for report in self.reports]

    @property
    def copies(self) -> str:
        """Why its pictures count as copies of training photographs; empty: they do not."""
        flagged = next((metrics for metrics in (self.final, self.metrics) if metrics and copies(metrics)), None)
        if flagged is None:
            return ""
        return (
            f"{flagged['copy_rate']:.0%} of its pictures look like copies of training photographs, "
            f"{flagged['copy_rate_held_out']:.0%} of unseen photographs do"
        )

    def score(self, objective: str) -> float | None:
        """The score that counts: of a finalist's new pictures, else of its best epoch. Only finalists compare by it.

        None: it has not finished an epoch.
        """
        return self.final[objective] if self.final else self.best_score

    def with_event(self, event: EpochReported | FinalistScored | TrialEnded, objective: str) -> "TrialResult":
        """The trial after one more event."""
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
    """The trials of a study after one more event, by id.

    A trial that is resumed goes on from what it had.
    """
    if isinstance(event, TrialStarted):
        begun = trials.get(event.trial, TrialResult(event.trial, event.number, "running", event.values))
        return trials | {event.trial: replace(begun, status="running", stopped_early=False, reason="", permanent=False)}
    if isinstance(event, EpochReported | FinalistScored | TrialEnded):
        return trials | {event.trial: trials[event.trial].with_event(event, objective)}
    return trials


def read_trials(events: Iterable[Event], objective: str) -> tuple[TrialResult, ...]:
    """All trials of a journal by number."""
    trials: dict[str, TrialResult] = {}
    for event in events:
        trials = apply_event(trials, event, objective)
    return by_number(trials)


def by_number(trials: dict[str, TrialResult]) -> tuple[TrialResult, ...]:
    """The trials in the order in which they were proposed."""
    return tuple(sorted(trials.values(), key=lambda trial: trial.number))


def best_trial(trials: Iterable[TrialResult], objective: str) -> TrialResult | None:
    """The trial that leads: of the finalists that were scored again, else of all (see `ranked`)."""
    eligible = ranked(trials)
    finalists = [trial for trial in eligible if trial.final]
    return min(finalists or eligible, key=lambda trial: _score(trial.score(objective)), default=None)


def ranked(trials: Iterable[TrialResult]) -> list[TrialResult]:
    """Trials that can win, the lowest objective first, the first of equals.

    One that failed can not, and none whose pictures copy training photographs.
    """
    eligible = [t for t in trials if t.best_score is not None and t.status != "failed" and not t.copies]
    return sorted(eligible, key=lambda trial: _score(trial.best_score))


def finalists(trials: Iterable[TrialResult], count: int) -> list[TrialResult]:
    """Trials whose pictures are drawn again: the best by their epochs, of a longer study others, too.

    One that was found to copy only then stays one of them.
    """
    eligible = [t for t in trials if t.best_score is not None and t.status != "failed" and not copies(t.metrics or {})]
    return sorted(eligible, key=lambda trial: _score(trial.best_score))[:count]


def _score(score: float | None) -> float:
    assert score is not None
    return score
