"""MLflow runs of a study: the only importer of mlflow."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from woundray.errors import UserError
from woundray.redaction import redact
from woundray.tracking.events import (
    EpochReported,
    Event,
    FinalistScored,
    ModelSaved,
    Refitted,
    ReportWritten,
    StudyEnded,
    TrialEnded,
    TrialStarted,
)
from woundray.tracking.models import register
from woundray.tracking.surroundings import DatasetFacts, grouped, log_dataset, watch_machine

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing is sent to MLflow's makers
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a dead server is noticed after seconds; default 4 minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_CONFIGURE_LOGGING": "false",  # no lines of MLflow's on the terminal
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar of its own, in pipes, too
    "GIT_PYTHON_REFRESH": "quiet",  # no warning where git is not installed
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)  # now: MLflow reads some of them when it is imported

EXPERIMENT = "woundray"
_OWN_UI = "http://127.0.0.1:5000"  # of a bare `mlflow ui`
_PER_BATCH = 100  # parameters that MLflow takes at a time
_LONGEST = 6000  # characters of a parameter
_LARGEST_UPLOAD_BYTES = 2**30  # the state of an adapter is well below, that of a whole UNet well above


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else the database that a bare `mlflow ui` in the working directory opens.

    Raises:
        UserError: the address is a folder, which MLflow 3 no longer writes to.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri} is a folder; name a server (http://...) or a database (sqlite:///mlflow.db)"
        )
    return uri


class Runs:
    """One parent run a study, and one nested run a trial; found again by their tags.

    Args:
        uri: address of the MLflow server or database.
        study: name of the study and of its parent run, or of a single run.
        nested: trials are runs below the study's; else a single run stands for itself.
    """

    def __init__(
        self, uri: str, study: str, *, nested: bool, tags: dict[str, str], dataset: DatasetFacts | None = None
    ) -> None:
        self.uri = uri
        self._study = study
        self._tags = tags
        self._dataset = dataset
        self._monitor: SystemMetricsMonitor | None = None
        self.registered = ""  # address of the model that was registered
        self._client = connect(uri)
        self._experiment = _experiment(self._client, uri)
        self._trials: dict[str, Run] = {}
        self.parent = self._open("study", {"woundray.kind": "study"}, name=study) if nested else None

    @property
    def page(self) -> str:
        """Address of the table of runs; without the view in it, MLflow 3 opens its pages for language models."""
        server = self.uri.rstrip("/") if self.uri.startswith("http") else _OWN_UI
        return f"{server}/#/experiments/{self._experiment}/runs?workflowType=machine_learning"

    def log_settings(self, settings: dict[str, JsonValue]) -> None:
        """Parameters of the parent run, which runs (again) from now on."""
        if self.parent is not None:
            self._client.update_run(self.parent.info.run_id, status="RUNNING")
            self._log_params(self.parent.info.run_id, settings)
            self._log_dataset(self.parent)

    def watch_machine(self) -> None:
        """Logs processors, memory and GPUs of this machine to the study's run every ten seconds, till `close`."""
        if self.parent is None:
            return
        self._monitor = watch_machine(self.parent.info.run_id, self.uri)

    def close(self) -> None:
        """Ends what `watch_machine` began."""
        if self._monitor is not None:
            self._monitor.finish()  # type: ignore[no-untyped-call]

    def apply(self, event: Event) -> None:
        """Writes an event; a second time changes nothing.

        Raises:
            mlflow.exceptions.MlflowException: the server or database did not take it.
        """
        if isinstance(event, TrialStarted):
            self._start(event)
        elif isinstance(event, EpochReported):
            self._epoch(event)
        elif isinstance(event, FinalistScored):
            self._finalist(event)
        elif isinstance(event, TrialEnded):
            self._end(event)
        elif isinstance(event, Refitted):
            self._refitted(event)
        elif isinstance(event, StudyEnded):
            self._end_study(event)
        elif isinstance(event, ModelSaved):
            self.registered = register(self._client, self._trial(event.trial).info.run_id, event)
        elif isinstance(event, ReportWritten) and self.parent is not None:
            self._client.log_artifact(self.parent.info.run_id, str(event.file))

    def record(self, name: str, metrics: dict[str, float], files: Sequence[Path] = ()) -> None:
        """A nested run that is complete at once; a second time, its values are written again."""
        assert self.parent is not None
        self._complete(self._trial(name, name=f"{self._study}-{name}").info.run_id, metrics, files)

    def complete(self, metrics: dict[str, float], files: Sequence[Path] = ()) -> None:
        """Ends the parent run with what all of it came to."""
        assert self.parent is not None
        self._complete(self.parent.info.run_id, metrics, files)

    def _complete(self, run_id: str, metrics: dict[str, float], files: Sequence[Path]) -> None:
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        self._client.log_batch(run_id, metrics=[Metric(name, value, now_ms, 0) for name, value in metrics.items()])
        for file in files:
            self._client.log_artifact(run_id, str(file))
        self._client.set_terminated(run_id, "FINISHED", now_ms)

    def _start(self, event: TrialStarted) -> None:
        run = self._trial(event.trial, name=f"{self._study}-{event.number}" if self.parent else self._study)
        self._client.update_run(run.info.run_id, status="RUNNING")
        self._log_params(run.info.run_id, event.settings)
        self._log_dataset(run)

    def _epoch(self, event: EpochReported) -> None:
        from mlflow.entities import Metric
        from PIL import Image

        run_id = self._trial(event.trial).info.run_id
        metrics = [Metric(grouped(name), value, event.time_ms, event.epoch) for name, value in event.metrics.items()]
        self._client.log_batch(run_id, metrics=metrics)
        kept = event.checkpoint.parent / "grids" / f"{event.checkpoint.name}.png"
        grid = next((path for path in (event.checkpoint / "grid.png", kept) if path.is_file()), None)
        if grid is not None:
            with Image.open(grid) as picture:
                self._client.log_image(run_id, picture, key="grid", step=event.epoch, timestamp=event.time_ms)

    def _finalist(self, event: FinalistScored) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(f"final.{name}", value, event.time_ms, 0) for name, value in event.metrics.items()]
        self._client.log_batch(self._trial(event.trial).info.run_id, metrics=metrics)

    def _end(self, event: TrialEnded) -> None:
        run_id = self._trial(event.trial).info.run_id
        self._client.set_tag(run_id, "stopped_early", str(event.stopped_early).lower())
        if event.reason:
            self._client.set_tag(run_id, "error", event.reason[:_LONGEST])
        self._name_by_score(run_id)
        best = event.output / "best"
        if best.is_dir():
            self._log_files(run_id, best, "checkpoint")
        for path in (event.output / "config.yaml", event.output / "error.txt"):
            if path.is_file():
                self._client.log_artifact(run_id, str(path))
        self._client.set_terminated(run_id, event.status, event.time_ms)

    def _refitted(self, event: Refitted) -> None:
        if self.parent is not None:
            self._log_files(self.parent.info.run_id, event.checkpoint, "refit")

    def _log_files(self, run_id: str, folder: Path, name: str) -> None:
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.stat().st_size <= _LARGEST_UPLOAD_BYTES:
                self._client.log_artifact(run_id, str(path), name)

    def _name_by_score(self, run_id: str) -> None:
        """`study-3, fd_lite0 321.8`: its lowest score is what runs are looked for by."""
        from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

        run = self._client.get_run(run_id)
        objective = run.data.params.get("metrics.objective", "")
        scores = [metric.value for metric in self._client.get_metric_history(run_id, objective)] if objective else []
        if scores:
            name = str(run.info.run_name).partition(",")[0]
            self._client.set_tag(run_id, MLFLOW_RUN_NAME, f"{name}, {objective} {min(scores):.4g}")

    def _log_dataset(self, run: "Run") -> None:
        if self._dataset is not None:
            log_dataset(self._client, run.info.run_id, self._dataset)

    def _end_study(self, event: StudyEnded) -> None:
        from mlflow.entities import Metric, RunTag

        if self.parent is None:
            return
        run_id = self.parent.info.run_id
        metrics = [Metric(f"best.{name}", value, event.time_ms, 0) for name, value in event.metrics.items()]
        tags = []
        if event.best_trial is not None:
            tags = [
                RunTag("best_trial", event.best_trial),
                RunTag("best_run", self._trial(event.best_trial).info.run_id),
            ]
        self._client.log_batch(run_id, metrics=metrics, tags=tags)
        self._client.set_terminated(run_id, event.status, event.time_ms)

    def _trial(self, trial: str, name: str | None = None) -> "Run":
        """The run of a trial, found by its tags or opened."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        if trial not in self._trials:
            tags = {"woundray.kind": "trial", "trial_id": trial}
            if self.parent is not None:
                tags[MLFLOW_PARENT_RUN_ID] = self.parent.info.run_id
            self._trials[trial] = self._open("trial", tags, name=name or trial)
        return self._trials[trial]

    def _open(self, what: str, identity: dict[str, str], *, name: str) -> "Run":
        """The one run with these tags and the study's, opened if there is none."""
        tags = identity | {"study": self._study}
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._client.search_runs([self._experiment], wanted, max_results=1)
        if found:
            return found[0]
        return self._client.create_run(self._experiment, run_name=name, tags=self._tags | tags)

    def _log_params(self, run_id: str, settings: dict[str, JsonValue]) -> None:
        from mlflow.entities import Param

        params = [Param(name, redact(str(value))[:_LONGEST]) for name, value in settings.items()]
        for start in range(0, len(params), _PER_BATCH):
            self._client.log_batch(run_id, params=params[start : start + _PER_BATCH])


def check_tracking(uri: str = "") -> None:
    """Raises UserError if MLflow does not answer; makes its database and experiment if there are none."""
    uri = uri or tracking_uri()
    _experiment(connect(uri), uri)


def connect(uri: str) -> "MlflowClient":
    """A client of the server or database at an address; nothing is asked of it yet."""
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # notes on each migration of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _experiment(client: "MlflowClient", uri: str) -> str:
    """The experiment's id. A database is made here, with artifacts beside it under an absolute path."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        artifacts = None
        if uri.startswith("sqlite:///"):
            database = Path(uri.removeprefix("sqlite:///")).absolute()
            artifacts = (database.parent / "mlartifacts" / EXPERIMENT).as_uri()
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"MLFLOW_TRACKING_URI: {uri} does not answer: {reason}") from None
