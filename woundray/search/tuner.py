"""Search: Ray Tune runs trials, Optuna proposes their values, ASHA stops poor trials early.

All state of a study is in its journal. A study that is resumed is a new one of Ray Tune, whose search and scheduler are
rebuilt from the journal; no file of Ray's or Optuna's own is read.
"""

import logging
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError

from woundray.config import Config
from woundray.errors import Stopped, UserError
from woundray.ray_cluster.nodes import Resources
from woundray.ray_cluster.torch_trainer import error_line, resolve_gpus, runs_at_once
from woundray.results.study import StudyResults
from woundray.results.trials import TrialResult, read_trials
from woundray.search.asha import ResumableASHA
from woundray.search.finalists import ScoreFinalist, elect_best_trial, mark_unfinished_as_killed, resume_hint
from woundray.search.initial_points import initial_points
from woundray.search.interruption import InterruptHandler
from woundray.search.optuna_search import ResumableOptunaSearch
from woundray.search.progress import JournalFollower, OnChange
from woundray.search.search_space import SearchSpace, load_search_space
from woundray.search.study_folders import journal_path
from woundray.search.trial import ERROR_FILE, TuneJournalCallback, run_trial, make_trainable, trial_folder
from woundray.system.atomic_files import atomic_path
from woundray.system.storage import lost_storage
from woundray.tracking.journal import Journal, StudyEnded, StudyStarted
from woundray.training.checkpoint import newest_checkpoint, read_progress
from woundray.training.entry_point import Loop, train

SPACE_FILE = "space.yaml"
"""In a study's folder: its search space, whatever becomes of the file that it was read from."""

log = logging.getLogger(__name__)

_DRIVER_RESOURCES = {"node:__internal_head__": 0.001}  # a trial's driver only waits: it takes no CPU, and stays on the head
_RAY_STATE_FOLDER = "ray"  # what Ray writes while a study runs, and nobody reads afterwards


@dataclass(frozen=True)
class StudySetup:
    """What all trials of a study share.

    Attributes:
        config: configuration that the trials vary, with `study.space` and the study's other settings.
        folder: folder of the study; its journal is `events.jsonl`.
        precomputed: folder of the precomputed data.
        resources: resources of the connected cluster.
        loop: training loop.
    """

    config: Config
    folder: Path
    precomputed: Path
    resources: Resources
    loop: Loop = train

    def resolved(self) -> "StudySetup":
        """The setup with absolute folders, and `hardware.gpus_per_worker: auto` as a number."""
        return replace(
            self,
            config=resolve_gpus(self.config, self.resources),
            folder=self.folder.absolute(),
            precomputed=self.precomputed.absolute(),
        )


def run_search(
    setup: StudySetup, *, on_change: OnChange | None = None, score_finalist: ScoreFinalist | None = None
) -> StudyResults:
    """Run the trials of a study on the connected cluster, or the rest of them, and elect the best one.

    Finished trials stay, and so do those that would fail again; others go on from their last epoch.

    Args:
        on_change: called in a thread with all trials so far after each event.
        score_finalist: generates and scores new images of a finalist; None: trials are ranked by their epochs' images.

    Raises:
        UserError: the space or the resources do not fit, journal and checkpoints disagree, or no trial has a score;
            the disk is full, read-only or gone; the cluster has gone.
        Stopped: Ctrl-C; trials that ran have finished their epoch, or, after a second one, have not.
    """
    setup = setup.resolved()
    setup.folder.mkdir(parents=True, exist_ok=True)
    tuner = _make_tuner(setup)
    config, folder = setup.config, setup.folder
    journal = Journal(journal_path(folder))
    listeners = [on_change] if on_change else []
    interruption = InterruptHandler(  # a signal that makes Tune save the study's state and return
        signal.SIGUSR1, folder, lambda: read_trials(journal.events(), config.metrics.objective)
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the table shows in a line why a trial failed
    with _reword_failures(config, folder):
        with interruption, JournalFollower(journal, config, [interruption, *listeners]):
            if tuner is not None:
                tuner.fit()
            if interruption.interrupted:
                raise KeyboardInterrupt
        with JournalFollower(journal, config, listeners):
            return elect_best_trial(config, folder, score_finalist)


def _make_tuner(setup: StudySetup) -> tune.Tuner | None:
    """Tuner of the trials that are left; None: all have ended."""
    config, folder = setup.config, setup.folder
    journal = Journal(journal_path(folder))
    mark_unfinished_as_killed(folder, config)  # after a kill: they run again when resources are free
    trials = read_trials(journal.events(), config.metrics.objective)
    check_checkpoints(folder, trials)
    space = copy_search_space(config, folder)
    points = _initial_points(journal, space, config)
    shutil.rmtree(folder / _RAY_STATE_FOLDER, ignore_errors=True)
    for trial in trials:
        if trial.unfinished:  # a failed one is tried again
            (trial_folder(folder, trial.id) / ERROR_FILE).unlink(missing_ok=True)
    left = config.study.trials - sum(not trial.unfinished for trial in trials)
    if left <= 0:
        return None
    driver = partial(run_trial, base=config, loop=setup.loop, precomputed=setup.precomputed, study=folder)
    return tune.Tuner(
        make_trainable(tune.with_resources(driver, _DRIVER_RESOURCES)),
        tune_config=tune.TuneConfig(
            search_alg=ResumableOptunaSearch(config, space, points, folder, trials),
            scheduler=ResumableASHA(config, trials),
            num_samples=left,
            max_concurrent_trials=config.study.concurrent or runs_at_once(config, setup.resources),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / _RAY_STATE_FOLDER),
            failure_config=tune.FailureConfig(max_failures=config.study.max_failures),
            callbacks=[TuneJournalCallback(folder, config)],
            verbose=0,
        ),
    )


def copy_search_space(config: Config, folder: Path) -> SearchSpace:
    """The search space of a study's folder, which is copied there first."""
    own = folder / SPACE_FILE
    if not own.is_file():
        with atomic_path(own) as beside:
            shutil.copyfile(load_search_space(config.study.space, config).source, beside)
    return load_search_space(str(own), config)


def check_checkpoints(folder: Path, trials: tuple[TrialResult, ...]) -> None:
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


def _initial_points(journal: Journal, space: SearchSpace, config: Config) -> list[dict[str, Any]]:
    """First points of the study, as they were when it began."""
    for event in journal.events():
        if isinstance(event, StudyStarted):
            return [dict(point) for point in event.first_points]
    points: list[dict[str, Any]] = [dict(point) for point in initial_points(space, config)]
    journal.append(StudyStarted(first_points=points))
    return points


@contextmanager
def _reword_failures(config: Config, folder: Path) -> Iterator[None]:
    """Raise Ctrl-C, a lost disk and a lost cluster as one line that says how to resume the study."""
    try:
        yield
    except KeyboardInterrupt:
        mark_unfinished_as_killed(folder, config)
        Journal(journal_path(folder)).append(StudyEnded(status="KILLED", best_trial=None, metrics={}))
        raise Stopped(resume_hint(folder, config)) from None
    except (OSError, tune.TuneError) as error:
        lost = lost_storage(error, folder)
        if not lost:
            raise
        raise UserError(f"{lost}; finished epochs are kept: mend it, then `tune --resume {folder}`") from None
    except RayError as error:
        raise UserError(
            f"the Ray cluster has gone ({error_line(str(error))}); finished epochs are kept: `tune --resume {folder}` "
            "goes on"
        ) from None
