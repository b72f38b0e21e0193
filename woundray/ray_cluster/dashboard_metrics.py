"""Each trial as Ray metrics: what the Ray dashboard and Prometheus show of it while a study runs.

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
    """Sets the gauges of a trial to what it reported last.

    Args:
        reported: an epoch's metrics and the run's usage, by name; what is missing is not shown.
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
    """Ray takes no other letters: `F\\xfc\\xdfe`."""
    return label.encode("ascii", "backslashreplace").decode("ascii")


@cache
def _gauges() -> dict[str, Gauge]:
    """Made once a process: Ray takes two of one name for two metrics."""
    texts = {
        "epoch": "Epochs that a trial has finished",
        "score": "A trial's objective at its last epoch: lower is better",
        PICTURES_PER_S: "Training pictures a second in a trial's last epoch, all workers together",
        GPU_MEMORY: "Most GPU memory that the first worker of a trial has held, GiB",
    }
    return {name: Gauge(f"woundray_{name}", description=text, tag_keys=_LABELS) for name, text in texts.items()}
