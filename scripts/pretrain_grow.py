"""Growth of a trained tiny base: more latent channels, with all that it has learned kept.

The grown model begins as the old one: its first latent channels are the old ones, the others are not looked at yet.
"""

import copy

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

NEW_LOG_VARIANCE = -4.0  # of the new latent channels at first: their noise then is a seventh of a unit


@torch.no_grad()
def grow_vae(old: AutoencoderKL, channels: int, layers_per_block: int = 1) -> AutoencoderKL:
    """A VAE of `channels` latent channels, of which the first are those of `old`, with `layers_per_block`.

    The decoder at first pays no attention to the new channels. Added residual blocks at first pass on what they get.
    """
    had = old.config["latent_channels"]
    config = {**old.config, "latent_channels": channels, "layers_per_block": layers_per_block}
    new: AutoencoderKL = AutoencoderKL.from_config(config)
    kept = old.state_dict()
    state = new.state_dict()
    for name in state:
        if name in kept and kept[name].shape == state[name].shape:
            state[name] = kept[name].clone()
        elif name.endswith("conv2.weight") and name not in kept or name.endswith("conv2.bias") and name not in kept:
            state[name].zero_()

    # Encoder: means, then log variances
    rows = [*range(had), *range(channels, channels + had)]
    for end in ("weight", "bias"):
        state[f"encoder.conv_out.{end}"][rows] = kept[f"encoder.conv_out.{end}"]
    state["quant_conv.weight"] = torch.eye(2 * channels)[:, :, None, None].clone()
    state["quant_conv.weight"][torch.tensor(rows)[:, None], torch.tensor(rows)[None]] = kept["quant_conv.weight"]
    state["quant_conv.bias"].zero_()
    state["quant_conv.bias"][rows] = kept["quant_conv.bias"]
    fresh = slice(channels + had, 2 * channels)
    state["encoder.conv_out.weight"][fresh] = 0
    state["encoder.conv_out.bias"][fresh] = NEW_LOG_VARIANCE

    # Decoder
    state["post_quant_conv.weight"] = torch.eye(channels)[:, :, None, None].clone()
    state["post_quant_conv.weight"][:had, :had] = kept["post_quant_conv.weight"]
    state["post_quant_conv.bias"].zero_()
    state["post_quant_conv.bias"][:had] = kept["post_quant_conv.bias"]
    state["decoder.conv_in.weight"].zero_()
    state["decoder.conv_in.weight"][:, :had] = kept["decoder.conv_in.weight"]
    new.load_state_dict(state)
    return new


@torch.no_grad()
def grow_unet(old: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """A UNet of `channels` latent channels that predicts for the first what `old` predicts, and 0 for the others."""
    had = old.config["in_channels"]
    new = copy.deepcopy(old)
    for name in ("conv_in", "conv_out"):
        conv = getattr(old, name)
        into = {"conv_in": (channels, conv.out_channels), "conv_out": (conv.in_channels, channels)}[name]
        grown = nn.Conv2d(*into, kernel_size=3, padding=1)
        grown.weight.zero_()
        assert grown.bias is not None and conv.bias is not None
        grown.bias.zero_()
        if name == "conv_in":
            grown.weight[:, :had] = conv.weight
            grown.bias.copy_(conv.bias)
        else:
            grown.weight[:had] = conv.weight
            grown.bias[:had] = conv.bias
        setattr(new, name, grown)
    new.register_to_config(in_channels=channels, out_channels=channels)  # type: ignore[no-untyped-call]
    return new
