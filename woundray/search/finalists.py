"""What a study comes to: finalists are scored again, one trial is elected, the journal is closed."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from woundray.config import Config
from woundray.errors import NonFiniteError, UserError
from woundray.ray_cluster.torch_trainer import RunFailed
from woundray.results.trials import TrialSummary, best_trial, finalists, ranked, summarise
from woundray.search.trial import trial_folder
from woundray.tracking.journal import Event, FinalistScored, Journal, StudyEnded, TrialEnded

Rescore = Callable[[Path], tuple[int, dict[str, float]]]  # checkpoint -> number and metrics of its new pictures


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Attributes:
        folder: the study's folder.
        best: the trial that won (see `woundray.results.trials.best_trial`).
        config: the configuration of that trial.
        trials: all trials by number.
    """

    folder: Path
    best: TrialSummary
    config: Config
    trials: tuple[TrialSummary, ...]

    @property
    def checkpoint(self) -> Path:
        """The best trial's folder of its best epoch."""
        assert self.best.checkpoint is not None
        return self.best.checkpoint

    @property
    def grid(self) -> Path:
        """The picture grid of that epoch."""
        return self.checkpoint / "grid.png"


def how_to_go_on(folder: Path, journal: Journal, config: Config) -> str:
    """What an interrupted study has, and the command that goes on with it."""
    trials = summarise(journal.events(), config.metrics.objective)
    ended = sum(trial.status in ("finished", "failed") for trial in trials)
    best = next(iter(ranked(trials)), None)  # by their epochs: finalists may be those of a shorter study
    so_far = f", the best so far in {best.checkpoint}" if best else ""
    return (
        f"stopped: {ended} of {config.study.trials} trials have ended{so_far}; "
        f"go on with: python -m woundray.tune --resume {shlex.quote(str(folder))}"
    )


def conclude(config: Config, folder: Path, journal: Journal, rescore: Rescore | None = None) -> StudyResult:
    """Ends what did not end by itself, scores the finalists again, and finds the best trial.

    Raises:
        UserError: no trial came to a score; names the last error and where all of it is.
    """
    objective = config.metrics.objective
    end_unfinished(folder, journal, config)
    trials = summarise(journal.events(), objective)
    while rescore is not None:
        waiting = [trial for trial in finalists(trials, config.study.finalists) if not trial.final]
        if not waiting:
            break
        _score_again(waiting[0], folder, journal, rescore)
        trials = summarise(journal.events(), objective)
    best = best_trial(trials, objective)
    if best is None:
        journal.append(StudyEnded(status="FAILED", best_trial=None, metrics={}))
        raise UserError(_why_none(folder, trials))
    killed = any(trial.status == "killed" for trial in trials)
    metrics = dict(best.metrics or {}) | {f"final.{name}": value for name, value in (best.final or {}).items()}
    ended = StudyEnded(status="KILLED" if killed else "FINISHED", best_trial=best.id, metrics=metrics)
    if not _says_the_same(journal.events()[-1], ended):  # one that had ended, and was resumed
        journal.append(ended)
    return StudyResult(folder, best, config.with_values(dict(best.values)), trials)


def _score_again(trial: TrialSummary, folder: Path, journal: Journal, rescore: Rescore) -> None:
    """Writes down what a finalist's new pictures score; one that diverges has failed, and the next takes its place."""
    assert trial.checkpoint is not None
    try:
        pictures, metrics = rescore(trial.checkpoint)
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


def end_unfinished(folder: Path, journal: Journal, config: Config) -> None:
    """Writes down that trials which still run will not go on."""
    for trial in summarise(journal.events(), config.metrics.objective):
        if trial.status == "running":
            output = trial_folder(folder, trial.id)
            journal.append(TrialEnded(trial=trial.id, status="KILLED", stopped_early=False, output=output))


def _says_the_same(last: Event, ended: StudyEnded) -> bool:
    return last.model_copy(update={"time_ms": ended.time_ms}) == ended


def _why_none(folder: Path, trials: tuple[TrialSummary, ...]) -> str:
    """Why a study has no best trial, with the last error and where it is."""
    if any(trial.copies for trial in trials):
        lines = "; ".join(f"trial {trial.number}: {trial.copies}" for trial in trials if trial.copies)
        return f"{lines}; none can win: lower training.epochs or lora.rank; all are in {folder / 'trials'}"
    for trial in reversed(trials):
        if trial.reason:
            return f"every trial failed; the last with `{trial.reason}`: see {trial_folder(folder, trial.id)}"
    return f"no trial finished an epoch; see {folder / 'ray'}"
