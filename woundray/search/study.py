"""A study: Ray Tune runs trials, Optuna proposes their values, ASHA stops the poor ones.

Everything that a study has come to is in its journal. A study that is resumed is a new one of Ray Tune, whose search
and scheduler are told what the journal says; nothing of Ray's or Optuna's own files is read.
"""

import logging
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError

from woundray.config import Config
from woundray.errors import Stopped, UserError
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.torch_trainer import error_line, resolve_gpus, runs_at_once
from woundray.results.trials import TrialSummary, summarise
from woundray.search.asha import ResumableASHA
from woundray.search.finalists import Rescore, StudyResult, conclude, end_unfinished, how_to_go_on
from woundray.search.initial_points import first_points
from woundray.search.interruption import Interruption
from woundray.search.optuna_search import ResumableSearch
from woundray.search.progress import JournalFollower, OnChange
from woundray.search.search_space import Space, load_space
from woundray.search.study_folders import journal_path
from woundray.search.trial import ERROR_FILE, JournalRecorder, named_trials, run_trial, trial_folder
from woundray.system.atomic_files import atomic_path
from woundray.system.storage import storage_loss
from woundray.tracking.journal import Journal, StudyEnded, StudyStarted
from woundray.training.checkpoint import newest_checkpoint, read_progress
from woundray.training.entry_point import Loop

SPACE_FILE = "space.yaml"
"""In a study's folder: its search space, whatever becomes of the file that it was read from."""

log = logging.getLogger(__name__)

_DRIVER = {"node:__internal_head__": 0.001}  # a trial's driver only waits: it takes no CPU, and stays on the head
_FOR_RAY = "ray"  # what Ray writes while a study runs, and nobody reads afterwards


def run_study(
    config: Config,
    *,
    precomputed: Path,
    folder: Path,
    loop: Loop,
    resources: Resources,
    on_change: OnChange | None = None,
    rescore: Rescore | None = None,
) -> StudyResult:
    """Runs a study on the connected cluster, or the rest of one that was stopped or killed.

    Finished trials stay, and so do those that would fail again; others go on from their last epoch.

    Args:
        config: what the trials vary, with `study.space` and the study's other settings.
        precomputed: folder of what all trials share.
        folder: the study's folder; its journal is `events.jsonl`.
        loop: the training loop.
        resources: of the cluster.
        on_change: is called in a thread with all trials so far after each event.
        rescore: draws and scores new pictures of a finalist; None: trials are ordered by their epochs' pictures.

    Raises:
        UserError: the space or the resources do not fit, journal and checkpoints disagree, or no trial came to a score.
    """
    config = resolve_gpus(config, resources)
    folder, precomputed = folder.absolute(), precomputed.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(journal_path(folder))
    end_unfinished(folder, journal, config)  # by a kill: they run again when there is a place for them
    trials = summarise(journal.events(), config.metrics.objective)
    check_checkpoints(folder, trials)
    space = own_space(config, folder)
    points = _first_points(journal, space, config)
    shutil.rmtree(folder / _FOR_RAY, ignore_errors=True)
    for trial in trials:
        if trial.unfinished:  # a failed one is tried again
            (trial_folder(folder, trial.id) / ERROR_FILE).unlink(missing_ok=True)

    left = config.study.trials - sum(not trial.unfinished for trial in trials)
    tuner = None
    if left > 0:
        driver = partial(run_trial, base=config, loop=loop, precomputed=precomputed, study=folder)
        tuner = tune.Tuner(
            named_trials(tune.with_resources(driver, _DRIVER)),
            tune_config=tune.TuneConfig(
                search_alg=ResumableSearch(config, space, points, folder, trials),
                scheduler=ResumableASHA(config, trials),
                num_samples=left,
                max_concurrent_trials=config.study.concurrent or runs_at_once(config, resources),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder / _FOR_RAY),
                failure_config=tune.FailureConfig(max_failures=config.study.max_failures),
                callbacks=[JournalRecorder(folder, config)],
                verbose=0,
            ),
        )
    return _run(tuner, config, folder, on_change, rescore)


