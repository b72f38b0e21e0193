"""Context of MLflow runs besides settings and scores: data set, system metrics, and names of charts."""

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_CHART_NAMES = {
    "train_loss": "training/loss",
    "perceptual_loss": "training/perceptual_loss",
    "gradient_norm": "training/gradient_norm",
    "learning_rate": "training/learning_rate",
    "updates": "training/updates",
    "seconds_training": "time/seconds_training",
    "seconds_scoring": "time/seconds_scoring",
    "copy_rate": "copies/copy_rate",
    "copy_rate_held_out": "copies/copy_rate_held_out",
    "copies_p_value": "copies/copies_p_value",
    "copies_flag": "copies/copies_flag",
}


@dataclass(frozen=True)
class DatasetSummary:
    """Counts and a hash of the photographs, without the photographs themselves.

    Attributes:
        name: name of the data set in MLflow.
        digest: hash of the photographs and of their split.
        source: folder on this machine, or `drawn phantoms`.
        photographs: number of photographs on each side of the split, by its name.
        patients: number of patients on each side of the split, by its name.
    """

    name: str
    digest: str
    source: str
    photographs: dict[str, int]
    patients: dict[str, int]


@dataclass(frozen=True)
class TrackedStudy:
    """Study, single run or measurement as MLflow shows it.

    Attributes:
        name: name of the study or single run.
        settings: all settings by dotted name.
        tags: tags of each run, such as versions and the data's hash.
        nested: trials are runs below one of the study; False: a single run without a parent.
        dataset: summary of the photographs.
    """

    name: str
    settings: dict[str, JsonValue]
    tags: dict[str, str]
    nested: bool = True
    dataset: DatasetSummary | None = None


def chart_name(metric: str) -> str:
    """Return the name of a metric in MLflow, with the group of its chart; scores have no group, and are shown first."""
    return _CHART_NAMES.get(metric, metric)


def log_dataset(client: "MlflowClient", run_id: str, summary: DatasetSummary) -> None:
    """Log the data set to a run; a second time changes nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=summary.name,
        digest=summary.digest[:36],  # MLflow's limit
        source_type="local",
        source=json.dumps({"uri": summary.source}),
        profile=json.dumps({"photographs": summary.photographs, "patients": summary.patients}),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def start_system_monitor(run_id: str, uri: str) -> "SystemMetricsMonitor":
    """Log CPUs, memory, disk and GPUs of this machine to a run every ten seconds, until the monitor is finished."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)  # Tracker reports a server that is away
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)  # type: ignore[no-untyped-call]
    monitor.start()  # type: ignore[no-untyped-call]
    return monitor
