"""Train step: losses on noise and on x0, their gradient with accumulation, one optimizer and EMA update."""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from woundray.config import Config
from woundray.data.latent_cache import LatentCache
from woundray.models.noise_schedule import NoiseSchedule, add_noise, predicted_x0, target
from woundray.models.trainable_weights import mixed_precision
from woundray.models.unet import added_conditions
from woundray.models.vae import sample_posterior
from woundray.training.cuda_graphs import CudaGraphedUNet
from woundray.training.distributed import DistributedContext
from woundray.training.losses import denoising_loss, snr_weights
from woundray.training.perceptual_loss import PerceptualNetworks, perceptual_distance
from woundray.training.random_inputs import RandomInputs
from woundray.training.train_state import TrainState


@dataclass(frozen=True)
class LossContext:
    """Everything but the random inputs that the losses are computed from.

    Attributes:
        model: the UNet, bare or wrapped.
        perceptual_networks: None: no perceptual term.
    """

    model: nn.Module
    perceptual_networks: PerceptualNetworks | None
    latent_cache: LatentCache
    schedule: NoiseSchedule
    config: Config


def train_step(state: TrainState, random_inputs: RandomInputs) -> tuple[Tensor, Tensor]:
    """Do one optimizer and EMA update, without waiting for the device.

    Where the loss is scaled (fp16), an update whose gradient overflowed is skipped.

    Returns:
        This rank's parts of the losses, (2,), and the norm of the gradient.
    """
    precomputed = state.precomputed
    inputs = LossContext(
        state.model, state.perceptual_networks, precomputed.latent_cache, precomputed.schedule, state.config
    )
    losses = backward(inputs, random_inputs, state.context, state.scaler)
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.parameters.values(), state.config.training.max_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.update(state.parameters)
    return losses, norm


def backward(
    inputs: LossContext,
    random_inputs: RandomInputs,
    context: DistributedContext,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """Add the gradient of the global batch's mean loss to the parameters; return this rank's parts of the losses.

    Each rank takes its rows of every accumulation step. DDP averages gradients over ranks, so that
    world_size * (sum over the rank's rows) / (rows in all) averages to the mean over the global batch. Nothing waits
    for the device.

    Args:
        random_inputs: on the CPU.
        scaler: multiplies the loss, and so the gradient, by its scale.

    Returns:
        Denoising loss and perceptual distance, (2,) float64, on the device.
    """
    model, config = inputs.model, inputs.config
    accumulation_steps = config.training.gradient_accumulation_steps
    photo_count = int((random_inputs.photo < len(inputs.latent_cache.train)).sum())
    micro_batch = len(random_inputs.photo) // (accumulation_steps * context.world_size)
    perceptual_count = max(1, int(random_inputs.perceptual.sum()))
    parts = torch.zeros(2, dtype=torch.float64, device=context.device)
    if isinstance(model, CudaGraphedUNet) and accumulation_steps > 1:
        model.own_gradients()
    for accumulation_step in range(accumulation_steps):
        start = (accumulation_step * context.world_size + context.rank) * micro_batch
        is_last = accumulation_step == accumulation_steps - 1
        without_sync = isinstance(model, DistributedDataParallel) and not is_last
        with model.no_sync() if without_sync else contextlib.nullcontext():  # type: ignore[operator]
            denoising, perceptual = compute_losses(inputs, random_inputs.rows(start, micro_batch))
            denoising, perceptual = denoising.mul(1 / photo_count), perceptual.mul(1 / perceptual_count)
            loss = (denoising + config.training.perceptual_weight * perceptual).mul(context.world_size)
            (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        parts += torch.stack([denoising.detach(), perceptual.detach()])
    return parts


def compute_losses(inputs: LossContext, random_inputs: RandomInputs) -> tuple[Tensor, Tensor]:
    """Compute the sums over rows of the denoising loss and of the perceptual distance on x0, scalars with gradient.

    Rows of prior images count training.prior_weight times.
    """
    model, schedule, config = inputs.model, inputs.schedule, inputs.config
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    perceptual_rows = random_inputs.perceptual.nonzero()[:, 0]  # on the CPU: nothing waits for the device
    on_device = random_inputs.to(device)
    x0, text, pooled, is_prior = _latents_and_text(inputs.latent_cache, random_inputs, on_device)
    x_t = add_noise(schedule, x0, on_device.noise, on_device.timestep)

    # the UNet's prediction against eps or v
    added = added_conditions(pooled, config.model.resolution)
    with mixed_precision(config, device):
        output = model(x_t.to(dtype), on_device.timestep, text.to(dtype), added_cond_kwargs=added, return_dict=False)
    prediction = output[0].float()
    weights = snr_weights(
        schedule, on_device.timestep, config.training.min_snr_gamma, debiased=config.training.debiased
    )
    weights = torch.where(_to_device(is_prior, device), config.training.prior_weight * weights, weights)
    expected = target(schedule, x0, on_device.noise, on_device.timestep)
    denoising = denoising_loss(prediction, expected, weights).sum()

    # perceptual loss: decoded x0 estimates of the low-noise rows against the decoded latents
    if inputs.perceptual_networks is None or not len(perceptual_rows):
        return denoising, denoising.new_zeros(())
    rows = _to_device(perceptual_rows, device)
    x0_estimate = predicted_x0(schedule, x_t[rows], prediction[rows], on_device.timestep[rows])
    decode, trunk = inputs.perceptual_networks.decode, inputs.perceptual_networks.trunk
    with torch.no_grad():
        real = decode(x0[rows])
    return denoising, perceptual_distance(trunk, decode(x0_estimate), real).sum()


def _latents_and_text(
    latent_cache: LatentCache, random_inputs: RandomInputs, on_device: RandomInputs
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return x0 drawn from the cached moments, text embeddings and pooled ones, and which rows are prior images.

    Args:
        random_inputs: on the CPU, as the cache; `on_device`: the same on the device.
    """
    device = on_device.noise.device
    photo, photos = random_inputs.photo, len(latent_cache.train)
    is_prior = photo >= photos
    moments = latent_cache.train[photo.clamp(max=photos - 1), random_inputs.view]
    captions = latent_cache.positive.expand(len(photo), -1, -1)
    if is_prior.any():
        assert latent_cache.prior is not None and latent_cache.prior_text is not None
        moments[is_prior] = latent_cache.prior[photo[is_prior] - photos]
        captions = torch.where(is_prior.view(-1, 1, 1), latent_cache.prior_text, captions)
    x0 = sample_posterior(_to_device(moments, device), on_device.latent_noise)
    negative = _to_device(latent_cache.negative, device)
    text = torch.where(on_device.text_kept.view(-1, 1, 1), _to_device(captions, device), negative)
    pooled = None
    if latent_cache.positive_pooled is not None and latent_cache.negative_pooled is not None:
        pooled_captions = latent_cache.positive_pooled.expand(len(photo), -1)
        if latent_cache.prior_pooled is not None:
            pooled_captions = torch.where(is_prior.view(-1, 1), latent_cache.prior_pooled, pooled_captions)
        negative_pooled = _to_device(latent_cache.negative_pooled, device)
        pooled = torch.where(on_device.text_kept.view(-1, 1), _to_device(pooled_captions, device), negative_pooled)
    return x0, text, pooled, is_prior


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device; the host does not wait for the copy."""
    return tensor.to(device, non_blocking=True)
