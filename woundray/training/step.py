"""One optimizer update: what is drawn for it, and its gradient."""

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from woundray.config import Config
from woundray.data.bank import Bank
from woundray.errors import UserError
from woundray.model.base import NoiseSchedule, added_conditions, sample_latents
from woundray.model.weights import mixed_precision
from woundray.training.loss import (
    add_noise,
    denoising_loss,
    perceptual_distance,
    predicted_x0,
    snr_weights,
    target,
)
from woundray.training.perceptual import Perception
from woundray.training.place import Place
from woundray.training.replay import Replayed

_PRIOR, _DROPOUT = 2**31, 2**31 + 1
"""Last numbers of a stream's key, beside seed, epoch and step. The noise's stream has none, and none may be 0, as numpy
fills keys up with zeros: [seed, epoch, step, 0] would be the noise's own."""


@dataclass(frozen=True)
class Draws:
    """All that is random in one update, for the global batch of G rows: the same however many ranks share it.

    A photo from len(bank.train) on is a picture of the prior (see `with_prior`).

    photo, view, timestep: (G,) int64; text_kept, perceptual: (G,) bool; latent_noise, noise: (G, C, h, w).
    """

    photo: Tensor
    view: Tensor
    timestep: Tensor
    text_kept: Tensor
    perceptual: Tensor
    latent_noise: Tensor
    noise: Tensor

    def rows(self, start: int, count: int) -> "Draws":
        """Part of the rows."""
        return Draws(**{name: tensor[start : start + count] for name, tensor in vars(self).items()})


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


def with_prior(photo: Tensor, bank: Bank, config: Config, *, epoch: int, step: int) -> Tensor:
    """Photographs (G,) of an update, and after each batch of them as many pictures of the prior: (2 G,)."""
    if config.training.prior_weight == 0:
        return photo
    if bank.prior is None:
        raise UserError("training.prior_weight: set it above 0 for the study itself, so that trials can vary it")
    generator = stream(config.reproducibility.seed, epoch, step, _PRIOR)
    prior = len(bank.train) + torch.randint(len(bank.prior), photo.shape, generator=generator)
    size = config.training.batch_size
    return torch.cat([photo.view(-1, size), prior.view(-1, size)], dim=1).flatten()


def draw(photo: Tensor, bank: Bank, schedule: NoiseSchedule, config: Config, *, epoch: int, step: int) -> Draws:
    """The draws of one update for the photographs (G,) of its global batch."""
    generator = stream(config.reproducibility.seed, epoch, step)
    count, shape = len(photo), (len(photo), bank.train.shape[2] // 2, *bank.train.shape[3:])
    timestep = torch.randint(len(schedule.alphas_cumprod), (count,), generator=generator)
    noise = torch.randn(shape, generator=generator)
    noise += config.training.noise_offset * torch.randn((*shape[:2], 1, 1), generator=generator)
    low_noise = (timestep < config.training.perceptual_max_timestep) & (photo < len(bank.train))
    return Draws(
        photo=photo,
        view=torch.randint(bank.train.shape[1], (count,), generator=generator),
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
    perception: Perception | None,
    bank: Bank,
    schedule: NoiseSchedule,
    draws: Draws,
    config: Config,
) -> tuple[Tensor, Tensor]:
    """Sums over the rows of the denoising loss and of the perceptual distance, scalars with gradient.

    Rows of the prior count training.prior_weight times.
    """
    device = next(model.parameters()).device
    photo, view, rows = draws.photo, draws.view, draws.perceptual.nonzero()[:, 0]  # on the CPU, as the bank
    draws = Draws(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(draws).items()})

    # latents from the moments, noisy at each row's own timestep
    photos = len(bank.train)
    is_prior = photo >= photos
    moments = bank.train[photo.clamp(max=photos - 1), view]
    captions = bank.positive.expand(len(photo), -1, -1)
    if is_prior.any():
        assert bank.prior is not None and bank.prior_text is not None
        moments[is_prior] = bank.prior[photo[is_prior] - photos]
        captions = torch.where(is_prior.view(-1, 1, 1), bank.prior_text, captions)
    x0 = sample_latents(_sent(moments, device), draws.latent_noise)
    x_t = add_noise(schedule, x0, draws.noise, draws.timestep)
    text = torch.where(draws.text_kept.view(-1, 1, 1), _sent(captions, device), _sent(bank.negative, device))
    pooled = None
    if bank.positive_pooled is not None and bank.negative_pooled is not None:
        caption_pools = bank.positive_pooled.expand(len(photo), -1)
        if bank.prior_pooled is not None:
            caption_pools = torch.where(is_prior.view(-1, 1), bank.prior_pooled, caption_pools)
        negative_pooled = _sent(bank.negative_pooled, device)
        pooled = torch.where(draws.text_kept.view(-1, 1), _sent(caption_pools, device), negative_pooled)

    # the UNet's answer against eps or v
    dtype = next(model.parameters()).dtype
    added = added_conditions(pooled, config.model.resolution)
    with mixed_precision(config, device):
        answer = model(x_t.to(dtype), draws.timestep, text.to(dtype), added_cond_kwargs=added, return_dict=False)
    prediction = answer[0].float()
    weights = snr_weights(schedule, draws.timestep, config.training.min_snr_gamma, debiased=config.training.debiased)
    weights = torch.where(_sent(is_prior, device), config.training.prior_weight * weights, weights)
    wanted = target(schedule, x0, draws.noise, draws.timestep)
    denoising = denoising_loss(prediction, wanted, weights).sum()

    # decoded x0 estimates of the low-noise rows against the decoded latents
    if perception is None or not len(rows):
        return denoising, denoising.new_zeros(())
    rows = rows.to(device, non_blocking=True)
    x0_estimate = predicted_x0(schedule, x_t[rows], prediction[rows], draws.timestep[rows])
    with torch.no_grad():
        right = perception.decode(x0[rows])
    return denoising, perceptual_distance(perception.trunk, perception.decode(x0_estimate), right).sum()


