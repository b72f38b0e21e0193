"""One optimizer update: what is drawn for it, and its gradient."""

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from woundray.config import Config
from woundray.data.latent_cache import LatentCache
from woundray.errors import UserError
from woundray.models.noise_schedule import NoiseSchedule
from woundray.models.trainable_weights import mixed_precision
from woundray.models.unet import added_conditions
from woundray.models.vae import sample_posterior
from woundray.training.cuda_graphs import CudaGraphedUNet
from woundray.training.distributed import DistributedContext
from woundray.training.losses import add_noise, denoising_loss, perceptual_distance, predicted_x0, snr_weights, target
from woundray.training.perceptual_loss import PerceptualNetworks

_PRIOR, _DROPOUT = 2**31, 2**31 + 1
"""Last numbers of a stream's key, beside seed, epoch and step. The noise's stream has none, and none may be 0, as numpy
fills keys up with zeros: [seed, epoch, step, 0] would be the noise's own."""


@dataclass(frozen=True)
class RandomInputs:
    """All that is random in one update, for the global batch of G rows: the same however many ranks share it.

    A photo from len(bank.train) on is a picture of the prior (see `with_prior`).

    photo, view, timestep: (G,) int64; text_kept, perceptual: (G,) bool; latent_noise, noise: (G, 4, h, w).
    """

    photo: Tensor
    view: Tensor
    timestep: Tensor
    text_kept: Tensor
    perceptual: Tensor
    latent_noise: Tensor
    noise: Tensor

    def rows(self, start: int, count: int) -> "RandomInputs":
        """Part of the rows."""
        return RandomInputs(**{name: tensor[start : start + count] for name, tensor in vars(self).items()})


def stream(seed: int, *key: int) -> torch.Generator:
    """A generator that is a function of its arguments alone, so that a resumed run draws what it would have drawn."""
    state = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def dropout_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Seed of torch's own generator for one update of one rank: dropout of adapters draws from it."""
    return stream(seed, epoch, step, _DROPOUT + rank).initial_seed()


