"""Checkpoints of untrained adapters that change something."""

from pathlib import Path

import torch

from woundray.config import Config, LoraConfig
from woundray.models.lora import add_adapter, save_adapter
from woundray.models.unet import load_unet
from woundray.system.atomic_files import write_json
from woundray.training.checkpoint import write_config
from woundray.weights.diffusers_layout import WEIGHTS_NAME


def write_checkpoint(folder: Path, base: Path, config: Config, *, seed: int = 0) -> Path:
    """An adapter of a seed, as a run leaves it."""
    folder.mkdir(parents=True)
    unet = load_unet(base, dtype=torch.float32, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    for parameter in add_adapter(unet, LoraConfig(rank=2, alpha=3.0), seed=0).values():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    save_adapter(unet, folder / WEIGHTS_NAME)
    write_config(config, folder)
    write_json({"epoch": 1, "updates": 1, "history": []}, folder / "run.json")
    return folder
