"""Growth of a trained tiny base: more latent channels, with all that it has learned kept.

The first latent channels stay the old ones. The new ones begin as what the old VAE loses: the principal components of
its error, of 8 x 8 px blocks. The encoder is taught to read them off a picture while the decoder is taught to draw
with them, each alone; then both are trained together.
"""

import copy
import math
from dataclasses import dataclass

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from pretrain_pictures import Pictures
from pretrain_run import Course, Log, TimeBox, Training, move
from pretrain_vae import (
    COLOUR_WEIGHT,
    PERCEPTUAL_WEIGHT,
    PHOTO_SHARE,
    TEXTURE_SHARE,
    Perceptual,
    colour_distance,
    mixed_numbers,
)
from torch import nn
from torch.nn import functional

BLOCK_PX = 8  # of a picture, a latent pixel
OLD_CHANNELS = 4  # of the VAE that was trained first
NEW_LOG_VARIANCE = -8.0  # of the new latent channels: next to no noise, so that the decoder heeds them from the start
FIRST_HEED = 0.02  # standard deviation of the decoder's weights on new channels at first
LATENT_NOISE = 0.05  # added to scaled latents while a decoder learns: a UNet's latents are not exact
STYLE_WEIGHT = 0.1
HOLD_OLD, HOLD_NEW = 1.0, 0.1  # on the squared distance of scaled latents from those of `Examples`, in joint training


@torch.no_grad()
def grow_vae(old: AutoencoderKL, channels: int) -> AutoencoderKL:
    """A VAE of `channels` latent channels, of which the first are those of `old`; the rest is not trained yet."""
    had = old.config["latent_channels"]
    new: AutoencoderKL = AutoencoderKL.from_config({**old.config, "latent_channels": channels})
    kept = old.state_dict()
    state = new.state_dict()
    for name, value in kept.items():
        if value.shape == state[name].shape:
            state[name] = value.clone()

    # Encoder: means, then log variances
    rows = torch.tensor([*range(had), *range(channels, channels + had)])
    for end in ("weight", "bias"):
        state[f"encoder.conv_out.{end}"][rows] = kept[f"encoder.conv_out.{end}"]
    state["encoder.conv_out.weight"][channels + had :] = 0
    state["encoder.conv_out.bias"][channels + had :] = NEW_LOG_VARIANCE
    state["quant_conv.weight"] = torch.eye(2 * channels)[:, :, None, None].clone()
    state["quant_conv.weight"][rows[:, None], rows] = kept["quant_conv.weight"]
    state["quant_conv.bias"].zero_()
    state["quant_conv.bias"][rows] = kept["quant_conv.bias"]

    # Decoder
    state["post_quant_conv.weight"] = torch.eye(channels)[:, :, None, None].clone()
    state["post_quant_conv.weight"][:had, :had] = kept["post_quant_conv.weight"]
    state["post_quant_conv.bias"].zero_()
    state["post_quant_conv.bias"][:had] = kept["post_quant_conv.bias"]
    state["decoder.conv_in.weight"].normal_(std=FIRST_HEED)
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


