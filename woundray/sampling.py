"""Pictures from a denoiser: DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095), one seed a picture."""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from woundray.atomic import atomic_path
from woundray.errors import NonFiniteError
from woundray.model.base import NoiseSchedule, TextEmbeddings, added_conditions, decode, to_uint8
from woundray.model.leak import SignalLeak
from woundray.model.lora import merged

_GAP_PX = 2
_SMALLEST_LETTER_PX = 10


@dataclass(frozen=True)
class Prompt:
    """Text embeddings, (tokens, width) each: what to draw, and what guidance leads away from.

    The pooled ones, (pooled width) each, are of the SDXL family only.
    """

    positive: Tensor
    negative: Tensor
    positive_pooled: Tensor | None = None
    negative_pooled: Tensor | None = None

    @classmethod
    def of(cls, texts: TextEmbeddings) -> "Prompt":
        """Of the embeddings of two prompts: first what to draw."""
        return cls(*texts.hidden, *(() if texts.pooled is None else texts.pooled))


@dataclass(frozen=True)
class Sampler:
    """How a picture is drawn: everything but the model, the prompt and the seed."""

    schedule: NoiseSchedule
    resolution: int
    steps: int
    guidance_scale: float
    batch_size: int
    leak: SignalLeak | None = None  # what pictures begin with beside noise


