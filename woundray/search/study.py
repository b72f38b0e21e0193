"""A study: Ray Tune runs trials, Optuna proposes their values, ASHA stops the poor ones."""

import signal
import warnings
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
from woundray.errors import Stopped, UserError
from woundray.search.conclusion import (
    Rescore,
    StudyResult,
    conclude,
    end_unfinished,
    how_to_go_on,
    journal_path,
)
from woundray.search.first_points import first_points
from woundray.search.interruption import Interruption
from woundray.search.progress import Follower, OnChange
from woundray.search.space import OPTUNA_FILE, Space, load_space
from woundray.search.trial import ERROR_FILE, Recorder, run_trial
from woundray.storage import lost_storage
from woundray.tracking.events import Journal, StudyEnded
from woundray.training.launch import Loop, runs_at_once, settle

_DRIVER = {"node:__internal_head__": 0.001}  # a trial's driver only waits: it takes no CPU, and stays on the head


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
            failure_config=tune.FailureConfig(max_failures=config.study.max_failures),
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

    One that was killed before its first trial began starts. Args and errors as `run_study`'s.
    """
    state = folder.absolute() / "ray" / "tune"
    if not tune.Tuner.can_restore(str(state)):
        (folder / OPTUNA_FILE).unlink(missing_ok=True)
        return run_study(
            config,
            materials=materials,
            folder=folder,
            loop=loop,
            resources=resources,
            on_change=on_change,
            rescore=rescore,
        )
    config = settle(config, resources)
    folder, materials = folder.absolute(), materials.absolute()
    for error in folder.glob(f"trials/*/{ERROR_FILE}"):
        error.unlink()
    tuner = tune.Tuner.restore(str(state), _trainable(config, loop, materials, folder), resume_errored=True)
    return _run(tuner, config, folder, on_change, rescore)


def _run(
    tuner: tune.Tuner, config: Config, folder: Path, on_change: OnChange | None, rescore: Rescore | None
) -> StudyResult:
    """Trials, then their conclusion, while a table of them is shown.

    Raises:
        Stopped: Ctrl-C; trials that ran have finished their epoch, or, after a second one, have not.
        UserError: the disk is full, read-only or gone; or as `conclude`.
    """
    journal = Journal(journal_path(folder))
    listeners = [on_change] if on_change else []
    interruption = Interruption(signal.SIGUSR1)  # which Tune takes as: save the study's state and return
    try:
        with interruption, Follower(journal, config, [interruption, *listeners]):
            tuner.fit()
            if interruption.asked:
                raise KeyboardInterrupt
        with Follower(journal, config, listeners):
            return conclude(config, folder, journal, rescore)
    except KeyboardInterrupt:
        end_unfinished(folder, journal, config)
        journal.append(StudyEnded(status="KILLED", best_trial=None, metrics={}))
        raise Stopped(how_to_go_on(folder, journal, config)) from None
    except (OSError, tune.TuneError) as error:
        lost = lost_storage(error, folder)
        if not lost:
            raise
        raise UserError(f"{lost}; finished epochs are kept: mend it, then `tune --resume {folder}`") from None


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
            points_to_evaluate=first_points(space, config),
            study_name=folder.name,
            storage=JournalStorage(JournalFileBackend(str(folder / OPTUNA_FILE))),
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