def own_space(config: Config, folder: Path) -> Space:
    """The search space of a study's folder, which is copied there first."""
    own = folder / SPACE_FILE
    if not own.is_file():
        with atomic_path(own) as beside:
            shutil.copyfile(load_space(config.study.space, config).source, beside)
    return load_space(str(own), config)


def check_checkpoints(folder: Path, trials: tuple[TrialSummary, ...]) -> None:
    """Holds a study's journal against its trials' folders, before anything is changed.

    Raises:
        UserError: a trial's folder lacks all that the journal has of it, or is one that the journal does not know.
    """
    for trial in trials:
        if trial.unfinished and trial.epochs:
            own = trial_folder(folder, trial.id)
            newest = newest_checkpoint(own)
            if newest is None:
                raise UserError(
                    f"{own}: epoch {trial.epochs} was reported, and there is no checkpoint: put the folder back as it "
                    "was, or begin a new study"
                )
            there = read_progress(newest).epoch
            if there < trial.epochs:
                log.warning("%s: goes on from epoch %d, though %d were reported", own, there, trial.epochs)
    known = {trial.id for trial in trials}
    for config in sorted((folder / "trials").glob("*/config.yaml")):
        if config.parent.name not in known:
            if newest_checkpoint(config.parent) is not None:
                raise UserError(
                    f"{config.parent}: {journal_path(folder).name} does not know this trial: put both back as they "
                    "were, or begin a new study"
                )
            shutil.rmtree(config.parent)  # it had hardly begun when the machine lost power


def _first_points(journal: Journal, space: Space, config: Config) -> list[dict[str, Any]]:
    """First points of the study, as they were when it began."""
    for event in journal.events():
        if isinstance(event, StudyStarted):
            return [dict(point) for point in event.first_points]
    points: list[dict[str, Any]] = [dict(point) for point in first_points(space, config)]
    journal.append(StudyStarted(first_points=points))
    return points


def _current(journal: Journal, config: Config) -> tuple[TrialSummary, ...]:
    return summarise(journal.events(), config.metrics.objective)


def _run(
    tuner: tune.Tuner | None, config: Config, folder: Path, on_change: OnChange | None, rescore: Rescore | None
) -> StudyResult:
    """Trials, then their conclusion, while a table of them is shown.

    Raises:
        Stopped: Ctrl-C; trials that ran have finished their epoch, or, after a second one, have not.
        UserError: the disk is full, read-only or gone; or as `conclude`.
    """
    journal = Journal(journal_path(folder))
    listeners = [on_change] if on_change else []
    interruption = Interruption(
        signal.SIGUSR1, folder, partial(_current, journal, config)
    )  # which Tune takes as: save the study's state and return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # why a trial failed is told by the table, in a line
    try:
        with interruption, JournalFollower(journal, config, [interruption, *listeners]):
            if tuner is not None:
                tuner.fit()
            if interruption.asked:
                raise KeyboardInterrupt
        with JournalFollower(journal, config, listeners):
            return conclude(config, folder, journal, rescore)
    except KeyboardInterrupt:
        end_unfinished(folder, journal, config)
        journal.append(StudyEnded(status="KILLED", best_trial=None, metrics={}))
        raise Stopped(how_to_go_on(folder, journal, config)) from None
    except (OSError, tune.TuneError) as error:
        lost = storage_loss(error, folder)
        if not lost:
            raise
        raise UserError(f"{lost}; finished epochs are kept: mend it, then `tune --resume {folder}`") from None
    except RayError as error:
        raise UserError(
            f"the Ray cluster has gone ({error_line(str(error))}); finished epochs are kept: `tune --resume {folder}` "
            "goes on"
        ) from None