@dataclass(frozen=True)
class Examples:
    """Pictures (N, 3, H, W) uint8, and the latents (N, C, H / 8, W / 8) that a grown VAE is to find for them."""

    pixels: torch.Tensor
    latents: torch.Tensor

    def batch(self, count: int, side_px: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops of `side_px`, on the grid of the latents: NCHW in -1..1, and their latents."""
        device = self.pixels.device
        numbers = torch.randint(len(self.pixels), (count,), device=device, generator=generator)
        corners = (self.pixels.shape[-1] - side_px) // BLOCK_PX + 1
        top, left = (int(n) for n in torch.randint(corners, (2,), device=device, generator=generator))
        cells = side_px // BLOCK_PX
        rows, columns = (slice(BLOCK_PX * n, BLOCK_PX * n + side_px) for n in (top, left))
        true = self.pixels[numbers, :, rows, columns].float() / 127.5 - 1
        latents = self.latents[numbers, :, top : top + cells, left : left + cells]
        return (
            true.contiguous(memory_format=torch.channels_last),
            latents.contiguous(memory_format=torch.channels_last),
        )


@torch.inference_mode()
def make_examples(old: AutoencoderKL, channels: int, pictures: Pictures, count: int, course: Course) -> Examples:
    """Crops of `count` pictures with the latents of `old`, and the main components of what it loses of them.

    A component is a direction in the 192 values of a block; scaled, each has the standard deviation 1.
    """
    device = pictures.pixels.device
    generator = torch.Generator(device).manual_seed(course.seed)
    numbers = mixed_numbers(pictures, TEXTURE_SHARE, PHOTO_SHARE, count, generator)
    pixels, latents, lost = [], [], []
    for part in torch.split(numbers, 16):
        true = pictures.crops(part, generator)
        mean = old.encode(true.contiguous(memory_format=torch.channels_last)).latent_dist.mean
        lost.append(functional.pixel_unshuffle(true - old.decode(mean).sample, BLOCK_PX).half())
        pixels.append(((true + 1) * 127.5).round().byte())
        latents.append(mean)
    errors = torch.cat(lost)  # N, 192, h, w
    rows = errors.float().permute(0, 2, 3, 1).flatten(0, 2)
    main = torch.linalg.eigh(rows.T @ rows / len(rows)).eigenvectors.flip(1)[:, : channels - latents[0].shape[1]]
    components = torch.einsum("nchw,ck->nkhw", errors.float(), main)
    components /= components.std((0, 2, 3), keepdim=True) * old.config["scaling_factor"]
    return Examples(torch.cat(pixels), torch.cat([torch.cat(latents), components], dim=1))


def train_new_encoder(vae: AutoencoderKL, examples: Examples, training: Training, box: TimeBox, course: Course) -> None:
    """Train the encoder alone to find the examples' latents."""
    generator = torch.Generator(examples.pixels.device).manual_seed(course.seed + training.step)
    log = Log(training, course.batch)
    while (share := box.share(training.step)) < 1:
        true, wanted = examples.batch(course.batch, course.crop_px, generator)
        held, new = _distances(vae, vae.encode(true).latent_dist.mean, wanted)
        training.advance(2 * held + new, share)
        log.note({"held": held, "new": new})
    training.finish()


def train_new_decoder(vae: AutoencoderKL, examples: Examples, training: Training, box: TimeBox, course: Course) -> None:
    """Train the decoder alone to draw the examples from their latents."""
    perceptual = Perceptual(course.crop_px)
    move(perceptual, examples.pixels.device)
    generator = torch.Generator(examples.pixels.device).manual_seed(course.seed + training.step)
    log = Log(training, course.batch)
    while (share := box.share(training.step)) < 1:
        true, wanted = examples.batch(course.batch, course.crop_px, generator)
        loss, parts = _drawing_loss(vae, perceptual, true, wanted, generator)
        training.advance(loss, share)
        log.note({"loss": loss, **parts})
    training.finish()


def train_grown(vae: AutoencoderKL, examples: Examples, training: Training, box: TimeBox, course: Course) -> None:
    """Train encoder and decoder together, the latents held near those of the examples."""
    perceptual = Perceptual(course.crop_px)
    move(perceptual, examples.pixels.device)
    generator = torch.Generator(examples.pixels.device).manual_seed(course.seed + training.step)
    log = Log(training, course.batch)
    while (share := box.share(training.step)) < 1:
        true, wanted = examples.batch(course.batch, course.crop_px, generator)
        mean = vae.encode(true).latent_dist.mean
        held, new = _distances(vae, mean, wanted)
        loss, parts = _drawing_loss(vae, perceptual, true, mean, generator)
        loss = loss + HOLD_OLD * held + HOLD_NEW * new
        training.advance(loss, share)
        log.note({"loss": loss, **parts, "held": held, "new": new})
    training.finish()


@torch.no_grad()
def set_noise(vae: AutoencoderKL) -> None:
    """Make LATENT_NOISE the standard deviation of scaled latents, of every picture: training leaves it to chance."""
    assert vae.quant_conv is not None and vae.quant_conv.bias is not None
    channels = vae.config["latent_channels"]
    vae.quant_conv.weight[channels:] = 0
    vae.quant_conv.bias[channels:] = 2 * math.log(LATENT_NOISE / vae.config["scaling_factor"])


def _distances(vae: AutoencoderKL, found: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean squared distance of scaled latents, of the old and of the new channels."""
    errors = (vae.config["scaling_factor"] * (found - wanted)).square()
    return errors[:, :OLD_CHANNELS].mean(), errors[:, OLD_CHANNELS:].mean()


def _drawing_loss(
    vae: AutoencoderKL, perceptual: Perceptual, true: torch.Tensor, latents: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of what is decoded from noised latents, and its parts; content and style on a third of the batch."""
    noise = torch.randn(latents.shape, device=latents.device, generator=generator)
    drawn = vae.decode(latents + LATENT_NOISE / vae.config["scaling_factor"] * noise).sample
    pixel = (drawn - true).abs().mean() + (drawn - true).square().mean()
    pixel = pixel + COLOUR_WEIGHT * colour_distance(drawn, true)
    judged = max(1, len(true) // 3)
    content, style = perceptual(drawn[:judged], true[:judged])
    loss = pixel + PERCEPTUAL_WEIGHT * content + STYLE_WEIGHT * style
    return loss, {"pixel": pixel, "content": content, "style": style}
