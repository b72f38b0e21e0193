"""One run of one configuration, with the journal and the display of a study."""

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
from woundray.ray_cluster.dashboard_metrics import show
from woundray.ray_cluster.torch_trainer import RunFailed, epoch_event, fit
from woundray.results.trials import summarise
from woundray.search.interruption import Interruption
from woundray.search.progress import JournalFollower
from woundray.search.study_folders import journal_path
from woundray.search.trial import ERROR_FILE
from woundray.system.redaction import redact
from woundray.system.storage import storage_loss
from woundray.tracking.journal import Journal, TrialEnded, TrialStarted
from woundray.training.entry_point import Loop


class JournalCallback(UserCallback):
    """Writes each epoch of a run that Tune does not know into its journal."""

    def __init__(self, journal: Path, name: str, objective: str) -> None:
        self._journal = journal
        self._name = name
        self._objective = objective

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Called by Ray Train with the reports of all ranks."""
        show(metrics[0], study=self._name, trial=self._name, objective=self._objective)
        event = epoch_event(self._name, metrics[0])
        journal = Journal(self._journal)
        if event.epoch > journal.last_epoch(self._name):  # a resumed run tells its last epoch again
            journal.append(event)


def single_run(config: Config, *, loop: Loop, precomputed: Path, output: Path, folder: Path) -> None:
    """Runs a settled configuration on the connected cluster; goes on where one in `output` stopped.

    Args:
        config: settled configuration (see `woundray.ray_cluster.torch_trainer.resolve_gpus`).
        loop: the training loop.
        precomputed: folder of the latent cache and references.
        output: the run's folder for checkpoints.
        folder: where the journal and Ray's state are; its name is the run's.

    Raises:
        UserError: training failed; names the error and where all of it is.
        Stopped: Ctrl-C; the epoch is finished first, or, after a second one, is not.
    """
    journal = Journal(journal_path(folder))
    # the folder may have been renamed since it began
    name = next((event.trial for event in journal.events() if isinstance(event, TrialStarted)), folder.name)
    interruption = Interruption(signal.SIGINT, folder, lambda: summarise(journal.events(), config.metrics.objective))
    with interruption, JournalFollower(journal, config, [interruption]):
        journal.append(TrialStarted(trial=name, number=1, values={}, settings=config.flat()))
        try:
            _aside(
                partial(
                    fit,
                    config,
                    loop=loop,
                    precomputed=precomputed,
                    output=output,
                    name=name,
                    storage=folder / "ray",
                    callbacks=[JournalCallback(journal.path, name, config.metrics.objective)],
                    last_reported=partial(journal.last_epoch, name),
                )
            )
        except RunFailed as error:
            raise _told(error, journal, name, output) from None
        except KeyboardInterrupt:
            journal.append(TrialEnded(trial=name, status="KILLED", stopped_early=False, output=output))
            raise Stopped(
                f"stopped after epoch {journal.last_epoch(name)} of {config.training.epochs}; "
                f"the same command with --study.name {shlex.quote(folder.name)} goes on"
            ) from None
        journal.append(TrialEnded(trial=name, status="FINISHED", stopped_early=False, output=output))


def _told(error: RunFailed, journal: Journal, name: str, output: Path) -> UserError:
    """Writes down why a run failed, and says it in one line."""
    log, reason = output / ERROR_FILE, redact(error.reason)
    try:
        log.write_text(redact(error.details), encoding="utf-8")
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
    return UserError(f"training failed with `{reason}`: see {log}")


def _aside(call: Callable[[], object]) -> None:
    """Calls in a thread and waits: in the main one Train takes Ctrl-C for itself, and ends the run in mid-epoch."""
    errors: list[Exception] = []

    def work() -> None:
        try:
            call()
        except Exception as error:  # raised below, where it can be caught
            errors.append(error)

    thread = threading.Thread(target=work, name="run", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
