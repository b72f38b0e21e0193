"""AdamW and the course of its learning rate, counted in optimizer updates."""

import math
from collections.abc import Iterable

import torch

from woundray.config import TrainingConfig


def make_optimizer(parameters: Iterable[torch.nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), one fused kernel an update."""
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(update: int, total_updates: int, config: TrainingConfig) -> float:
    """Learning rate of optimizer update 0, 1, ... total_updates - 1.

    It rises linearly over warmup_steps, then stays, or falls to 0 linearly or by half a cosine
    (Loshchilov & Hutter 2017, arXiv 1608.03983). The warm-up takes a quarter of the run at most.
    """
    warmup = min(config.warmup_steps, total_updates // 4)
    if update < warmup:
        return config.learning_rate * (update + 1) / (warmup + 1)
    progress = (update - warmup) / max(1, total_updates - warmup)
    factor = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
    }[config.schedule]
    return config.learning_rate * factor