@torch.inference_mode()
def draw(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    prompt: Prompt,
    seeds: Sequence[int],
    sampler: Sampler,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """One picture a seed: uint8 (N, 3, H, W) on the CPU.

    A picture depends on its seed alone, up to rounding: not on its batch and not on the other seeds.
    `progress` is told the number of pictures that are done.

    Raises:
        NonFiniteError: a picture is not a number; names its seed.
    """
    batches = []
    for own, latents in _latent_batches(unet, prompt, seeds, sampler):
        images = decode(vae, latents)
        _check_finite(images, own)
        batches.append(to_uint8(images).cpu())
        if progress is not None:
            progress(sum(map(len, batches)))
    return torch.cat(batches)


@torch.inference_mode()
def draw_latents(unet: UNet2DConditionModel, prompt: Prompt, seeds: Sequence[int], sampler: Sampler) -> Tensor:
    """The scaled latents of what `draw` decodes: fp32 (N, C, h, w) on the CPU."""
    return torch.cat([latents.cpu() for _, latents in _latent_batches(unet, prompt, seeds, sampler)])


def _latent_batches(
    unet: UNet2DConditionModel, prompt: Prompt, seeds: Sequence[int], sampler: Sampler
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Seeds of a batch and their latents."""
    with merged(unet):
        for start in range(0, len(seeds), sampler.batch_size):
            own = seeds[start : start + sampler.batch_size]
            noise = torch.stack([_initial_noise(seed, unet, sampler) for seed in own])
            latents = denoise(unet, noise, prompt, sampler)
            _check_finite(latents, own)
            yield own, latents


def _check_finite(images: Tensor, seeds: Sequence[int]) -> None:
    finite = images.isfinite().flatten(1).all(dim=1).tolist()
    if not all(finite):
        raise NonFiniteError(f"the picture of seed {seeds[finite.index(False)]} is not a number")


def denoise(unet: UNet2DConditionModel, noise: Tensor, prompt: Prompt, sampler: Sampler) -> Tensor:
    """Last noise step (N, C, h, w) -> latents (N, C, h, w) fp32, by an ODE solver that draws no noise of its own."""
    solver = DPMSolverMultistepScheduler(
        num_train_timesteps=len(sampler.schedule.alphas_cumprod),
        trained_betas=_betas(sampler.schedule.alphas_cumprod),
        prediction_type=sampler.schedule.prediction_type,
        solver_order=2,
        # noise levels of Karras et al. 2022 (arXiv 2206.00364, eq. 5): with evenly spaced timesteps the last of a few
        # steps jumps from far noise to none, and the pictures lose up to 40 % of the data's standard deviation
        use_karras_sigmas=True,
    )
    solver.set_timesteps(sampler.steps, device=unet.device)
    guided = sampler.guidance_scale != 1
    texts = [prompt.negative, prompt.positive] if guided else [prompt.positive]
    text = torch.stack(texts).to(unet.device, unet.dtype).repeat_interleave(len(noise), dim=0)
    pooled = None
    if prompt.positive_pooled is not None and prompt.negative_pooled is not None:
        pools = [prompt.negative_pooled, prompt.positive_pooled] if guided else [prompt.positive_pooled]
        pooled = torch.stack(pools).to(unet.device, unet.dtype).repeat_interleave(len(noise), dim=0)
    added = added_conditions(pooled, sampler.resolution)

    latents: Tensor = noise.to(unet.device) * solver.init_noise_sigma
    for timestep in solver.timesteps:
        inputs = latents.repeat(len(texts), 1, 1, 1).to(unet.dtype)
        prediction = unet(inputs, timestep, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)[
            0
        ].float()
        if guided:
            # classifier-free guidance (Ho & Salimans 2022, eq. 6)
            away, towards = prediction.chunk(2)
            prediction = away + sampler.guidance_scale * (towards - away)
        latents = solver.step(prediction, timestep, latents, return_dict=False)[0]
    return latents


def grid(pictures: Tensor, *, columns: int = 0, gap_px: int = _GAP_PX) -> Tensor:
    """uint8 (N, 3, H, W) -> one picture (3, rows H, columns W) with white gaps; columns 0: as square as it gets."""
    count, _, height, width = pictures.shape
    columns = columns or math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    sheet = torch.full(
        (3, rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px), 255, dtype=torch.uint8
    )
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap_px), index % columns * (width + gap_px)
        sheet[:, top : top + height, left : left + width] = picture
    return sheet


def labelled_grid(rows: Sequence[Tensor], names: Sequence[str], columns: Sequence[str]) -> Tensor:
    """Rows of uint8 (n, 3, H, W) -> one picture (3, ., .), each row's name left of it, each column's above."""
    count, _, height, width = rows[0].shape
    sheet = grid(torch.cat(list(rows)), columns=count)
    down, across = ((side + _GAP_PX) for side in (height, width))
    letters_px = max(_SMALLEST_LETTER_PX, height // 9)
    font = ImageFont.load_default(size=letters_px)
    left = _GAP_PX * 4 + math.ceil(max(map(font.getlength, names)))
    top = 2 * letters_px
    every = math.ceil(max(map(font.getlength, columns)) * 1.2 / across)  # names that would touch are left out
    page = Image.new("RGB", (left + sheet.shape[2], top + sheet.shape[1]), "white")
    page.paste(Image.fromarray(sheet.permute(1, 2, 0).numpy()), (left, top))
    pen = ImageDraw.Draw(page)
    for row, name in enumerate(names):
        pen.text((_GAP_PX, top + row * down + height / 2), name, fill="black", font=font, anchor="lm")
    for column in range(0, count, every):
        pen.text((left + column * across, top / 2), columns[column], fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.array(page)).permute(2, 0, 1).contiguous()


def write_png(picture: Tensor, path: Path, texts: Mapping[str, str] | None = None) -> None:
    """uint8 (3, H, W) -> a PNG file with text chunks by keyword, written beside and renamed into place."""
    with atomic_path(path) as beside:
        beside.write_bytes(png(picture, texts or {}))


def png(picture: Tensor, texts: Mapping[str, str]) -> bytes:
    """uint8 (3, H, W) -> a PNG file; texts by keyword become tEXt chunks, iTXt where Latin-1 does not do."""
    chunks, file = PngInfo(), io.BytesIO()
    for keyword, text in texts.items():
        chunks.add_text(keyword, text)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, format="PNG", pnginfo=chunks)
    return file.getvalue()


def seeds_of(count: int, *, first: int = 0) -> list[int]:
    """The seeds of a set of pictures: the same for every epoch and trial, so that their scores are paired."""
    return list(range(first, first + count))


def _initial_noise(seed: int, unet: UNet2DConditionModel, sampler: Sampler) -> Tensor:
    """The last noise step (C, h, w) of a seed: standard normal, or with the signal that training leaves in it."""
    side = sampler.resolution // 8
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((unet.config["in_channels"], side, side), generator=generator)
    if sampler.leak is None:
        return noise
    abar = sampler.schedule.alphas_cumprod[-1].cpu()
    return (1 - abar).sqrt() * noise + abar.sqrt() * sampler.leak.draw(generator, side, side)


def _betas(alphas_cumprod: Tensor) -> list[float]:
    before = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1].double()])
    return [float(beta) for beta in 1 - alphas_cumprod.double() / before]
