"""Sampling pipeline: seeds -> latents -> uint8 images, in batches; one seed an image.

Own code beside diffusers' StableDiffusionPipeline: an image depends on its seed alone and not on its batch, text
embeddings come in already computed, one code path serves all families, and the initial noise may hold a signal leak.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from woundray.errors import NonFiniteError
from woundray.models.lora import merged
from woundray.models.vae import decode, to_uint8
from woundray.sampling.solver import Prompt, Sampler, denoise, initial_noise


def image_seeds(count: int, *, first: int = 0) -> list[int]:
    """Return the seeds of a set of images: the same for every epoch and trial, so that their scores are paired."""
    return list(range(first, first + count))


@torch.inference_mode()
def sample_images(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    prompt: Prompt,
    seeds: Sequence[int],
    sampler: Sampler,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Sample one image a seed: uint8 (N, 3, H, W) on the CPU.

    An image depends on its seed alone, up to rounding: not on its batch and not on the other seeds.

    Args:
        progress: called after each batch with the number of images done.

    Raises:
        NonFiniteError: an image holds infinite values or NaN; names its seed.
    """
    batches = []
    for batch_seeds, latents in _latent_batches(unet, prompt, seeds, sampler):
        images = decode(vae, latents)
        _check_finite(images, batch_seeds)
        batches.append(to_uint8(images).cpu())
        if progress is not None:
            progress(sum(map(len, batches)))
    return torch.cat(batches)


@torch.inference_mode()
def sample_latents(unet: UNet2DConditionModel, prompt: Prompt, seeds: Sequence[int], sampler: Sampler) -> Tensor:
    """Sample the scaled latents that `sample_images` decodes: fp32 (N, 4, h, w) on the CPU."""
    return torch.cat([latents.cpu() for _, latents in _latent_batches(unet, prompt, seeds, sampler)])


def _latent_batches(
    unet: UNet2DConditionModel, prompt: Prompt, seeds: Sequence[int], sampler: Sampler
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield the seeds of each batch and their latents."""
    with merged(unet):
        for start in range(0, len(seeds), sampler.batch_size):
            batch_seeds = seeds[start : start + sampler.batch_size]
            noise = torch.stack([initial_noise(seed, unet, sampler) for seed in batch_seeds])
            latents = denoise(unet, noise, prompt, sampler)
            _check_finite(latents, batch_seeds)
            yield batch_seeds, latents


def _check_finite(images: Tensor, seeds: Sequence[int]) -> None:
    finite = images.isfinite().flatten(1).all(dim=1).tolist()
    if not all(finite):
        raise NonFiniteError(f"the picture of seed {seeds[finite.index(False)]} is not a number")
