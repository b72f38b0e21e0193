"""A study: Ray Tune runs trials, Optuna proposes their values, ASHA stops the poor ones."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from woundray.cluster import Resources
from woundray.config import Config
from woundray.errors import UserError
from woundray.search.progress import Follower, OnChange
from woundray.search.space import Space, load_space
from woundray.search.summary import TrialSummary, best_trial, ranked, summarise
from woundray.search.trial import ERROR_FILE, Recorder, last_line, run_trial, trial_folder
from woundray.tracking.events import FinalistScored, Journal, StudyEnded, TrialEnded
from woundray.training.launch import Loop, runs_at_once, settle

_DRIVER = {"node:__internal_head__": 0.001}  # a trial's driver only waits: it takes no CPU, and stays on the head
_DRIVER_RETRIES = 1

Rescore = Callable[[Path], tuple[int, dict[str, float]]]  # checkpoint -> number and metrics of its new pictures


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Attributes:
        folder: the study's folder.
        best: the trial that won (see `woundray.search.summary.best_trial`).
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


class BestEpochSearch(OptunaSearch):
    """Optuna's search where a trial's score is its lowest, and not its last."""

    def __init__(self, *, objective: str, **settings: Any) -> None:
        self._lowest: dict[str, float] = {}
        super().__init__(metric=objective, mode="min", **settings)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keeps the score; Optuna's pruners are not used, so it need not know."""
        score = float(result[self.metric])
        self._lowest[trial_id] = min(score, self._lowest.get(trial_id, score))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna the lowest score; a trial that failed is told as failed."""
        if result and not error:
            self.on_trial_result(trial_id, result)
            result = {**result, self.metric: self._lowest[trial_id]}
        super().on_trial_complete(trial_id, None if error else result, error)


def run_study(
    config: Config,
    *,
    materials: Path,
    folder: Path,
    loop: Loop,
    resources: Resources,
    on_change: OnChange | None = None,
    rescore: Rescore | None = None,
) -> StudyResult:
    """Runs a study on the connected cluster.

    Args:
        config: what the trials vary, with `study.space` and the study's other settings.
        materials: folder of what all trials share.
        folder: the study's folder; its journal is `events.jsonl`.
        loop: the training loop.
        resources: of the cluster.
        on_change: is called in a thread with all trials so far after each event.
        rescore: draws and scores new pictures of a finalist; None: trials are ordered by their epochs' pictures.

    Raises:
        UserError: the space or the resources do not fit, or no trial came to a score.
    """
    config = settle(config, resources)
    space = load_space(config.study.space, config)
    folder, materials = folder.absolute(), materials.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    tuner = tune.Tuner(
        _trainable(config, loop, materials, folder),
        tune_config=tune.TuneConfig(
            metric=config.metrics.objective,
            mode="min",
            search_alg=_search(config, space, folder),
            scheduler=_scheduler(config),
            num_samples=config.study.trials,
            max_concurrent_trials=config.study.concurrent or runs_at_once(config, resources),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / "ray"),
            failure_config=tune.FailureConfig(max_failures=_DRIVER_RETRIES),
            callbacks=[Recorder(folder, journal_path(folder), config)],
            verbose=0,
        ),
    )
    return _run(tuner, config, folder, on_change, rescore)


def resume_study(
    config: Config,
    *,
    materials: Path,
    folder: Path,
    loop: Loop,
    resources: Resources,
    on_change: OnChange | None = None,
    rescore: Rescore | None = None,
) -> StudyResult:
    """Goes on with a study that was killed: finished trials stay, others resume, failed ones are tried again.

    Args and errors as `run_study`'s.
    """
    config = settle(config, resources)
    folder, materials = folder.absolute(), materials.absolute()
    state = folder / "ray" / "tune"
    if not tune.Tuner.can_restore(str(state)):
        raise UserError(f"{folder}: not a study that can be resumed: {state} holds none")
    for error in folder.glob(f"trials/*/{ERROR_FILE}"):
        error.unlink()
    tuner = tune.Tuner.restore(str(state), _trainable(config, loop, materials, folder), resume_errored=True)
    return _run(tuner, config, folder, on_change, rescore)


def _run(
    tuner: tune.Tuner, config: Config, folder: Path, on_change: OnChange | None, rescore: Rescore | None
) -> StudyResult:
    journal = Journal(journal_path(folder))
    with Follower(journal, config, on_change):
        tuner.fit()
        return conclude(config, folder, journal, rescore)


def journal_path(folder: Path) -> Path:
    """The journal of a study's folder."""
    return folder / "events.jsonl"


