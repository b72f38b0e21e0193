"""Noise schedule of a diffusion model: abar_t of each timestep, noisy latents, training targets, x0 of a prediction.

Notation: x0 latents, eps noise, abar = alphas_cumprod[t], x_t = sqrt(abar) x0 + sqrt(1 - abar) eps.

Own code beside diffusers' DDPMScheduler.add_noise and .get_velocity: a scheduler rounds abar to the dtype of the
latents, moves it between devices, and can not hold abar of zero terminal SNR as `NoiseSchedule` has it. Here abar stays
float32, in functions without state; tests compare both.
"""

from dataclasses import dataclass
from pathlib import Path

from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from woundray.errors import UserError
from woundray.weights import diffusers_layout


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I) (Ho et al. 2020, eq. 4).

    Attributes:
        alphas_cumprod: abar_t for t = 0..T-1, float32.
        prediction_type: what the UNet was trained to predict: the noise (epsilon), or v = sqrt(abar) eps -
            sqrt(1 - abar) x_0 (Salimans & Ho 2022, arXiv 2202.00512).
    """

    alphas_cumprod: Tensor
    prediction_type: diffusers_layout.PredictionType

    @classmethod
    def load(cls, folder: Path) -> "NoiseSchedule":
        """Load the schedule that a base model was trained with.

        Raises:
            UserError: the prediction type is not known.
        """
        scheduler = DDPMScheduler.from_config(diffusers_layout.read_json(folder / "scheduler/scheduler_config.json"))
        return cls(scheduler.alphas_cumprod.float(), diffusers_layout.prediction_type(folder))

    def with_zero_terminal_snr(self) -> "NoiseSchedule":
        """Rescale to zero terminal SNR: the last step is pure noise, the first stays (arXiv 2305.08891, alg. 1).

        Raises:
            UserError: the model predicts epsilon, which says nothing about the image where there is only noise.
        """
        if self.prediction_type == "epsilon":
            raise UserError(
                "model.zero_terminal_snr: this base model predicts epsilon; leave it false, or use "
                "one that predicts v, such as sd21-v"
            )
        # diffusers' rescale_zero_terminal_snr computes in float32 from betas; this in float64 from abar
        root = self.alphas_cumprod.double().sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        # the sampling solver divides by abar: 2^-24 instead of 0, as in diffusers
        return NoiseSchedule(root.square().clamp(min=2**-24).float(), self.prediction_type)


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


def _factors(schedule: NoiseSchedule, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return sqrt(abar) and sqrt(1 - abar) of each row, (N, 1, 1, 1)."""
    abar = schedule.alphas_cumprod.to(like.device)[timesteps].view(-1, 1, 1, 1)
    return abar.sqrt(), (1 - abar).sqrt()
