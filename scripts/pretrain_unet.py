"""Stage 2: the UNet and the text encoder of the tiny base, on latents of phantoms and textures."""

from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from pretrain_pictures import DEFAULT_PROMPTS, PHOTO, Pictures, caption, photo_caption, texture_caption
from pretrain_run import Course, Log, TimeBox, Training, write_grid
from pretrain_vae import Perceptual, mixed_numbers
from torch.nn import functional
from transformers import CLIPTokenizer

from woundray.data.phantoms.render import PHASES
from woundray.metrics.frechet import frechet_distance
from woundray.models.tiny_architecture import TinyBase

TEXTURE_SHARE, PHOTO_SHARE = 0.05, 0.05  # of pictures; the others are drawn wounds
EMPTY_SHARE = 0.1  # of prompts, for classifier-free guidance (Ho and Salimans, 2022)
SNR_CLAMP = 5.0  # min-SNR weighting (Hang et al., ICCV 2023)
CROPS = 1  # of each picture
CAPTIONS = 256  # of each label
SAMPLING_STEPS = 25


@torch.no_grad()
def latent_moments(vae: AutoencoderKL, pictures: Pictures, batch: int, generator: torch.Generator) -> torch.Tensor:
    """Latents' mean and log variance of CROPS random crops of each picture: (CROPS, N, 2 C, 16, 16) float16."""
    numbers = torch.arange(len(pictures.labels), device=pictures.labels.device)
    return torch.stack(
        [
            torch.cat(
                [
                    vae.encode(pictures.crops(n, generator)).latent_dist.parameters.half()
                    for n in torch.split(numbers, batch)
                ]
            )
            for _ in range(CROPS)
        ]
    )


def caption_tokens(tokenizer: CLIPTokenizer, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of CAPTIONS captions a label (labels, CAPTIONS, tokens), and of the empty prompt (tokens)."""
    generator = np.random.default_rng(seed)
    texts = [caption(phase, generator) for phase in PHASES for _ in range(CAPTIONS)]
    texts += [describe(generator) for describe in (texture_caption, photo_caption) for _ in range(CAPTIONS)]
    ids = tokenizer([*texts, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids[:-1].reshape(PHOTO + 1, CAPTIONS, -1), ids[-1]


def train_unet(
    base: TinyBase,
    pictures: Pictures,
    training: Training,
    box: TimeBox,
    course: Course,
    moments: torch.Tensor | None = None,
) -> None:
    """Train UNet and text encoder in place until `box` is over; at the end they hold the averaged weights.

    moments: of the pictures' latents, as `latent_moments` gives them (default: by the base's VAE).
    """
    device = pictures.pixels.device
    batch = course.batch
    generator = torch.Generator(device).manual_seed(course.seed + training.step)
    if moments is None:
        moments = latent_moments(base.vae, pictures, batch, generator)
    captions, empty = (ids.to(device) for ids in caption_tokens(base.tokenizer, course.seed))
    kept = base.scheduler.alphas_cumprod.to(device)  # share of the signal's variance at each timestep
    scale = base.vae.config["scaling_factor"]
    unet = torch.compile(base.unet) if course.is_compiled else base.unet
    log = Log(training, batch)
    while (share := box.share(training.step)) < 1:
        # Latents and captions of a batch
        numbers = mixed_numbers(pictures, TEXTURE_SHARE, PHOTO_SHARE, batch, generator)
        crop, chosen = (
            torch.randint(count, (batch,), device=device, generator=generator) for count in (len(moments), CAPTIONS)
        )
        mean, log_variance = moments[crop, numbers].float().chunk(2, dim=1)
        draw, noise = torch.randn(2, *mean.shape, device=device, generator=generator)
        latents = (mean + torch.exp(0.5 * log_variance) * draw) * scale
        is_empty = torch.rand(batch, 1, device=device, generator=generator) < EMPTY_SHARE
        ids = torch.where(is_empty, empty, captions[pictures.labels[numbers], chosen])

        # Noise at random timesteps, its prediction, and the error weighted by min(SNR, 5) / SNR
        timesteps = torch.randint(len(kept), (batch,), device=device, generator=generator)
        signal = kept[timesteps][:, None, None, None]
        noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            prompts = base.text_encoder(ids)[0]
            predicted = unet(noisy, timesteps, prompts).sample
        error = functional.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
        ratio = kept[timesteps] / (1 - kept[timesteps])
        loss = (ratio.clamp(max=SNR_CLAMP) / ratio * error).mean()
        training.advance(loss, share)
        log.note({"loss": loss, "mse": error.mean()})
    training.finish()


@torch.no_grad()
def measure_model(
    folder: Path, unseen: Pictures, *, pictures_a_phase: int, batch: int, seed: int, out: Path
) -> dict[str, float]:
    """Sample from the saved model at guidance 1 and 3, write grids, score each phase against unseen phantoms.

    Scores are Fréchet distances (block 10), `floor` that of one half of the unseen phantoms to the other.
    """
    device = unseen.pixels.device
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline = pipeline.to(device)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    perceptual = Perceptual().to(device)

    def features(pictures: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return torch.cat([perceptual.pooled(x) for x in torch.split(pictures, batch)]).double().cpu().numpy()

    scores: dict[str, float] = {}
    rows: dict[int, list[torch.Tensor]] = {1: [], 3: []}
    for label, phase in enumerate(PHASES):
        real = features(unseen.centres(torch.nonzero(unseen.labels == label).squeeze(1)))
        nearer, further = real[:pictures_a_phase], real[pictures_a_phase : 2 * pictures_a_phase]
        scores[f"fd_b10_{phase}_floor"] = frechet_distance(nearer, further)
        for guidance, grid_rows in rows.items():
            generator = torch.Generator(device).manual_seed(seed)
            drawn = torch.cat(
                [
                    pipeline(
                        [DEFAULT_PROMPTS[phase]] * len(part),
                        num_inference_steps=SAMPLING_STEPS,
                        guidance_scale=float(guidance),
                        generator=generator,
                        output_type="pt",
                    ).images
                    for part in torch.split(torch.arange(pictures_a_phase), batch)
                ]
            )
            scores[f"fd_b10_{phase}_guidance{guidance}"] = frechet_distance(nearer, features(drawn * 2 - 1))
            grid_rows += [drawn[start : start + 12] * 2 - 1 for start in (0, 12)]
    for guidance, grid_rows in rows.items():
        write_grid(out / f"samples_guidance_{guidance}.png", [row for row in grid_rows if len(row) == 12])
    return {**scores, "n_a_phase": pictures_a_phase}