def _trainable(config: Config, loop: Loop, materials: Path, folder: Path) -> Any:
    driver = partial(run_trial, base=config, loop=loop, materials=materials, study=folder)
    return tune.with_resources(driver, _DRIVER)


def _search(config: Config, space: Space, folder: Path) -> BestEpochSearch:
    """Multivariate TPE (Bergstra et al. 2011; Falkner et al. 2018); the configuration itself comes first."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=config.reproducibility.seed,
            n_startup_trials=config.study.startup_trials,
            multivariate=True,
            group=True,  # settings with a condition are not in every trial
            constant_liar=True,  # trials that still run keep others from the same place
        )
        return BestEpochSearch(
            objective=config.metrics.objective,
            space=space,
            sampler=sampler,
            points_to_evaluate=[space.nearest_to(config)],
            study_name=folder.name,
            storage=JournalStorage(JournalFileBackend(str(folder / "optuna.journal"))),
        )


def _scheduler(config: Config) -> ASHAScheduler:
    """Asynchronous successive halving (Li et al. 2020); epochs keep counting when a trial is resumed."""
    epochs = config.training.epochs
    return ASHAScheduler(
        time_attr="epoch",
        max_t=epochs,
        grace_period=min(config.study.grace_epochs, epochs),
        reduction_factor=config.study.reduction_factor,
    )


def conclude(config: Config, folder: Path, journal: Journal, rescore: Rescore | None = None) -> StudyResult:
    """Ends what did not end by itself, scores the finalists again, and finds the best trial.

    Raises:
        UserError: no trial came to a score; names the last error and where all of it is.
    """
    objective = config.metrics.objective
    for trial in summarise(journal.events(), objective):
        if trial.status == "running":
            journal.append(
                TrialEnded(
                    trial=trial.id,
                    status="KILLED",
                    stopped_early=False,
                    output=trial_folder(folder, trial.id),
                )
            )
    trials = summarise(journal.events(), objective)
    if rescore is not None:
        for trial in ranked(trials)[: config.study.finalists]:
            assert trial.checkpoint is not None
            pictures, metrics = rescore(trial.checkpoint)
            journal.append(FinalistScored(trial=trial.id, pictures=pictures, metrics=metrics))
        trials = summarise(journal.events(), objective)
    best = best_trial(trials, objective)
    if best is None:
        journal.append(StudyEnded(status="FAILED", best_trial=None, metrics={}))
        raise UserError(_why_none(folder, trials))
    killed = any(trial.status == "killed" for trial in trials)
    metrics = dict(best.metrics or {}) | {f"final.{name}": value for name, value in (best.final or {}).items()}
    journal.append(StudyEnded(status="KILLED" if killed else "FINISHED", best_trial=best.id, metrics=metrics))
    return StudyResult(folder, best, config.with_values(dict(best.values)), trials)


def _why_none(folder: Path, trials: tuple[TrialSummary, ...]) -> str:
    """Why a study has no best trial, with the last error and where it is."""
    if any(trial.copies for trial in trials):
        lines = "; ".join(f"trial {trial.number}: {trial.copies}" for trial in trials if trial.copies)
        return f"{lines}; none can win: lower training.epochs or lora.rank; all are in {folder / 'trials'}"
    for trial in reversed(trials):
        log = trial_folder(folder, trial.id) / ERROR_FILE
        if log.exists():
            return f"every trial failed; the last with `{last_line(log)}`: see {log}"
    return f"no trial finished an epoch; see {folder / 'ray'}"
