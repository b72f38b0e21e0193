"""MLflow runs of a study: write the journal's events to them."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from woundray.system.redaction import redact
from woundray.tracking.address import is_server
from woundray.tracking.connection import connect, experiment_id
from woundray.tracking.journal import (
    ArmMeasured,
    EpochReported,
    Event,
    FinalistScored,
    MeasurementEnded,
    ModelSaved,
    Refitted,
    ReportWritten,
    StudyEnded,
    TrialEnded,
    TrialStarted,
)
from woundray.tracking.model_registry import register
from woundray.tracking.run_context import TrackedStudy, chart_name, log_dataset, start_system_monitor
from woundray.tracking.study_id import is_legacy_id

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_PARENT_KEY = ""  # key of the study's own run among those of its trials
_DEFAULT_UI_URL = "http://127.0.0.1:5000"  # of `mlflow ui`
_PARAMS_PER_BATCH = 100  # MLflow's limit
_MAX_VALUE_CHARS = 6000  # MLflow's limit for the value of a parameter
_MAX_RUN_NAME_CHARS = 200  # databases keep 250, and the score is appended
_RUNS_PER_PAGE = 1000
_MONITOR_STOP_TIMEOUT_S = 10.0
_MAX_UPLOAD_BYTES = 2**30  # the state of an adapter is much smaller, that of a whole UNet much larger


class MlflowRuns:
    """MLflow runs of a study: one parent run, and one nested run per trial; found again by the study's identifier.

    Args:
        uri: address of the MLflow server or database.
        study: name, tags and data set of the study or single run.
        identifier: identifier of the study (see `woundray.tracking.study_id.study_id`).

    Raises:
        UserError: MLflow does not answer.
    """

    def __init__(self, uri: str, study: TrackedStudy, identifier: str) -> None:
        self.uri = uri
        self._study = study
        self._identifier = identifier
        self._monitor: SystemMetricsMonitor | None = None
        self.registered = ""  # address of the model that was registered
        self._client = connect(uri)
        self._experiment = experiment_id(self._client, uri)
        self._runs: dict[str, Run] = {}
        self.parent: Run | None = None
        if study.nested:
            self.parent = self._find_or_create_run(_PARENT_KEY, {"woundray.kind": "study"}, name=study.name)

    @property
    def page(self) -> str:
        """Address of the table of runs; without its `workflowType`, MLflow 3 opens a page for language models."""
        server = self.uri.rstrip("/") if is_server(self.uri) else _DEFAULT_UI_URL
        return f"{server}/#/experiments/{self._experiment}/runs?workflowType=machine_learning"

    def start_parent(self) -> None:
        """Set the parent run to running, and log the settings and the data set to it."""
        if self.parent is not None:
            self._client.update_run(self.parent.info.run_id, status="RUNNING")
            self._log_params(self.parent.info.run_id, self._study.settings)
            self._log_dataset(self.parent)

    def start_monitor(self) -> None:
        """Log CPUs, memory and GPUs of this machine to the parent run every ten seconds, until `close`."""
        if self.parent is None:
            return
        self._monitor = start_system_monitor(self.parent.info.run_id, self.uri)

    def close(self) -> None:
        """Stop the monitor; its last metrics may be lost if MLflow does not answer."""
        if self._monitor is not None:
            thread = threading.Thread(target=self._monitor.finish, name="stop monitor", daemon=True)
            thread.start()
            thread.join(_MONITOR_STOP_TIMEOUT_S)

    def apply(self, event: Event) -> None:
        """Write an event; a second time changes nothing.

        Raises:
            mlflow.exceptions.MlflowException: the server or database refused it, or did not answer.
        """
        if isinstance(event, TrialStarted):
            self._start_trial(event)
        elif isinstance(event, EpochReported):
            self._log_epoch(event)
        elif isinstance(event, FinalistScored):
            self._log_finalist(event)
        elif isinstance(event, TrialEnded):
            self._end_trial(event)
        elif isinstance(event, Refitted):
            self._log_refit(event)
        elif isinstance(event, StudyEnded):
            self._end_study(event)
        elif isinstance(event, ModelSaved):
            self.registered = register(self._client, self._trial_run(event.trial).info.run_id, event)
        elif isinstance(event, ReportWritten) and self.parent is not None:
            self._client.log_artifact(self.parent.info.run_id, str(event.file))
        elif isinstance(event, ArmMeasured):
            run = self._trial_run(event.name, name=f"{self._study.name}-{event.name}")
            self._finish_run(run.info.run_id, event.metrics, event.time_ms)
        elif isinstance(event, MeasurementEnded) and self.parent is not None:
            files = [event.folder / f"result.{kind}" for kind in ("json", "md", "html")]
            self._finish_run(self.parent.info.run_id, event.metrics, event.time_ms, files)

    def _finish_run(self, run_id: str, metrics: dict[str, float], time_ms: int, files: Sequence[Path] = ()) -> None:
        """Log metrics and files of a run, and set it to finished."""
        from mlflow.entities import Metric

        self._client.log_batch(run_id, metrics=[Metric(name, value, time_ms, 0) for name, value in metrics.items()])
        for file in files:
            self._client.log_artifact(run_id, str(file))
        self._client.set_terminated(run_id, "FINISHED", time_ms)

    def _start_trial(self, event: TrialStarted) -> None:
        """Set the run of a trial to running, and log its settings."""
        name = f"{self._study.name}-{event.number}" if self.parent else self._study.name
        run = self._trial_run(event.trial, name=name)
        self._client.update_run(run.info.run_id, status="RUNNING")
        self._log_params(run.info.run_id, event.settings)
        self._log_dataset(run)

    def _log_epoch(self, event: EpochReported) -> None:
        """Log metrics and image grid of an epoch."""
        from mlflow.entities import Metric
        from PIL import Image

        run_id = self._trial_run(event.trial).info.run_id
        metrics = [Metric(chart_name(name), value, event.time_ms, event.epoch) for name, value in event.metrics.items()]
        self._client.log_batch(run_id, metrics=metrics)
        moved = event.checkpoint.parent / "grids" / f"{event.checkpoint.name}.png"  # once the checkpoint is deleted
        grid = next((path for path in (event.checkpoint / "grid.png", moved) if path.is_file()), None)
        if grid is not None:
            with Image.open(grid) as image:
                self._client.log_image(run_id, image, key="grid", step=event.epoch, timestamp=event.time_ms)

    def _log_finalist(self, event: FinalistScored) -> None:
        """Log the scores of a finalist's new images as `final.*`."""
        from mlflow.entities import Metric

        run_id = self._trial_run(event.trial).info.run_id
        metrics = [Metric(f"final.{name}", value, event.time_ms, 0) for name, value in event.metrics.items()]
        self._client.log_batch(run_id, metrics=metrics)

    def _end_trial(self, event: TrialEnded) -> None:
        """Log the best checkpoint of a trial and its files, and end its run."""
        run_id = self._trial_run(event.trial).info.run_id
        self._client.set_tag(run_id, "stopped_early", str(event.stopped_early).lower())
        if event.reason:
            self._client.set_tag(run_id, "error", event.reason[:_MAX_VALUE_CHARS])
        best = event.output / "best"
        if (best / "run.json").is_file() and not event.reason:
            self._log_best(run_id, _read_checkpoint_metrics(best), event.time_ms)
        if best.is_dir():
            self._log_files(run_id, best, "checkpoint")
        for path in (event.output / "config.yaml", event.output / "error.txt"):
            if path.is_file():
                self._client.log_artifact(run_id, str(path))
        self._client.set_terminated(run_id, event.status, event.time_ms)

    def _log_refit(self, event: Refitted) -> None:
        if self.parent is not None:
            self._log_files(self.parent.info.run_id, event.checkpoint, "refit")

    def _log_files(self, run_id: str, folder: Path, name: str) -> None:
        """Upload the files of a folder, except very large ones."""
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.stat().st_size <= _MAX_UPLOAD_BYTES:
                self._client.log_artifact(run_id, str(path), name)

    def _log_best(self, run_id: str, metrics: Mapping[str, float], time_ms: int) -> None:
        """Log the metrics of the best epoch as `best.*`, and append its score to the run's name.

        The name is then `study-3, fd_lite0 321.8`. In MLflow's table, columns without a prefix are of the last epoch,
        and those with `final.` of a finalist's new images.
        """
        from mlflow.entities import Metric
        from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

        self._client.log_batch(
            run_id, metrics=[Metric(f"best.{name}", value, time_ms, 0) for name, value in metrics.items()]
        )
        run = self._client.get_run(run_id)
        objective = run.data.params.get("metrics.objective", "")
        if objective in metrics:
            name = str(run.info.run_name).partition(f", {objective} ")[0]
            self._client.set_tag(run_id, MLFLOW_RUN_NAME, f"{name}, {objective} {metrics[objective]:.4g}")

    def _log_dataset(self, run: "Run") -> None:
        if self._study.dataset is not None:
            log_dataset(self._client, run.info.run_id, self._study.dataset)

    def _end_study(self, event: StudyEnded) -> None:
        """Log the best trial and its metrics to the parent run, and end it."""
        from mlflow.entities import Metric, RunTag

        if self.parent is None:
            return
        run_id = self.parent.info.run_id
        named = {name if name.startswith("final.") else f"best.{name}": value for name, value in event.metrics.items()}
        metrics = [Metric(name, value, event.time_ms, 0) for name, value in named.items()]
        tags = []
        if event.best_trial is not None:
            tags = [
                RunTag("best_trial", event.best_trial),
                RunTag("best_run", self._trial_run(event.best_trial).info.run_id),
            ]
        self._client.log_batch(run_id, metrics=metrics, tags=tags)
        self._client.set_terminated(run_id, event.status, event.time_ms)

    def _trial_run(self, trial: str, name: str | None = None) -> "Run":
        """Return the run of a trial; it is created if it does not exist."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        tags = {"woundray.kind": "trial", "trial_id": trial}
        if self.parent is not None:
            tags[MLFLOW_PARENT_RUN_ID] = self.parent.info.run_id
        return self._find_or_create_run(trial, tags, name=name or trial)

    def _find_or_create_run(self, trial: str, tags: dict[str, str], *, name: str) -> "Run":
        """Return the run of a trial, or of the study itself, found by its tags; it is created if it does not exist."""
        if trial not in self._runs:
            self._runs |= {_trial_id(run): run for run in self._search_runs(f"tags.study_id = '{self._identifier}'")}
        if trial not in self._runs:
            tags |= {"study": self._study.name, "study_id": self._identifier}
            self._runs[trial] = self._adopt_legacy_run(trial, tags) or self._client.create_run(
                self._experiment, run_name=name[:_MAX_RUN_NAME_CHARS], tags=self._study.tags | tags
            )
        return self._runs[trial]

    def _adopt_legacy_run(self, trial: str, tags: dict[str, str]) -> "Run | None":
        """Return a run of woundray 0.1, found by the study's name, after setting its tags; None: there is none."""
        if not is_legacy_id(self._identifier) or "'" in self._study.name:  # no name of 0.1 had a quotation mark
            return None
        candidates = self._search_runs(f"tags.study = '{self._study.name}'")
        found = next((run for run in candidates if _trial_id(run) == trial and "study_id" not in run.data.tags), None)
        if found is not None:
            for key, value in tags.items():
                self._client.set_tag(found.info.run_id, key, value)
        return found

    def _search_runs(self, filter_string: str) -> Iterator["Run"]:
        """Yield all runs of woundray that match a filter of MLflow's."""
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [self._experiment], filter_string, max_results=_RUNS_PER_PAGE, page_token=token or None
            )
            yield from page
            token = page.token or None

    def _log_params(self, run_id: str, settings: dict[str, JsonValue]) -> None:
        """Log the parameters that a run does not have yet; a changed value, such as more trials, becomes a tag.

        MLflow does not allow a parameter to change.
        """
        from mlflow.entities import Param

        known: dict[str, str] = self._client.get_run(run_id).data.params
        values = {name: redact(str(value))[:_MAX_VALUE_CHARS] for name, value in settings.items()}
        for name, value in values.items():
            if known.get(name, value) != value:
                self._client.set_tag(run_id, name, value)
        params = [Param(name, value) for name, value in values.items() if name not in known]
        for start in range(0, len(params), _PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])


def _read_checkpoint_metrics(checkpoint: Path) -> dict[str, float]:
    """Return the metrics of a checkpoint's epoch, by its `run.json`; empty: it was not scored."""
    progress = json.loads((checkpoint / "run.json").read_text(encoding="utf-8"))
    entry: dict[str, float] = next((entry for entry in progress["history"] if entry["epoch"] == progress["epoch"]), {})
    return {name: value for name, value in entry.items() if name != "epoch"}


def _trial_id(run: "Run") -> str:
    """Return the name of a run's trial; `_PARENT_KEY` for the study's own run."""
    return str(run.data.tags.get("trial_id", _PARENT_KEY))
