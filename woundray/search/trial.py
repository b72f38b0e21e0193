"""One trial of a study: the function that Ray Tune runs for it, and the callback that writes it to the journal."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray import tune
from ray.tune import Callback
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.trainable import FunctionTrainable, wrap_function

from woundray.config import Config
from woundray.ray_cluster.dashboard_metrics import set_gauges
from woundray.ray_cluster.torch_trainer import RunFailed, epoch_event, error_line, fit
from woundray.ray_cluster.train_worker import CHECKPOINT, Failure, RunSetup
from woundray.search.optuna_search import CONFIG, TRIAL
from woundray.search.study_folders import journal_path
from woundray.system.redaction import redact
from woundray.system.storage import check_not_lost
from woundray.tracking.journal import Journal, TrialEnded
from woundray.training.entry_point import TrainLoop

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

ERROR_FILE = "error.txt"
"""File in the folder of a trial or run that failed: the error with its tracebacks."""


def trial_folder(study: Path, trial: str) -> Path:
    """Return the folder of a trial's checkpoints, history and errors."""
    return study / "trials" / trial


def make_trainable(driver: Callable[[dict[str, Any]], None]) -> type[FunctionTrainable]:
    """Return Ray Tune's trainable for a driver function; its actors have their trials' names on Ray's dashboard."""

    class Trial(wrap_function(driver)):  # type: ignore[misc]
        def __repr__(self) -> str:
            return str(self.config[TRIAL])

    Trial.__qualname__ = Trial.__name__  # the dashboard shows it
    return Trial


def run_trial(proposal: dict[str, Any], *, loop: TrainLoop, precomputed: Path, study: Path) -> None:
    """Train one configuration to its end. Ray Tune calls it, and again if its process died.

    Args:
        proposal: name and configuration of the trial (see `ResumableOptunaSearch.suggest`).
        loop: training loop.
        precomputed: folder of the precomputed data.
        study: folder of the study.

    Raises:
        RunFailed: the loop raised an error, or processes died too often; the error is in the trial's folder.
        OSError: the study's disk is full, read-only or gone.
    """
    name = proposal[TRIAL]
    output = trial_folder(study, name)
    error_file = output / ERROR_FILE
    if error_file.exists():  # a retry by Tune would fail in the same way
        raise RuntimeError(error_file.read_text(encoding="utf-8"))
    check_not_lost(study)
    try:
        last_report = fit(
            RunSetup(proposal[CONFIG], loop, precomputed, output, name=name, storage=study / "ray" / "runs"),
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call]
            last_reported=partial(Journal(journal_path(study)).last_epoch, name),
        )
    except RunFailed as error:
        error_file.write_text(redact(error.details), encoding="utf-8")
        raise
    # A run that ended before its driver died reports nothing more, and Tune needs one report
    if last_report:
        tune.report(last_report)


def failure_reason(output: Path) -> tuple[str, bool]:
    """Return the reason that a trial failed, in one line, and whether it diverged."""
    failure, error_file = Failure.read(output), output / ERROR_FILE
    if failure is not None:
        return failure.reason, failure.diverged
    if error_file.is_file():
        return error_line(error_file.read_text(encoding="utf-8")), False
    return "its process died more often than study.max_failures allows", False


class TuneJournalCallback(Callback):
    """Callback of Ray Tune that writes reports and ends of trials to the study's journal. Tune pickles it."""

    def __init__(self, study: Path, base: Config) -> None:
        self._study = study
        self._journal = Journal(journal_path(study))
        self._base = base
        self._stopped: set[str] = set()
        self._last_reports: dict[str, dict[str, float]] = {}  # by trial

    def on_trial_result(
        self, iteration: int, trials: list["Trial"], trial: "Trial", result: dict[str, Any], **info: Any
    ) -> None:
        """Write a report of a trial to the journal."""
        if CHECKPOINT not in result:
            return
        name = trial.config[TRIAL]
        self._last_reports[name] = {key: value for key, value in result.items() if isinstance(value, int | float)}
        event = epoch_event(name, result)
        if event.epoch > self._journal.last_epoch(name):  # a resumed trial reports its last epoch again
            self._journal.append(event)
        if result.get("done") and event.epoch < self._base.training.epochs:  # the scheduler stops it
            self._stopped.add(name)

    def on_step_end(self, iteration: int, trials: list["Trial"], **info: Any) -> None:
        """Set the gauges of all trials again."""
        for name, reported in self._last_reports.items():  # again: Ray drops a gauge that two exports have not seen set
            set_gauges(reported, study=self._study.name, trial=name, objective=self._base.metrics.objective)

    def on_trial_complete(self, iteration: int, trials: list["Trial"], trial: "Trial", **info: Any) -> None:
        """Write the end of a trial to the journal."""
        self._end(trial, "FINISHED")

    def on_trial_error(self, iteration: int, trials: list["Trial"], trial: "Trial", **info: Any) -> None:
        """Write a failure to the journal; end the study if its disk is lost."""
        self._end(trial, "FAILED")
        check_not_lost(self._study)  # later trials would fail, too

    def _end(self, trial: "Trial", status: Literal["FINISHED", "FAILED"]) -> None:
        name = trial.config[TRIAL]
        output = trial_folder(self._study, name)
        stopped_early = status == "FINISHED" and name in self._stopped
        reason, permanent = failure_reason(output) if status == "FAILED" else ("", False)
        self._journal.append(
            TrialEnded(
                trial=name,
                status=status,
                stopped_early=stopped_early,
                output=output,
                reason=redact(reason),
                permanent=permanent,
            )
        )
