"""What a run's last epoch took of the machine."""

from collections.abc import Mapping
from pathlib import Path

import torch

from woundray.config import Config
from woundray.training.checkpoint import read_progress
from woundray.training.launch import GPU_MEMORY, PICTURES_PER_S
from woundray.training.place import Place


def usage(metrics: Mapping[str, float], checkpoint: Path, config: Config, place: Place) -> dict[str, float]:
    """Training pictures a second over all workers, and the most GPU memory that this one has held, GiB.

    Args:
        metrics: the epoch's, with `seconds_training`.
        checkpoint: the epoch's folder.
    """
    found = {}
    if metrics.get("seconds_training"):
        progress = read_progress(checkpoint)
        rows = config.training.batch_size * config.training.gradient_accumulation_steps * place.world_size
        found[PICTURES_PER_S] = progress.updates / progress.epoch * rows / metrics["seconds_training"]
    if place.device.type == "cuda":
        found[GPU_MEMORY] = torch.cuda.max_memory_allocated(place.device) / 2**30
    return found
