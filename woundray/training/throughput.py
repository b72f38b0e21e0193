"""Throughput and GPU memory of a run's last epoch."""

from collections.abc import Mapping

import torch

from woundray.config import Config
from woundray.training.distributed import DistributedContext

PICTURES_PER_S, GPU_MEMORY = "pictures_per_s", "gpu_memory_gib"
"""Metrics of `usage`."""


def usage(metrics: Mapping[str, float], config: Config, context: DistributedContext) -> dict[str, float]:
    """Return training images a second over all workers, and the peak GPU memory of this one, GiB.

    Args:
        metrics: of the epoch, with `updates` and `seconds_training`.
    """
    result = {}
    if metrics.get("seconds_training") and "updates" in metrics:
        rows = config.training.batch_size * config.training.gradient_accumulation_steps * context.world_size
        result[PICTURES_PER_S] = metrics["updates"] * rows / metrics["seconds_training"]
    if context.device.type == "cuda":
        result[GPU_MEMORY] = torch.cuda.max_memory_allocated(context.device) / 2**30
    return result
