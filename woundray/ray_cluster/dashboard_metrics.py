"""Ray metrics of each trial, for the Ray dashboard and Prometheus while a study runs.

They are exported as `ray_woundray_epoch`, `ray_woundray_score`, `ray_woundray_pictures_per_s` and
`ray_woundray_gpu_memory_gib`, with the labels study and trial.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from ray.util.metrics import Gauge

from woundray.training.throughput import GPU_MEMORY, PICTURES_PER_S

_LABELS = ("study", "trial")


def set_gauges(reported: Mapping[str, Any], *, study: str, trial: str, objective: str) -> None:
    """Set the gauges of a trial to its last report.

    Args:
        reported: metrics of an epoch and usage of the run, by name; missing ones are not shown.
        objective: name of the score.
    """
    labels = {name: _ascii(value) for name, value in (("study", study), ("trial", trial))}
    values = {
        "epoch": "epoch",
        "score": objective,
        PICTURES_PER_S: PICTURES_PER_S,
        GPU_MEMORY: GPU_MEMORY,
    }
    for name, source in values.items():
        if source in reported:
            _gauges()[name].set(float(reported[source]), tags=labels)


def _ascii(label: str) -> str:
    """Escape letters that are not ASCII, which Ray refuses in labels: `F\\xfc\\xdfe`."""
    return label.encode("ascii", "backslashreplace").decode("ascii")


@cache
def _gauges() -> dict[str, Gauge]:
    """Create the gauges, once for each process: Ray counts two of one name as two metrics."""
    texts = {
        "epoch": "Epochs that a trial has finished",
        "score": "A trial's objective at its last epoch: lower is better",
        PICTURES_PER_S: "Training pictures a second in a trial's last epoch, all workers together",
        GPU_MEMORY: "Most GPU memory that the first worker of a trial has held, GiB",
    }
    return {name: Gauge(f"woundray_{name}", description=text, tag_keys=_LABELS) for name, text in texts.items()}
