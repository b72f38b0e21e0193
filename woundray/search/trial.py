"""One trial of a study: Ray Tune's driver function around one run, and what it writes down of it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray import tune
from ray.tune import Callback
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.trainable import FunctionTrainable, wrap_function

from woundray.config import Config
from woundray.ray_cluster.dashboard_metrics import show
from woundray.ray_cluster.torch_trainer import RunFailed, epoch_event, error_line, fit
from woundray.ray_cluster.train_worker import CHECKPOINT, Failure
from woundray.search.optuna_search import TRIAL, VALUES
from woundray.system.redaction import redact
from woundray.system.storage import check_not_lost
from woundray.tracking.journal import JOURNAL_NAME, Journal, TrialEnded
from woundray.training.entry_point import Loop

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

ERROR_FILE = "error.txt"
"""In the folder of a trial or run that failed: all that is known of it."""


def trial_folder(study: Path, trial: str) -> Path:
    """Where a trial's checkpoints, history and errors are."""
    return study / "trials" / trial


def named_trials(driver: Callable[[dict[str, Any]], None]) -> type[FunctionTrainable]:
    """Class of Ray Tune for a driver function, whose actors bear the names of their trials on Ray's dashboard."""

    class Trial(wrap_function(driver)):  # type: ignore[misc]
        def __repr__(self) -> str:
            return str(self.config[TRIAL])

    Trial.__qualname__ = Trial.__name__  # which the dashboard shows
    return Trial


def run_trial(given: dict[str, Any], *, base: Config, loop: Loop, precomputed: Path, study: Path) -> None:
    """Runs one configuration to its end. Ray Tune calls it, and again if its process died.

    Raises:
        RunFailed: the loop raised, or processes died too often; the error is in the trial's folder.
        OSError: the study's disk is full, read-only or gone.
    """
    name = given[TRIAL]
    output = trial_folder(study, name)
    failed = output / ERROR_FILE
    if failed.exists():  # a second round of Tune would fail in the same way
        raise RuntimeError(failed.read_text(encoding="utf-8"))
    check_not_lost(study)
    try:
        last = fit(
            base.with_values(given[VALUES]),
            loop=loop,
            precomputed=precomputed,
            output=output,
            name=name,
            storage=study / "ray" / "runs",
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call]
            last_reported=partial(Journal(study / JOURNAL_NAME).last_epoch, name),
        )
    except RunFailed as error:
        failed.write_text(redact(error.details), encoding="utf-8")
        raise
    # A run that had finished before its driver died reports nothing more: Tune would have no result of it
    if last:
        tune.report(last)


def failure_of(output: Path) -> tuple[str, bool]:
    """Reason that the trial or run of a folder failed, in one line, and whether it diverged."""
    failure, log = Failure.read(output), output / ERROR_FILE
    if failure is not None:
        return failure.reason, failure.diverged
    if log.is_file():
        return error_line(log.read_text(encoding="utf-8")), False
    return "its process died more often than study.max_failures allows", False


class JournalRecorder(Callback):
    """Writes what trials report and how they end into the study's journal. It is pickled: its state is plain data."""

    def __init__(self, study: Path, base: Config) -> None:
        self._study = study
        self._journal = Journal(study / JOURNAL_NAME)
        self._base = base
        self._stopped: set[str] = set()
        self._shown: dict[str, dict[str, float]] = {}  # trial -> its last report

    def on_trial_result(
        self, iteration: int, trials: list["Trial"], trial: "Trial", result: dict[str, Any], **info: Any
    ) -> None:
        if CHECKPOINT not in result:
            return
        name = trial.config[TRIAL]
        self._shown[name] = {key: value for key, value in result.items() if isinstance(value, int | float)}
        event = epoch_event(name, result)
        if event.epoch > self._journal.last_epoch(name):  # a resumed trial reports its last epoch again
            self._journal.append(event)
        if result.get("done") and event.epoch < self._base.training.epochs:  # set where the scheduler says stop
            self._stopped.add(name)

    def on_step_end(self, iteration: int, trials: list["Trial"], **info: Any) -> None:
        for name, reported in self._shown.items():  # again and again: Ray forgets a gauge after two rounds of export
            show(reported, study=self._study.name, trial=name, objective=self._base.metrics.objective)

    def on_trial_complete(self, iteration: int, trials: list["Trial"], trial: "Trial", **info: Any) -> None:
        self._end(trial, "FINISHED")

    def on_trial_error(self, iteration: int, trials: list["Trial"], trial: "Trial", **info: Any) -> None:
        self._end(trial, "FAILED")
        check_not_lost(self._study)  # trials that are still to come would fail, too

    def _end(self, trial: "Trial", status: Literal["FINISHED", "FAILED"]) -> None:
        name = trial.config[TRIAL]
        output = trial_folder(self._study, name)
        stopped_early = status == "FINISHED" and name in self._stopped
        reason, permanent = failure_of(output) if status == "FAILED" else ("", False)
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