def backward(
    model: nn.Module,
    perception: Perception | None,
    bank: Bank,
    schedule: NoiseSchedule,
    draws: Draws,
    config: Config,
    place: Place,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """Adds the gradient of the global batch's mean loss to the parameters; gives this rank's part of the losses.

    Each rank takes its rows of every accumulation step. DDP averages gradients over ranks, so that
    world_size * (sum over own rows) / (rows in all) averages to the mean over the global batch. Nothing waits for the
    device.

    Args:
        draws: on the CPU.
        scaler: multiplies the loss, and so the gradient, by its scale.

    Returns:
        Denoising loss and perceptual distance, (2,) float64, on the device.
    """
    rounds, count = config.training.gradient_accumulation_steps, int((draws.photo < len(bank.train)).sum())
    rows_a_rank = len(draws.photo) // (rounds * place.world_size)
    perceptual_count = max(1, int(draws.perceptual.sum()))
    parts = torch.zeros(2, dtype=torch.float64, device=place.device)
    if isinstance(model, Replayed) and rounds > 1:
        model.own_gradients()
    for turn in range(rounds):
        own = draws.rows((turn * place.world_size + place.rank) * rows_a_rank, rows_a_rank)
        last = turn == rounds - 1
        waits = isinstance(model, DistributedDataParallel) and not last
        with model.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            denoising, perceptual = losses(model, perception, bank, schedule, own, config)
            denoising, perceptual = denoising.mul(1 / count), perceptual.mul(1 / perceptual_count)
            loss = (denoising + config.training.perceptual_weight * perceptual).mul(place.world_size)
            (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        parts += torch.stack([denoising.detach(), perceptual.detach()])
    return parts


@torch.inference_mode()
def validation_loss(model: nn.Module, bank: Bank, schedule: NoiseSchedule, config: Config, place: Place) -> float:
    """Denoising loss of held-out pictures for noise and timesteps that never change, in the mean over all of them."""
    pictures, draws = len(bank.validation), config.validation.loss_draws
    generator = stream(config.reproducibility.seed, 0)
    # timesteps spread evenly over the range, shuffled over the pictures
    timesteps = (torch.arange(pictures * draws) + 0.5) / (pictures * draws) * len(schedule.alphas_cumprod)
    timesteps = timesteps.long()[torch.randperm(pictures * draws, generator=generator)]
    shape = (pictures * draws, bank.validation.shape[1] // 2, *bank.validation.shape[2:])
    noise = torch.randn(shape, generator=generator)
    x0 = bank.validation.chunk(2, dim=1)[0].repeat(draws, 1, 1, 1)

    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    total = torch.zeros((), dtype=torch.float64, device=device)
    own = place.share(pictures * draws)
    for rows in torch.split(torch.arange(own.start, own.stop), config.validation.batch_size):
        clean, eps, t = (tensor[rows].to(device) for tensor in (x0, noise, timesteps))
        x_t = add_noise(schedule, clean, eps, t)
        text = bank.positive.to(device, dtype).expand(len(rows), -1, -1)
        pooled = bank.positive_pooled
        pooled = None if pooled is None else pooled.to(device).expand(len(rows), -1)
        added = added_conditions(pooled, config.model.resolution)
        with mixed_precision(config, device):
            prediction = model(x_t.to(dtype), t, text, added_cond_kwargs=added, return_dict=False)[0]
        weights = torch.ones_like(t, dtype=torch.float32)  # trials whose losses weigh differently are compared by it
        total += denoising_loss(prediction, target(schedule, clean, eps, t), weights).sum()
    return float(place.total(total) / (pictures * draws))
