"""End of a search: finalists are scored on new images, the best trial is elected, the journal is closed."""

from collections.abc import Callable
from pathlib import Path

from woundray.config import Config
from woundray.errors import NonFiniteError, UserError
from woundray.ray_cluster.torch_trainer import RunFailed
from woundray.results.study import StudyResults
from woundray.results.trials import TrialResult, finalists
from woundray.search.resume import mark_unfinished_as_killed
from woundray.search.study_folders import journal_path
from woundray.search.trial import trial_folder
from woundray.tracking.journal import Event, FinalistScored, Journal, StudyEnded, TrialEnded

ScoreFinalist = Callable[[Path], tuple[int, dict[str, float]]]
"""Checkpoint -> number of its new images, and their scores."""


def elect_best_trial(config: Config, folder: Path, score_finalist: ScoreFinalist | None = None) -> StudyResults:
    """End unfinished trials, score the finalists again, and elect the best trial.

    Args:
        config: configuration of the study.
        folder: folder of the study.
        score_finalist: generates and scores new images; None: trials are ranked by the images of their epochs.

    Raises:
        UserError: no trial has a score; the message has the last error and its file.
    """
    journal = Journal(journal_path(folder))
    mark_unfinished_as_killed(folder, config)
    results = StudyResults.of(folder, config)
    while score_finalist is not None:
        waiting = [trial for trial in finalists(results.trials, config.study.finalists) if not trial.final]
        if not waiting:
            break
        _score_finalist(waiting[0], folder, score_finalist)
        results = StudyResults.of(folder, config)
    if results.best is None:
        journal.append(StudyEnded(status="FAILED", best_trial=None, metrics={}))
        raise UserError(_reason_for_no_best_trial(results))
    killed = any(trial.status == "killed" for trial in results.trials)
    best = results.best
    metrics = dict(best.metrics or {}) | {f"final.{name}": value for name, value in (best.final or {}).items()}
    ended = StudyEnded(status="KILLED" if killed else "FINISHED", best_trial=best.id, metrics=metrics)
    if not _equal_except_time(journal.events()[-1], ended):  # a study that had ended, and was resumed
        journal.append(ended)
    return results


def _score_finalist(trial: TrialResult, folder: Path, score_finalist: ScoreFinalist) -> None:
    """Write a finalist's new scores to the journal. One that diverges has failed, and the next takes its place."""
    assert trial.checkpoint is not None
    journal = Journal(journal_path(folder))
    try:
        pictures, metrics = score_finalist(trial.checkpoint)
    except (NonFiniteError, RunFailed) as error:
        journal.append(
            TrialEnded(
                trial=trial.id,
                status="FAILED",
                stopped_early=trial.stopped_early,
                output=trial_folder(folder, trial.id),
                reason=f"as a finalist: {error}",
                permanent=not isinstance(error, RunFailed) or error.permanent,
            )
        )
    else:
        journal.append(FinalistScored(trial=trial.id, pictures=pictures, metrics=metrics))


def _equal_except_time(last: Event, ended: StudyEnded) -> bool:
    return last.model_copy(update={"time_ms": ended.time_ms}) == ended


def _reason_for_no_best_trial(results: StudyResults) -> str:
    """Return why a study has no best trial, with the last error and its file."""
    folder = results.folder
    if any(trial.copies for trial in results.trials):
        lines = "; ".join(f"trial {trial.number}: {trial.copies}" for trial in results.trials if trial.copies)
        return f"{lines}; none can win: lower training.epochs or lora.rank; all are in {folder / 'trials'}"
    for trial in reversed(results.trials):
        if trial.reason:
            return f"every trial failed; the last with `{trial.reason}`: see {trial_folder(folder, trial.id)}"
    return f"no trial finished an epoch; see {folder / 'ray'}"
