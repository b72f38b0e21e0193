"""Loss equations of a train step: noise, targets, x0, min-SNR weights, perceptual distance; one row an image.

Notation: x0 latents, eps noise, abar = alphas_cumprod[t], x_t = sqrt(abar) x0 + sqrt(1 - abar) eps.

Own code beside diffusers' DDPMScheduler.add_noise and .get_velocity and training_utils.compute_snr: a scheduler rounds
abar to the dtype of the latents, moves it between devices, and can not hold abar of zero terminal SNR as
`NoiseSchedule` has it. Here abar stays float32, in functions without state; tests compare both.
"""

import torch
from torch import Tensor, nn

from woundray.models.noise_schedule import NoiseSchedule


def add_noise(schedule: NoiseSchedule, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Return x_t of each row at its own timestep."""
    signal, sigma = _factors(schedule, timesteps, x0)
    return signal * x0 + sigma * noise


def target(schedule: NoiseSchedule, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Return the UNet's training target: eps, or v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans & Ho 2022)."""
    if schedule.prediction_type == "epsilon":
        return noise
    signal, sigma = _factors(schedule, timesteps, x0)
    return signal * noise - sigma * x0


def predicted_x0(schedule: NoiseSchedule, x_t: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
    """Return x0 of a prediction: (x_t - sqrt(1 - abar) eps) / sqrt(abar), or sqrt(abar) x_t - sqrt(1 - abar) v."""
    signal, sigma = _factors(schedule, timesteps, x_t)
    if schedule.prediction_type == "epsilon":
        return (x_t - sigma * prediction) / signal
    return signal * x_t - sigma * prediction


def snr_weights(schedule: NoiseSchedule, timesteps: Tensor, gamma: float, *, debiased: bool = False) -> Tensor:
    """Return loss weights of rows (N,): min(SNR, gamma) / SNR for eps, min(SNR, gamma) / (SNR + 1) for v.

    SNR = abar / (1 - abar). Hang et al. 2023, arXiv 2303.09556, sec. 3.4; gamma 0: all ones.

    Args:
        debiased: divide by sqrt(max(SNR, 0.001)) (Yu et al. 2023, arXiv 2310.08442).
    """
    abar = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = abar / (1 - abar)
    divisor = snr if schedule.prediction_type == "epsilon" else snr + 1
    weights = snr.clamp(max=gamma) / divisor if gamma > 0 else torch.ones_like(snr)
    return weights * snr.clamp(min=1e-3).rsqrt() if debiased else weights


def denoising_loss(prediction: Tensor, expected: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean squared error of each row (N,), fp32."""
    error = (prediction.float() - expected.float()).square().mean(dim=(1, 2, 3))
    return weights * error


def perceptual_distance(trunk: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    """Return the distance of deep features of each row (N,), with gradient to `images`.

    The feature maps are scaled to unit length at each position and compared by their squared difference, as LPIPS does
    with all its weights at 1 (Zhang et al. 2018, arXiv 1801.03924, eq. 1). The trunk computes in fp32.

    Args:
        images: (N, 3, H, W) in [-1, 1]; `references` alike.
    """
    with torch.no_grad():
        reference_maps = trunk(references.float())
    total = torch.zeros(len(images), device=images.device)
    for map_, reference in zip(trunk(images.float()), reference_maps, strict=True):
        difference = nn.functional.normalize(map_, dim=1) - nn.functional.normalize(reference, dim=1)
        total = total + difference.square().sum(dim=1).mean(dim=(1, 2)) / len(reference_maps)
    return total


def _factors(schedule: NoiseSchedule, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return sqrt(abar) and sqrt(1 - abar) of each row, (N, 1, 1, 1)."""
    abar = schedule.alphas_cumprod.to(like.device)[timesteps].view(-1, 1, 1, 1)
    return abar.sqrt(), (1 - abar).sqrt()
