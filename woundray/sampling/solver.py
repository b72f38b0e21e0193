"""Sampling solver: initial noise of a seed, then DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095) to latents."""

from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from woundray.models.noise_schedule import NoiseSchedule
from woundray.models.signal_leak import SignalLeak
from woundray.models.text_encoder import TextEmbeddings
from woundray.models.unet import added_conditions


@dataclass(frozen=True)
class Prompt:
    """Embeddings of a positive and a negative prompt, (tokens, width) each.

    The pooled ones, (pooled width) each, are of the SDXL family only.
    """

    positive: Tensor
    negative: Tensor
    positive_pooled: Tensor | None = None
    negative_pooled: Tensor | None = None

    @classmethod
    def from_embeddings(cls, texts: TextEmbeddings) -> "Prompt":
        """Make a prompt of the embeddings of two texts, the positive one first."""
        return cls(*texts.hidden, *(() if texts.pooled is None else texts.pooled))


@dataclass(frozen=True)
class Sampler:
    """Settings of sampling: everything but the model, the prompt and the seeds.

    Attributes:
        resolution: side of the square images, px.
        guidance_scale: of classifier-free guidance; 1 turns it off.
        leak: signal that is mixed into the initial noise; None: pure noise.
    """

    schedule: NoiseSchedule
    resolution: int
    steps: int
    guidance_scale: float
    batch_size: int
    leak: SignalLeak | None = None


def initial_noise(seed: int, unet: UNet2DConditionModel, sampler: Sampler) -> Tensor:
    """Draw x_T of a seed, (C, h, w): standard normal, or with the signal leak of the training images."""
    side = sampler.resolution // 8
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((unet.config["in_channels"], side, side), generator=generator)
    if sampler.leak is None:
        return noise
    abar = sampler.schedule.alphas_cumprod[-1].cpu()
    return (1 - abar).sqrt() * noise + abar.sqrt() * sampler.leak.sample(generator, side, side)


def denoise(unet: UNet2DConditionModel, noise: Tensor, prompt: Prompt, sampler: Sampler) -> Tensor:
    """Solve the sampling ODE from x_T (N, 4, h, w) to latents (N, 4, h, w), fp32. The solver draws no noise itself."""
    solver = DPMSolverMultistepScheduler(
        num_train_timesteps=len(sampler.schedule.alphas_cumprod),
        trained_betas=_betas(sampler.schedule.alphas_cumprod),
        prediction_type=sampler.schedule.prediction_type,
        solver_order=2,
        # noise levels of Karras et al. 2022 (arXiv 2206.00364, eq. 5): with evenly spaced timesteps the last of a few
        # steps jumps from high noise to none, and the images lose up to 40 % of the data's standard deviation
        use_karras_sigmas=True,
    )
    solver.set_timesteps(sampler.steps, device=unet.device)
    guided = sampler.guidance_scale != 1
    texts = [prompt.negative, prompt.positive] if guided else [prompt.positive]
    text = torch.stack(texts).to(unet.device, unet.dtype).repeat_interleave(len(noise), dim=0)
    pooled = None
    if prompt.positive_pooled is not None and prompt.negative_pooled is not None:
        pooled_texts = [prompt.negative_pooled, prompt.positive_pooled] if guided else [prompt.positive_pooled]
        pooled = torch.stack(pooled_texts).to(unet.device, unet.dtype).repeat_interleave(len(noise), dim=0)
    added = added_conditions(pooled, sampler.resolution)

    latents: Tensor = noise.to(unet.device) * solver.init_noise_sigma
    for timestep in solver.timesteps:
        inputs = latents.repeat(len(texts), 1, 1, 1).to(unet.dtype)
        output = unet(inputs, timestep, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)
        prediction = output[0].float()
        if guided:
            # classifier-free guidance (Ho & Salimans 2022, eq. 6)
            unconditional, conditional = prediction.chunk(2)
            prediction = unconditional + sampler.guidance_scale * (conditional - unconditional)
        latents = solver.step(prediction, timestep, latents, return_dict=False)[0]
    return latents


def _betas(alphas_cumprod: Tensor) -> list[float]:
    """Return beta_t = 1 - abar_t / abar_{t-1}, as the scheduler takes them."""
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1].double()])
    return [float(beta) for beta in 1 - alphas_cumprod.double() / previous]
