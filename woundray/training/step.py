"""One optimizer update: what is drawn for it, and its gradient."""

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from woundray.config import Config
from woundray.data.bank import Bank
from woundray.model.base import NoiseSchedule, added_conditions, decode, sample_latents
from woundray.training.loss import (
    add_noise,
    denoising_loss,
    perceptual_distance,
    predicted_x0,
    snr_weights,
    target,
)
from woundray.training.place import Place


class NonFiniteError(RuntimeError):
    """A loss or gradient that is infinite or no number: the run can not go on."""


@dataclass(frozen=True)
class Draws:
    """All that is random in one update, for the global batch of G rows: the same however many ranks share it.

    photo, view, timestep: (G,) int64; text_kept, perceptual: (G,) bool; latent_noise, noise: (G, 4, h, w).
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


@dataclass(frozen=True)
class Decoder:
    """What the perceptual term sees through: a differentiable decoder and a frozen feature network."""

    vae: AutoencoderKL
    trunk: nn.Module


def stream(seed: int, *key: int) -> torch.Generator:
    """A generator that is a function of its arguments alone, so that a resumed run draws what it would have drawn."""
    state = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def photo_order(photos: int, rows: int, seed: int, epoch: int) -> Tensor:
    """Indices of `rows` photographs for one epoch: each photograph once before any comes twice."""
    generator = stream(seed, epoch)
    rounds = [torch.randperm(photos, generator=generator) for _ in range(-(-rows // photos))]
    return torch.cat(rounds)[:rows]


def draw(photo: Tensor, bank: Bank, schedule: NoiseSchedule, config: Config, *, epoch: int, step: int) -> Draws:
    """The draws of one update for the photographs (G,) of its global batch."""
    generator = stream(config.reproducibility.seed, epoch, step)
    count, shape = len(photo), (len(photo), bank.train.shape[2] // 2, *bank.train.shape[3:])
    timestep = torch.randint(len(schedule.alphas_cumprod), (count,), generator=generator)
    noise = torch.randn(shape, generator=generator)
    noise += config.training.noise_offset * torch.randn((*shape[:2], 1, 1), generator=generator)
    low_noise = timestep < config.training.perceptual_max_timestep
    return Draws(
        photo=photo,
        view=torch.randint(bank.train.shape[1], (count,), generator=generator),
        timestep=timestep,
        text_kept=torch.rand(count, generator=generator) >= config.prompts.dropout,
        perceptual=low_noise & (low_noise.cumsum(0) <= config.training.perceptual_batch),
        latent_noise=torch.randn(shape, generator=generator),
        noise=noise,
    )


def losses(
    model: nn.Module,
    decoder: Decoder | None,
    bank: Bank,
    schedule: NoiseSchedule,
    draws: Draws,
    config: Config,
) -> tuple[Tensor, Tensor]:
    """Sums over the rows of the denoising loss and of the perceptual distance, scalars with gradient."""
    device = next(model.parameters()).device
    draws = Draws(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(draws).items()})

    # latents from the moments, noisy at each row's own timestep
    moments = bank.train[draws.photo.cpu(), draws.view.cpu()].to(device)
    x0 = sample_latents(moments, draws.latent_noise)
    x_t = add_noise(schedule, x0, draws.noise, draws.timestep)
    text = torch.where(draws.text_kept.view(-1, 1, 1), bank.positive.to(device), bank.negative.to(device))
    pooled = None
    if bank.positive_pooled is not None and bank.negative_pooled is not None:
        pools = bank.positive_pooled.to(device), bank.negative_pooled.to(device)
        pooled = torch.where(draws.text_kept.view(-1, 1), *pools)

    # the UNet's answer against eps or v
    dtype = next(model.parameters()).dtype
    added = added_conditions(pooled, config.model.resolution)
    prediction = model(x_t.to(dtype), draws.timestep, text.to(dtype), added_cond_kwargs=added, return_dict=False)[
        0
    ].float()
    weights = snr_weights(schedule, draws.timestep, config.training.min_snr_gamma)
    wanted = target(schedule, x0, draws.noise, draws.timestep)
    denoising = denoising_loss(prediction, wanted, weights).sum()

    # decoded x0 estimates of the low-noise rows against the decoded latents
    rows = draws.perceptual
    if decoder is None or not rows.any():
        return denoising, denoising.new_zeros(())
    x0_estimate = predicted_x0(schedule, x_t[rows], prediction[rows], draws.timestep[rows])
    with torch.no_grad():
        right = decode(decoder.vae, x0[rows])
    return denoising, perceptual_distance(decoder.trunk, decode(decoder.vae, x0_estimate), right).sum()


def backward(
    model: nn.Module,
    decoder: Decoder | None,
    bank: Bank,
    schedule: NoiseSchedule,
    draws: Draws,
    config: Config,
    place: Place,
) -> dict[str, float]:
    """Adds the gradient of the global batch's mean loss to the parameters; gives this rank's part of the losses.

    Each rank takes its rows of every accumulation step. DDP averages gradients over ranks, so that
    world_size * (sum over own rows) / (rows in all) averages to the mean over the global batch.

    Raises:
        NonFiniteError: naming the part of the loss.
    """
    rows_a_rank, rounds = config.training.batch_size, config.training.gradient_accumulation_steps
    count = len(draws.photo)
    perceptual_count = max(1, int(draws.perceptual.sum()))
    parts = {"train_loss": 0.0, "perceptual_loss": 0.0}
    for turn in range(rounds):
        own = draws.rows((turn * place.world_size + place.rank) * rows_a_rank, rows_a_rank)
        last = turn == rounds - 1
        waits = isinstance(model, DistributedDataParallel) and not last
        with model.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            denoising, perceptual = losses(model, decoder, bank, schedule, own, config)
            denoising, perceptual = denoising.mul(1 / count), perceptual.mul(1 / perceptual_count)
            for name, value in (("denoising", denoising), ("perceptual", perceptual)):
                if not torch.isfinite(value):
                    raise NonFiniteError(f"the {name} loss is {value.item()}")
            loss = denoising + config.training.perceptual_weight * perceptual
            loss.mul(place.world_size).backward()  # type: ignore[no-untyped-call]
        parts["train_loss"] += denoising.item()
        parts["perceptual_loss"] += perceptual.item()
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
    total = torch.zeros((), dtype=torch.float64)
    own = place.share(pictures * draws)
    for rows in torch.split(torch.arange(own.start, own.stop), config.validation.batch_size):
        clean, eps, t = (tensor[rows].to(device) for tensor in (x0, noise, timesteps))
        x_t = add_noise(schedule, clean, eps, t)
        text = bank.positive.to(device, dtype).expand(len(rows), -1, -1)
        pooled = bank.positive_pooled
        pooled = None if pooled is None else pooled.to(device).expand(len(rows), -1)
        added = added_conditions(pooled, config.model.resolution)
        prediction = model(x_t.to(dtype), t, text, added_cond_kwargs=added, return_dict=False)[0]
        weights = snr_weights(schedule, t, config.training.min_snr_gamma)
        total += denoising_loss(prediction, target(schedule, clean, eps, t), weights).sum().cpu()
    return float(place.total(total) / (pictures * draws))
