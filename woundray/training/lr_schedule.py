"""Learning-rate schedule, counted in optimizer updates."""

import math

from woundray.config import TrainingConfig


def learning_rate(update: int, total_updates: int, config: TrainingConfig) -> float:
    """Return the learning rate of optimizer update 0, 1, ... total_updates - 1.

    It rises linearly over warmup_steps, then stays, or falls to 0 linearly or by half a cosine, once or in equal
    cycles (Loshchilov & Hutter 2017, arXiv 1608.03983). The warm-up takes a quarter of the run at most.

    Own code beside diffusers.optimization.get_scheduler, whose first update has rate 0 and which has state to resume;
    after the warm-up both are equal (a test compares them).
    """
    warmup = min(config.warmup_steps, total_updates // 4)
    if update < warmup:
        return config.learning_rate * (update + 1) / (warmup + 1)
    progress = (update - warmup) / max(1, total_updates - warmup)
    in_cycle = config.restarts * progress % 1
    schedule = "constant" if config.optimizer == "schedule_free_adamw" else config.schedule
    factor = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "cosine_with_restarts": 0.5 * (1 + math.cos(math.pi * in_cycle)),
    }[schedule]
    return config.learning_rate * factor
