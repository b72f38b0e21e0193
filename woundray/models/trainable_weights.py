"""Trainable weights of a UNet, an adapter or all of it: make, save, load."""

from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from woundray.config import Config
from woundray.models.loading import DTYPES
from woundray.models.lora import add_adapter, load_adapter, save_adapter
from woundray.models.unet import load_unet
from woundray.weights.diffusers_layout import UNET_FOLDER, WEIGHTS_NAME


def make_trainable(unet: UNet2DConditionModel, config: Config) -> dict[str, nn.Parameter]:
    """Add an adapter to a frozen UNet, or unfreeze all its weights; return the trainable parameters by name, fp32."""
    if config.training.method == "lora":
        return add_adapter(unet, config.lora, seed=config.reproducibility.seed)
    unet.requires_grad_(True)
    parameters = dict(unet.named_parameters())
    assert all(parameter.dtype == torch.float32 for parameter in parameters.values())
    return parameters


def weights_dtype(config: Config) -> torch.dtype:
    """Return the dtype of a UNet's weights: model.precision; fp32 where all of them are trained."""
    return DTYPES["fp32" if config.training.method == "full" else config.model.precision]


def mixed_precision(config: Config, device: torch.device) -> torch.autocast:
    """Return the context in which a UNet of `weights_dtype` computes in model.precision, for training and sampling."""
    is_mixed = weights_dtype(config) != DTYPES[config.model.precision]
    return torch.autocast(device.type, DTYPES[config.model.precision], enabled=is_mixed)


def save_weights(unet: UNet2DConditionModel, folder: Path) -> None:
    """Save the adapter in diffusers' format, or, of a UNet without one, all weights to `unet/`."""
    if getattr(unet, "peft_config", None):
        save_adapter(unet, folder / WEIGHTS_NAME)
    else:
        unet.save_pretrained(folder / UNET_FOLDER)


def load_weights(base: Path, checkpoint: Path, *, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """Load the UNet that `save_weights` saved in a checkpoint, frozen.

    Raises:
        UserError: the file is missing, damaged, or made for another base model.
    """
    if (checkpoint / UNET_FOLDER / "config.json").is_file():
        return load_unet(checkpoint, dtype=dtype, device=device)
    unet = load_unet(base, dtype=dtype, device=device)
    load_adapter(unet, checkpoint / WEIGHTS_NAME)
    return unet
