"""VAE: images -> moments of the latents -> latents -> images. Latents are scaled by the VAE's scaling factor."""

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from woundray.errors import UserError
from woundray.models.loading import load_part


def load_vae(folder: Path, *, device: torch.device) -> AutoencoderKL:
    """Load the VAE, frozen, fp32: the VAEs of Stable Diffusion and SDXL overflow in fp16.

    Raises:
        UserError: it shifts its latents, as VAEs of other families do.
    """
    vae: AutoencoderKL = load_part(AutoencoderKL, folder, "vae", torch.float32)
    if vae.config["latents_mean"] is not None or vae.config["shift_factor"] is not None:
        raise UserError(f"model.base: {folder}/vae shifts its latents; give a model of the SD 1, 2 or XL family")
    torch.nn.Module.to(vae, device).requires_grad_(False).eval()
    return vae


@torch.inference_mode()
def encode_moments(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Encode images into mean and log variance of their scaled latents: uint8 (N, 3, H, W) -> fp32 (N, 8, H/8, W/8).

    The result is on the CPU.
    """
    inputs = images.to(vae.device).float() / 127.5 - 1  # NCHW, uint8 => [-1, 1]
    posterior = vae.encode(inputs).latent_dist
    factor = torch.tensor(vae.config["scaling_factor"])
    # scaled by s, a normal distribution has the mean s m and the log variance v + 2 log s
    return torch.cat([posterior.mean * factor, posterior.logvar + 2 * factor.log()], dim=1).cpu()


def sample_posterior(moments: Tensor, noise: Tensor) -> Tensor:
    """Sample latents from moments: (N, 8, h, w), noise (N, 4, h, w) -> (N, 4, h, w).

    diffusers' DiagonalGaussianDistribution draws its noise itself; here it comes in, so that a resumed run repeats it.
    """
    mean, log_variance = moments.chunk(2, dim=1)
    return mean + (0.5 * log_variance).exp() * noise


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode scaled latents (N, 4, h, w) -> images (N, 3, 8h, 8w), about [-1, 1], with gradient to the latents."""
    images: Tensor = vae.decode(latents.float() / vae.config["scaling_factor"], return_dict=False)[0]
    return images


def to_uint8(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to uint8 0..255, rounded and clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
