"""Single run on a connected cluster: TorchTrainer, journal, display and Ctrl-C, without Ray Tune.

`training_run` opens the session and calls it.
"""

import shlex
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ray.train import UserCallback

from woundray.config import Config
from woundray.errors import Stopped, UserError
from woundray.ray_cluster.dashboard_metrics import set_gauges
from woundray.ray_cluster.torch_trainer import RunFailed, epoch_event, fit
from woundray.ray_cluster.train_worker import RunSetup
from woundray.results.trials import read_trials
from woundray.search.ctrl_c import InterruptHandler
from woundray.search.progress import JournalFollower
from woundray.search.study_folders import journal_path
from woundray.search.trial import ERROR_FILE
from woundray.system.redaction import redact
from woundray.system.storage import storage_loss
from woundray.tracking.journal import Journal, TrialEnded, TrialStarted
from woundray.training.entry_point import TrainLoop


class TrainJournalCallback(UserCallback):
    """Callback of Ray Train that writes each epoch of a single run to its journal."""

    def __init__(self, journal: Path, name: str, objective: str) -> None:
        self._journal = journal
        self._name = name
        self._objective = objective

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Write the report of rank 0; Ray Train calls this with the reports of all ranks."""
        set_gauges(metrics[0], study=self._name, trial=self._name, objective=self._objective)
        event = epoch_event(self._name, metrics[0])
        journal = Journal(self._journal)
        if event.epoch > journal.last_epoch(self._name):  # a resumed run reports its last epoch again
            journal.append(event)


def fit_single_run(config: Config, *, loop: TrainLoop, precomputed: Path, output: Path, folder: Path) -> None:
    """Train one configuration on the connected cluster; resume a run that is in `output`.

    Args:
        config: configuration with a number of GPUs (see `woundray.ray_cluster.torch_trainer.resolve_gpus`).
        loop: training loop.
        precomputed: folder of the precomputed data.
        output: folder for the checkpoints.
        folder: folder for the journal and Ray's state; its name is that of the run.

    Raises:
        UserError: training failed; the message has the error and its file.
        Stopped: Ctrl-C; the epoch is finished first, and not after a second Ctrl-C.
    """
    journal = Journal(journal_path(folder))
    # the folder may have been renamed since the run started
    name = next((event.trial for event in journal.events() if isinstance(event, TrialStarted)), folder.name)
    interruption = InterruptHandler(
        signal.SIGINT, folder, lambda: read_trials(journal.events(), config.metrics.objective)
    )
    with interruption, JournalFollower(journal, config, [interruption]):
        journal.append(TrialStarted(trial=name, number=1, values={}, settings=config.flat()))
        try:
            _run_in_thread(
                partial(
                    fit,
                    RunSetup(config, loop, precomputed, output, name=name, storage=folder / "ray"),
                    callbacks=[TrainJournalCallback(journal.path, name, config.metrics.objective)],
                    last_reported=partial(journal.last_epoch, name),
                )
            )
        except RunFailed as error:
            raise _record_failure(error, journal, name, output) from None
        except KeyboardInterrupt:
            journal.append(TrialEnded(trial=name, status="KILLED", stopped_early=False, output=output))
            raise Stopped(
                f"stopped after epoch {journal.last_epoch(name)} of {config.training.epochs}; "
                f"the same command with --study.name {shlex.quote(folder.name)} goes on"
            ) from None
        journal.append(TrialEnded(trial=name, status="FINISHED", stopped_early=False, output=output))


def _record_failure(error: RunFailed, journal: Journal, name: str, output: Path) -> UserError:
    """Write why a run failed to its folder and journal, and return the error for the user."""
    file, reason = output / ERROR_FILE, redact(error.reason)
    try:
        file.write_text(redact(error.details), encoding="utf-8")
        journal.append(
            TrialEnded(
                trial=name,
                status="FAILED",
                stopped_early=False,
                output=output,
                reason=reason,
                permanent=error.permanent,
            )
        )
    except OSError as lost:
        folder = journal.path.parent
        return UserError(
            f"{storage_loss(lost, folder) or lost}; finished epochs are kept: mend it, then the same command with "
            f"--study.name {shlex.quote(folder.name)} goes on"
        )
    return UserError(f"training failed with `{reason}`: see {file}")


def _run_in_thread(call: Callable[[], object]) -> None:
    """Call a function in a thread and wait: in the main thread Ray Train handles Ctrl-C, in the middle of an epoch."""
    errors: list[Exception] = []

    def target() -> None:
        try:
            call()
        except Exception as error:  # raised again below, in the main thread
            errors.append(error)

    thread = threading.Thread(target=target, name="run", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
