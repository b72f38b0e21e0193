"""Search: Ray Tune runs trials, Optuna proposes their values, ASHA stops poor trials early.

All state of a study is in its journal. Resuming a study starts a new Tuner, with searcher and scheduler rebuilt from
the journal; no file of Ray's or Optuna's own is read.
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
from woundray.results.trials import read_trials
from woundray.search.asha import ResumableASHA
from woundray.search.ctrl_c import InterruptHandler
from woundray.search.finalists import ScoreFinalist, elect_best_trial
from woundray.search.initial_points import initial_points
from woundray.search.optuna_search import ResumableOptunaSearch
from woundray.search.progress import JournalFollower, OnChange
from woundray.search.resume import mark_unfinished_as_killed, resume_hint, trials_to_resume
from woundray.search.search_space import SearchSpace, load_search_space
from woundray.search.study_folders import journal_path
from woundray.search.trial import TuneJournalCallback, make_trainable, run_trial
from woundray.system.atomic_files import atomic_path
from woundray.system.storage import storage_loss
from woundray.tracking.journal import Journal, StudyEnded, StudyStarted
from woundray.training.entry_point import TrainLoop, train

SPACE_FILE = "space.yaml"
"""File in a study's folder: copy of its search space."""

log = logging.getLogger(__name__)

_DRIVER_RESOURCES = {"node:__internal_head__": 0.001}  # a trial's driver only waits: no CPU, on the head node
_RAY_STATE_FOLDER = "ray"  # files of Ray's, which are not read when a study is resumed


@dataclass(frozen=True)
class StudySetup:
    """Configuration, folders and resources that all trials of a study share.

    Attributes:
        config: configuration of the study; trials change the searched settings.
        folder: folder of the study; its journal is `events.jsonl`.
        precomputed: folder of the precomputed data.
        resources: resources of the connected cluster.
        loop: training loop.
    """

    config: Config
    folder: Path
    precomputed: Path
    resources: Resources
    loop: TrainLoop = train

    def resolved(self) -> "StudySetup":
        """Return the setup with absolute folders, and with a number for `hardware.gpus_per_worker: auto`."""
        return replace(
            self,
            config=resolve_gpus(self.config, self.resources),
            folder=self.folder.absolute(),
            precomputed=self.precomputed.absolute(),
        )


def run_search(
    setup: StudySetup, *, on_change: OnChange | None = None, score_finalist: ScoreFinalist | None = None
) -> StudyResults:
    """Run the remaining trials of a study on the connected cluster, and elect the best one.

    Trials that have finished, or that would fail again, are left as they are; others resume from their last epoch.

    Args:
        setup: the study.
        on_change: listener that is called in a thread with all trials after each event.
        score_finalist: generates and scores new images of a finalist; None: trials are ranked by their epochs' images.

    Raises:
        UserError: the search space or the resources do not fit, journal and checkpoints disagree, no trial has a
            score, the disk is full, read-only or gone, or the cluster is gone.
        Stopped: Ctrl-C; running trials have finished their epoch, and not after a second Ctrl-C.
    """
    setup = setup.resolved()
    setup.folder.mkdir(parents=True, exist_ok=True)
    tuner = _make_tuner(setup)
    config, folder = setup.config, setup.folder
    journal = Journal(journal_path(folder))
    listeners = [on_change] if on_change else []
    interruption = InterruptHandler(  # SIGUSR1 makes Tune save its state and return
        signal.SIGUSR1, folder, lambda: read_trials(journal.events(), config.metrics.objective)
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the table of trials has the reason of a failure
    with _reword_failures(config, folder):
        with interruption, JournalFollower(journal, config, [interruption, *listeners]):
            if tuner is not None:
                tuner.fit()
            if interruption.interrupted:
                raise KeyboardInterrupt
        with JournalFollower(journal, config, listeners):
            return elect_best_trial(config, folder, score_finalist)


def _make_tuner(setup: StudySetup) -> tune.Tuner | None:
    """Return the Tuner of the remaining trials; None: all have ended."""
    config, folder = setup.config, setup.folder
    trials = trials_to_resume(folder, config)
    space = copy_search_space(config, folder)
    points = _initial_points(Journal(journal_path(folder)), space, config)
    shutil.rmtree(folder / _RAY_STATE_FOLDER, ignore_errors=True)
    left = config.study.trials - sum(not trial.unfinished for trial in trials)
    if left <= 0:
        return None
    driver = partial(run_trial, loop=setup.loop, precomputed=setup.precomputed, study=folder)
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
    """Copy the search space into the folder of a new study, and read the copy."""
    copy = folder / SPACE_FILE
    if not copy.is_file():
        with atomic_path(copy) as temporary:
            shutil.copyfile(load_search_space(config.study.space, config).source, temporary)
    return load_search_space(str(copy), config)


def _initial_points(journal: Journal, space: SearchSpace, config: Config) -> list[dict[str, Any]]:
    """Read the first points of the study from its journal; a new study's are computed and written to it."""
    for event in journal.events():
        if isinstance(event, StudyStarted):
            return [dict(point) for point in event.first_points]
    points: list[dict[str, Any]] = [dict(point) for point in initial_points(space, config)]
    journal.append(StudyStarted(first_points=points))
    return points


@contextmanager
def _reword_failures(config: Config, folder: Path) -> Iterator[None]:
    """Raise Ctrl-C, a lost disk and a lost cluster as an error of one line that says how to resume the study."""
    try:
        yield
    except KeyboardInterrupt:
        mark_unfinished_as_killed(folder, config)
        Journal(journal_path(folder)).append(StudyEnded(status="KILLED", best_trial=None, metrics={}))
        raise Stopped(resume_hint(folder, config)) from None
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
