"""One trial of a study: Ray Tune's driver function around one run, and what it writes down of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray import tune
from ray.train import TrainingFailedError
from ray.tune import Callback
from ray.tune.integration.ray_train import TuneReportCallback

from woundray.config import Config
from woundray.redaction import redact
from woundray.search.gauges import show
from woundray.storage import refuse_lost
from woundray.tracking.events import JOURNAL_NAME, Journal, TrialEnded, TrialStarted
from woundray.training.launch import CHECKPOINT, Loop, epoch_event, fit

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

ERROR_FILE = "error.txt"


def trial_folder(study: Path, trial: str) -> Path:
    """Where a trial's checkpoints, history and errors are."""
    return study / "trials" / trial


def last_line(log: Path) -> str:
    """What a traceback ends with: the error itself."""
    return [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()][-1].strip()


def run_trial(values: dict[str, Any], *, base: Config, loop: Loop, materials: Path, study: Path) -> None:
    """Runs one configuration to its end. Ray Tune calls it, and again if its process died.

    Raises:
        ray.train.TrainingFailedError: the loop raised; the error is in the trial's folder.
    """
    name = tune.get_context().get_trial_id()
    output = trial_folder(study, name)
    failed = output / ERROR_FILE
    if failed.exists():  # Train has tried often enough: a second round of Tune would fail in the same way
        raise RuntimeError(failed.read_text(encoding="utf-8"))
    try:
        last = fit(
            base.with_values(values),
            loop=loop,
            materials=materials,
            output=output,
            name=name,
            storage=study / "ray" / "runs",
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call]
            told=Journal(study / JOURNAL_NAME).last_epoch(name),
        )
    except TrainingFailedError as error:
        failed.write_text(redact(str(error)), encoding="utf-8")
        raise
    # A run that had finished before its driver died reports nothing more: Tune would have no result of it
    if last:
        tune.report(last)


class Recorder(Callback):
    """Writes what happens to trials into the study's journal. It is pickled: its state is plain data."""

    def __init__(self, study: Path, journal: Path, base: Config) -> None:
        self._study = study
        self._journal = journal
        self._base = base
        self._stopped: tuple[str, ...] = ()
        self._shown: dict[str, dict[str, float]] = {}  # trial -> its last report

    def on_trial_start(self, iteration: int, trials: list["Trial"], trial: "Trial", **info: Any) -> None:
        # Tune proposes trials in order, but may restore them in another: who has a number keeps it
        numbers = {other.trial_id: place for place, other in enumerate(trials, start=1)} | self._numbers()
        number = numbers[trial.trial_id]
        settings = self._base.with_values(trial.config).flat()
        Journal(self._journal).append(
            TrialStarted(trial=trial.trial_id, number=number, values=dict(trial.config), settings=settings)
        )

    def on_trial_result(
        self, iteration: int, trials: list["Trial"], trial: "Trial", result: dict[str, Any], **info: Any
    ) -> None:
        if CHECKPOINT not in result:
            return
        self._shown[trial.trial_id] = {name: value for name, value in result.items() if isinstance(value, int | float)}
        event = epoch_event(trial.trial_id, result)
        if event.epoch > Journal(self._journal).last_epoch(
            trial.trial_id
        ):  # a resumed trial tells its last epoch again
            Journal(self._journal).append(event)
        if result.get("done") and event.epoch < self._base.training.epochs:  # set where the scheduler says stop
            self._stopped = (*self._stopped, trial.trial_id)

    def on_step_end(self, iteration: int, trials: list["Trial"], **info: Any) -> None:
        for name, reported in self._shown.items():  # again and again: Ray forgets a gauge after two rounds of export
            show(reported, study=self._study.name, trial=name, objective=self._base.metrics.objective)

    def on_trial_complete(self, iteration: int, trials: list["Trial"], trial: "Trial", **info: Any) -> None:
        self._end(trial, "FINISHED")

    def on_trial_error(self, iteration: int, trials: list["Trial"], trial: "Trial", **info: Any) -> None:
        if trial.trial_id not in self._numbers():
            self.on_trial_start(iteration, trials, trial)  # its process never came up
        self._end(trial, "FAILED")
        refuse_lost(self._study)  # trials that are still to come would fail, too

    def get_state(self) -> dict[str, Any]:
        """What Tune keeps for a study that is resumed."""
        return {"stopped": list(self._stopped)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Gets it back."""
        self._stopped = tuple(state["stopped"])

    def _numbers(self) -> dict[str, int]:
        events = Journal(self._journal).events()
        return {event.trial: event.number for event in events if isinstance(event, TrialStarted)}

    def _end(self, trial: "Trial", status: Literal["FINISHED", "FAILED"]) -> None:
        name = trial.trial_id
        output = trial_folder(self._study, name)
        stopped_early = status == "FINISHED" and name in self._stopped
        Journal(self._journal).append(TrialEnded(trial=name, status=status, stopped_early=stopped_early, output=output))
