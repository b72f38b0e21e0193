"""Resuming a study: its journal is compared with the checkpoints on disk, and unfinished trials run again."""

import logging
import shlex
import shutil
from pathlib import Path

from woundray.config import Config
from woundray.errors import UserError
from woundray.results.trials import TrialResult, ranked, read_trials
from woundray.search.study_folders import journal_path
from woundray.search.trial import ERROR_FILE, trial_folder
from woundray.tracking.journal import Journal, TrialEnded
from woundray.training.checkpoint import newest_checkpoint, read_progress

log = logging.getLogger(__name__)


def trials_to_resume(folder: Path, config: Config) -> tuple[TrialResult, ...]:
    """Return all trials of a study; unfinished ones are made ready to run again from their last epoch.

    Trials that ran when the process was killed, and those that failed but may succeed, run again. Finished trials, and
    those that would fail in the same way, stay as they are.

    Raises:
        UserError: see `check_checkpoints`.
    """
    mark_unfinished_as_killed(folder, config)
    trials = read_trials(Journal(journal_path(folder)).events(), config.metrics.objective)
    check_checkpoints(folder, trials)
    for trial in trials:
        if trial.unfinished:
            (trial_folder(folder, trial.id) / ERROR_FILE).unlink(missing_ok=True)
    return trials


def check_checkpoints(folder: Path, trials: tuple[TrialResult, ...]) -> None:
    """Compare a study's journal with the folders of its trials.

    Raises:
        UserError: checkpoints of an unfinished trial are missing, or a folder's trial is not in the journal.
    """
    for trial in trials:
        if trial.unfinished and trial.epochs:
            output = trial_folder(folder, trial.id)
            newest = newest_checkpoint(output)
            if newest is None:
                raise UserError(
                    f"{output}: epoch {trial.epochs} was reported, and there is no checkpoint: put the folder back as "
                    "it was, or begin a new study"
                )
            epoch = read_progress(newest).epoch
            if epoch < trial.epochs:
                log.warning("%s: goes on from epoch %d, though %d were reported", output, epoch, trial.epochs)
    known = {trial.id for trial in trials}
    for config in sorted((folder / "trials").glob("*/config.yaml")):
        if config.parent.name not in known:
            if newest_checkpoint(config.parent) is not None:
                raise UserError(
                    f"{config.parent}: {journal_path(folder).name} does not know this trial: put both back as they "
                    "were, or begin a new study"
                )
            shutil.rmtree(config.parent)  # of a trial that had no epoch when the machine lost power


def resume_hint(folder: Path, config: Config) -> str:
    """State of an interrupted study, and the command that resumes it."""
    trials = read_trials(Journal(journal_path(folder)).events(), config.metrics.objective)
    ended = sum(trial.status in ("finished", "failed") for trial in trials)
    best = next(iter(ranked(trials)), None)  # by their epochs: finalists may be those of a shorter study
    so_far = f", the best so far in {best.checkpoint}" if best else ""
    return (
        f"stopped: {ended} of {config.study.trials} trials have ended{so_far}; "
        f"go on with: python -m woundray.tune --resume {shlex.quote(str(folder))}"
    )


def mark_unfinished_as_killed(folder: Path, config: Config) -> None:
    """Write to the journal that trials which still run will not go on."""
    journal = Journal(journal_path(folder))
    for trial in read_trials(journal.events(), config.metrics.objective):
        if trial.status == "running":
            output = trial_folder(folder, trial.id)
            journal.append(TrialEnded(trial=trial.id, status="KILLED", stopped_early=False, output=output))
