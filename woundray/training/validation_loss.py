"""Validation loss: denoising loss of held-out images at fixed noise and timesteps."""

import torch

from woundray.config import Config
from woundray.data.latent_cache import LatentCache
from woundray.models.noise_schedule import NoiseSchedule, add_noise, target
from woundray.models.trainable_weights import mixed_precision
from woundray.models.unet import added_conditions
from woundray.training.distributed import DistributedContext
from woundray.training.losses import denoising_loss
from woundray.training.random_inputs import random_stream


@torch.inference_mode()
def validation_loss(
    model: torch.nn.Module,
    latent_cache: LatentCache,
    schedule: NoiseSchedule,
    config: Config,
    context: DistributedContext,
) -> float:
    """Return the mean denoising loss over held-out images, each at validation.loss_draws noises and timesteps.

    Noise and timesteps are the same at every call; ranks share the rows.
    """
    images, draws = len(latent_cache.validation), config.validation.loss_draws
    generator = random_stream(config.reproducibility.seed, 0)
    # timesteps spread evenly over the range, shuffled over the images
    timesteps = (torch.arange(images * draws) + 0.5) / (images * draws) * len(schedule.alphas_cumprod)
    timesteps = timesteps.long()[torch.randperm(images * draws, generator=generator)]
    shape = (images * draws, latent_cache.validation.shape[1] // 2, *latent_cache.validation.shape[2:])
    noise = torch.randn(shape, generator=generator)
    x0 = latent_cache.validation.chunk(2, dim=1)[0].repeat(draws, 1, 1, 1)

    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    total = torch.zeros((), dtype=torch.float64, device=device)
    shard = context.shard(images * draws)
    for rows in torch.split(torch.arange(shard.start, shard.stop), config.validation.batch_size):
        clean, eps, t = (tensor[rows].to(device) for tensor in (x0, noise, timesteps))
        x_t = add_noise(schedule, clean, eps, t)
        text = latent_cache.positive.to(device, dtype).expand(len(rows), -1, -1)
        pooled = latent_cache.positive_pooled
        pooled = None if pooled is None else pooled.to(device).expand(len(rows), -1)
        added = added_conditions(pooled, config.model.resolution)
        with mixed_precision(config, device):
            prediction = model(x_t.to(dtype), t, text, added_cond_kwargs=added, return_dict=False)[0]
        weights = torch.ones_like(t, dtype=torch.float32)  # it compares trials whose losses weigh differently
        total += denoising_loss(prediction, target(schedule, clean, eps, t), weights).sum()
    return float(context.all_reduce_sum(total) / (images * draws))