def photo_order(photos: int, rows: int, seed: int, epoch: int) -> Tensor:
    """Indices of `rows` photographs for one epoch: each photograph once before any comes twice."""
    generator = stream(seed, epoch)
    rounds = [torch.randperm(photos, generator=generator) for _ in range(-(-rows // photos))]
    return torch.cat(rounds)[:rows]


def with_prior(photo: Tensor, latent_cache: LatentCache, config: Config, *, epoch: int, step: int) -> Tensor:
    """Photographs (G,) of an update, and after each batch of them as many pictures of the prior: (2 G,)."""
    if config.training.prior_weight == 0:
        return photo
    if latent_cache.prior is None:
        raise UserError("training.prior_weight: set it above 0 for the study itself, so that trials can vary it")
    generator = stream(config.reproducibility.seed, epoch, step, _PRIOR)
    prior = len(latent_cache.train) + torch.randint(len(latent_cache.prior), photo.shape, generator=generator)
    size = config.training.batch_size
    return torch.cat([photo.view(-1, size), prior.view(-1, size)], dim=1).flatten()


def draw_random_inputs(
    photo: Tensor, latent_cache: LatentCache, schedule: NoiseSchedule, config: Config, *, epoch: int, step: int
) -> RandomInputs:
    """The draws of one update for the photographs (G,) of its global batch."""
    generator = stream(config.reproducibility.seed, epoch, step)
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


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; the host does not wait until it is there."""
    return tensor.to(device, non_blocking=True)


def losses(
    model: nn.Module,
    perceptual_networks: PerceptualNetworks | None,
    latent_cache: LatentCache,
    schedule: NoiseSchedule,
    random_inputs: RandomInputs,
    config: Config,
) -> tuple[Tensor, Tensor]:
    """Sums over the rows of the denoising loss and of the perceptual distance, scalars with gradient.

    Rows of the prior count training.prior_weight times.
    """
    device = next(model.parameters()).device
    photo, view, rows = (
        random_inputs.photo,
        random_inputs.view,
        random_inputs.perceptual.nonzero()[:, 0],
    )  # on the CPU, as the bank
    random_inputs = RandomInputs(
        **{name: tensor.to(device, non_blocking=True) for name, tensor in vars(random_inputs).items()}
    )

    # latents from the moments, noisy at each row's own timestep
    photos = len(latent_cache.train)
    is_prior = photo >= photos
    moments = latent_cache.train[photo.clamp(max=photos - 1), view]
    captions = latent_cache.positive.expand(len(photo), -1, -1)
    if is_prior.any():
        assert latent_cache.prior is not None and latent_cache.prior_text is not None
        moments[is_prior] = latent_cache.prior[photo[is_prior] - photos]
        captions = torch.where(is_prior.view(-1, 1, 1), latent_cache.prior_text, captions)
    x0 = sample_posterior(_sent(moments, device), random_inputs.latent_noise)
    x_t = add_noise(schedule, x0, random_inputs.noise, random_inputs.timestep)
    text = torch.where(
        random_inputs.text_kept.view(-1, 1, 1), _sent(captions, device), _sent(latent_cache.negative, device)
    )
    pooled = None
    if latent_cache.positive_pooled is not None and latent_cache.negative_pooled is not None:
        caption_pools = latent_cache.positive_pooled.expand(len(photo), -1)
        if latent_cache.prior_pooled is not None:
            caption_pools = torch.where(is_prior.view(-1, 1), latent_cache.prior_pooled, caption_pools)
        negative_pooled = _sent(latent_cache.negative_pooled, device)
        pooled = torch.where(random_inputs.text_kept.view(-1, 1), _sent(caption_pools, device), negative_pooled)

    # the UNet's answer against eps or v
    dtype = next(model.parameters()).dtype
    added = added_conditions(pooled, config.model.resolution)
    with mixed_precision(config, device):
        answer = model(
            x_t.to(dtype), random_inputs.timestep, text.to(dtype), added_cond_kwargs=added, return_dict=False
        )
    prediction = answer[0].float()
    weights = snr_weights(
        schedule, random_inputs.timestep, config.training.min_snr_gamma, debiased=config.training.debiased
    )
    weights = torch.where(_sent(is_prior, device), config.training.prior_weight * weights, weights)
    wanted = target(schedule, x0, random_inputs.noise, random_inputs.timestep)
    denoising = denoising_loss(prediction, wanted, weights).sum()

    # decoded x0 estimates of the low-noise rows against the decoded latents
    if perceptual_networks is None or not len(rows):
        return denoising, denoising.new_zeros(())
    rows = rows.to(device, non_blocking=True)
    x0_estimate = predicted_x0(schedule, x_t[rows], prediction[rows], random_inputs.timestep[rows])
    with torch.no_grad():
        right = perceptual_networks.decode(x0[rows])
    return denoising, perceptual_distance(
        perceptual_networks.trunk, perceptual_networks.decode(x0_estimate), right
    ).sum()


def backward(
    model: nn.Module,
    perceptual_networks: PerceptualNetworks | None,
    latent_cache: LatentCache,
    schedule: NoiseSchedule,
    random_inputs: RandomInputs,
    config: Config,
    context: DistributedContext,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """Adds the gradient of the global batch's mean loss to the parameters; gives this rank's part of the losses.

    Each rank takes its rows of every accumulation step. DDP averages gradients over ranks, so that
    world_size * (sum over own rows) / (rows in all) averages to the mean over the global batch. Nothing waits for the
    device.

    Args:
        random_inputs: on the CPU.
        scaler: multiplies the loss, and so the gradient, by its scale.

    Returns:
        Denoising loss and perceptual distance, (2,) float64, on the device.
    """
    rounds, count = (
        config.training.gradient_accumulation_steps,
        int((random_inputs.photo < len(latent_cache.train)).sum()),
    )
    rows_a_rank = len(random_inputs.photo) // (rounds * context.world_size)
    perceptual_count = max(1, int(random_inputs.perceptual.sum()))
    parts = torch.zeros(2, dtype=torch.float64, device=context.device)
    if isinstance(model, CudaGraphedUNet) and rounds > 1:
        model.own_gradients()
    for turn in range(rounds):
        own = random_inputs.rows((turn * context.world_size + context.rank) * rows_a_rank, rows_a_rank)
        last = turn == rounds - 1
        waits = isinstance(model, DistributedDataParallel) and not last
        with model.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            denoising, perceptual = losses(model, perceptual_networks, latent_cache, schedule, own, config)
            denoising, perceptual = denoising.mul(1 / count), perceptual.mul(1 / perceptual_count)
            loss = (denoising + config.training.perceptual_weight * perceptual).mul(context.world_size)
            (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        parts += torch.stack([denoising.detach(), perceptual.detach()])
    return parts


@torch.inference_mode()
def validation_loss(
    model: nn.Module, latent_cache: LatentCache, schedule: NoiseSchedule, config: Config, context: DistributedContext
) -> float:
    """Denoising loss of held-out pictures for noise and timesteps that never change, in the mean over all of them."""
    pictures, random_inputs = len(latent_cache.validation), config.validation.loss_draws
    generator = stream(config.reproducibility.seed, 0)
    # timesteps spread evenly over the range, shuffled over the pictures
    timesteps = (
        (torch.arange(pictures * random_inputs) + 0.5) / (pictures * random_inputs) * len(schedule.alphas_cumprod)
    )
    timesteps = timesteps.long()[torch.randperm(pictures * random_inputs, generator=generator)]
    shape = (pictures * random_inputs, latent_cache.validation.shape[1] // 2, *latent_cache.validation.shape[2:])
    noise = torch.randn(shape, generator=generator)
    x0 = latent_cache.validation.chunk(2, dim=1)[0].repeat(random_inputs, 1, 1, 1)

    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    total = torch.zeros((), dtype=torch.float64, device=device)
    own = context.share(pictures * random_inputs)
    for rows in torch.split(torch.arange(own.start, own.stop), config.validation.batch_size):
        clean, eps, t = (tensor[rows].to(device) for tensor in (x0, noise, timesteps))
        x_t = add_noise(schedule, clean, eps, t)
        text = latent_cache.positive.to(device, dtype).expand(len(rows), -1, -1)
        pooled = latent_cache.positive_pooled
        pooled = None if pooled is None else pooled.to(device).expand(len(rows), -1)
        added = added_conditions(pooled, config.model.resolution)
        with mixed_precision(config, device):
            prediction = model(x_t.to(dtype), t, text, added_cond_kwargs=added, return_dict=False)[0]
        weights = torch.ones_like(t, dtype=torch.float32)  # trials whose losses weigh differently are compared by it
        total += denoising_loss(prediction, target(schedule, clean, eps, t), weights).sum()
    return float(context.total(total) / (pictures * random_inputs))
