"""What MLflow is told beside settings and scores: the data set, the machine, and the groups of its charts."""

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """What MLflow is told of the photographs: counts and a hash, none of them.

    Attributes:
        source: where they are on this machine, or `drawn phantoms`.
        photographs, patients: of each side, by its name.
    """

    name: str
    digest: str
    source: str
    photographs: dict[str, int]
    patients: dict[str, int]


def chart_name(metric: str) -> str:
    """The name under which MLflow charts a metric in a group; the scores that trials are compared by stay on top."""
    return _CHART_NAMES.get(metric, metric)


def log_dataset(client: "MlflowClient", run_id: str, facts: DatasetSummary) -> None:
    """Tells a run its data set; a second time changes nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=facts.name,
        digest=facts.digest[:36],  # as much as MLflow keeps
        source_type="local",
        source=json.dumps({"uri": facts.source}),
        profile=json.dumps({"photographs": facts.photographs, "patients": facts.patients}),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def watch_machine(run_id: str, uri: str) -> "SystemMetricsMonitor":
    """Logs this machine's processors, memory, disk and GPUs to a run every ten seconds, till it is finished."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)  # a server that is away is told elsewhere
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)  # type: ignore[no-untyped-call]
    monitor.start()  # type: ignore[no-untyped-call]
    return monitor
