"""Loss equations of a train step: denoising loss, min-SNR weights; one row an image.

The SNR weights stay own code beside diffusers.training_utils.compute_snr, which moves a scheduler's abar between
devices and knows no zero terminal SNR; tests compare both.
"""

import torch
from torch import Tensor

from woundray.models.noise_schedule import NoiseSchedule


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
