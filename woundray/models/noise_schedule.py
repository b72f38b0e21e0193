"""Noise schedule of a diffusion model: abar_t of each timestep, and the prediction type of the UNet."""

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
