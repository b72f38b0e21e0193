"""Random inputs of an update: order of images, noise, timesteps, prompt dropout, prior images.

All are functions of (seed, epoch, step, rank) and leave no state, so that a resumed run is bit-identical to one that
was never stopped.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from woundray.config import Config
from woundray.data.latent_cache import LatentCache
from woundray.errors import UserError
from woundray.models.noise_schedule import NoiseSchedule

_PRIOR, _DROPOUT = 2**31, 2**31 + 1
"""Last numbers of a stream's key, after seed, epoch and step. The noise's stream has none, and none may be 0, as numpy
fills keys up with zeros: [seed, epoch, step, 0] would be the noise's own."""


@dataclass(frozen=True)
class RandomInputs:
    """All random inputs of one update, for the global batch of G rows: the same for any number of ranks.

    Attributes:
        photo: index of the training image (G,) int64; from len(latent_cache.train) on, of a prior image.
        view: index of its augmented view (G,) int64.
        timestep: (G,) int64.
        text_kept: False where the prompt is dropped (G,) bool.
        perceptual: rows of the perceptual term (G,) bool.
        latent_noise: of the draw from the latents' moments (G, 4, h, w).
        noise: of the forward process (G, 4, h, w).
    """

    photo: Tensor
    view: Tensor
    timestep: Tensor
    text_kept: Tensor
    perceptual: Tensor
    latent_noise: Tensor
    noise: Tensor

    def rows(self, start: int, count: int) -> "RandomInputs":
        """Return some of the rows."""
        return RandomInputs(**{name: tensor[start : start + count] for name, tensor in vars(self).items()})

    def to(self, device: torch.device) -> "RandomInputs":
        """Copy to a device; the host does not wait for the copy."""
        return RandomInputs(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})


def random_stream(seed: int, *key: int) -> torch.Generator:
    """Make a CPU generator that is a function of its arguments alone."""
    state = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def dropout_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Return the seed of torch's global generator for one update of one rank: adapters' dropout draws from it."""
    return random_stream(seed, epoch, step, _DROPOUT + rank).initial_seed()


def photo_order(photos: int, rows: int, seed: int, epoch: int) -> Tensor:
    """Return indices of `rows` photographs for one epoch: each photograph once before any comes twice."""
    generator = random_stream(seed, epoch)
    passes = [torch.randperm(photos, generator=generator) for _ in range(-(-rows // photos))]
    return torch.cat(passes)[:rows]


def with_prior(photo: Tensor, latent_cache: LatentCache, config: Config, *, epoch: int, step: int) -> Tensor:
    """Append as many prior images to each batch of an update's photographs (G,): (2 G,).

    Without prior preservation (training.prior_weight 0) return the photographs as they are.
    """
    if config.training.prior_weight == 0:
        return photo
    if latent_cache.prior is None:
        raise UserError("training.prior_weight: set it above 0 for the study itself, so that trials can vary it")
    generator = random_stream(config.reproducibility.seed, epoch, step, _PRIOR)
    prior = len(latent_cache.train) + torch.randint(len(latent_cache.prior), photo.shape, generator=generator)
    size = config.training.batch_size
    return torch.cat([photo.view(-1, size), prior.view(-1, size)], dim=1).flatten()


def draw_random_inputs(
    photo: Tensor, latent_cache: LatentCache, schedule: NoiseSchedule, config: Config, generator: torch.Generator
) -> RandomInputs:
    """Draw noise, timesteps, views and prompt dropout of one update for the images (G,) of its global batch.

    Args:
        generator: `random_stream(seed, epoch, step)`.
    """
    count, shape = len(photo), (len(photo), latent_cache.train.shape[2] // 2, *latent_cache.train.shape[3:])
    timestep = torch.randint(len(schedule.alphas_cumprod), (count,), generator=generator)
    noise = torch.randn(shape, generator=generator)
    noise += config.training.noise_offset * torch.randn((*shape[:2], 1, 1), generator=generator)
    low_noise = (timestep < config.training.perceptual_max_timestep) & (photo < len(latent_cache.train))
    return RandomInputs(
        photo=photo,
        view=torch.randint(latent_cache.train.shape[1], (count,), generator=generator),
        timestep=timestep,
        text_kept=torch.rand(count, generator=generator) >= config.prompts.dropout,
        perceptual=low_noise & (low_noise.cumsum(0) <= config.training.perceptual_batch),
        latent_noise=torch.randn(shape, generator=generator),
        noise=noise,
    )
