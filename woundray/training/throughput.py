"""What a run's last epoch took of the machine."""

from collections.abc import Mapping

import torch

from woundray.config import Config
from woundray.training.distributed import DistributedContext

PICTURES_PER_S, GPU_MEMORY = "pictures_per_s", "gpu_memory_gib"
"""Keys of what the epoch took of the machine, see `usage`."""


def usage(metrics: Mapping[str, float], config: Config, context: DistributedContext) -> dict[str, float]:
    """Training pictures a second over all workers, and the most GPU memory that this one has held, GiB.

    Args:
        metrics: the epoch's, with `updates` and `seconds_training`.
    """
    found = {}
    if metrics.get("seconds_training") and "updates" in metrics:
        rows = config.training.batch_size * config.training.gradient_accumulation_steps * context.world_size
        found[PICTURES_PER_S] = metrics["updates"] * rows / metrics["seconds_training"]
    if context.device.type == "cuda":
        found[GPU_MEMORY] = torch.cuda.max_memory_allocated(context.device) / 2**30
    return found
