"""The equations of one training step; pure functions of tensors, one row a picture.

Notation: x0 latents, eps noise, abar = alphas_cumprod[t], x_t = sqrt(abar) x0 + sqrt(1 - abar) eps.
"""

import torch
from torch import Tensor, nn

from woundray.models.noise_schedule import NoiseSchedule


def add_noise(schedule: NoiseSchedule, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t of each row at its own timestep."""
    signal, sigma = _factors(schedule, timesteps, x0)
    return signal * x0 + sigma * noise


def target(schedule: NoiseSchedule, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet should answer: eps, or v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans & Ho 2022)."""
    if schedule.prediction_type == "epsilon":
        return noise
    signal, sigma = _factors(schedule, timesteps, x0)
    return signal * noise - sigma * x0


def predicted_x0(schedule: NoiseSchedule, x_t: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
    """x0 that the answer implies: (x_t - sqrt(1 - abar) eps) / sqrt(abar), or sqrt(abar) x_t - sqrt(1 - abar) v."""
    signal, sigma = _factors(schedule, timesteps, x_t)
    if schedule.prediction_type == "epsilon":
        return (x_t - sigma * prediction) / signal
    return signal * x_t - sigma * prediction


def snr_weights(schedule: NoiseSchedule, timesteps: Tensor, gamma: float, *, debiased: bool = False) -> Tensor:
    """Weight of each row (N,): min(SNR, gamma) / SNR for eps, min(SNR, gamma) / (SNR + 1) for v.

    SNR = abar / (1 - abar). Hang et al. 2023, arXiv 2303.09556, sec. 3.4; gamma 0: all ones. `debiased` ones are
    divided by sqrt(SNR) (Yu et al. 2023, arXiv 2310.08442), which is taken as 0.001 at least under the root.
    """
    abar = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = abar / (1 - abar)
    divisor = snr if schedule.prediction_type == "epsilon" else snr + 1
    weights = snr.clamp(max=gamma) / divisor if gamma > 0 else torch.ones_like(snr)
    return weights * snr.clamp(min=1e-3).rsqrt() if debiased else weights


def denoising_loss(prediction: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error of each row (N,), fp32."""
    error = (prediction.float() - wanted.float()).square().mean(dim=(1, 2, 3))
    return weights * error


def perceptual_distance(trunk: nn.Module, images: Tensor, wanted: Tensor) -> Tensor:
    """Distance of deep features of each row (N,); images (N, 3, H, W) in [-1, 1], with gradient to `images`.

    The feature maps are scaled to unit length at each place and compared by their squared difference, as LPIPS does
    with all its weights at 1 (Zhang et al. 2018, arXiv 1801.03924, eq. 1). The trunk computes in fp32.
    """
    with torch.no_grad():
        wanted_maps = trunk(wanted.float())
    total = torch.zeros(len(images), device=images.device)
    for found, right in zip(trunk(images.float()), wanted_maps, strict=True):
        difference = nn.functional.normalize(found, dim=1) - nn.functional.normalize(right, dim=1)
        total = total + difference.square().sum(dim=1).mean(dim=(1, 2)) / len(wanted_maps)
    return total


def _factors(schedule: NoiseSchedule, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar) and sqrt(1 - abar) of each row, (N, 1, 1, 1)."""
    abar = schedule.alphas_cumprod.to(like.device)[timesteps].view(-1, 1, 1, 1)
    return abar.sqrt(), (1 - abar).sqrt()
