"""Image generation from a checkpoint, one seed an image; scores of new images of checkpoints and of the base model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from woundray.checkpoints.find import config_of
from woundray.config import Config
from woundray.evaluation import embedders, epoch_metrics
from woundray.models.loading import free_memory
from woundray.models.signal_leak import SignalLeak
from woundray.models.text_encoder import embed_prompts
from woundray.models.trainable_weights import load_weights, mixed_precision, weights_dtype
from woundray.models.unet import load_unet
from woundray.models.vae import load_vae
from woundray.sampling.pipeline import image_seeds, sample_images
from woundray.sampling.solver import Prompt, Sampler
from woundray.system.atomic_files import write_json
from woundray.system.progress import ProgressCallback, no_progress
from woundray.training.precompute import (
    Precomputed,
    load_schedule,
    validation_sampler,
)
from woundray.weights.base_models import base_model_folder

NEW_SEEDS_FILE = "base_model_new_seeds.json"
"""File in the folder of precomputed data: scores of the base model on the seeds of finalists."""


@dataclass(frozen=True)
class SamplingOptions:
    """Number of images, first seed, and sampling settings; None: as in the validation of the training run."""

    count: int
    first_seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    prompt: str | None = None
    batch_size: int | None = None


def score_new_images(
    checkpoint: Path, *, precomputed: Precomputed, device: torch.device, progress: ProgressCallback = no_progress
) -> tuple[int, dict[str, float]]:
    """Return number and scores of new images of a checkpoint: twice as many as in an epoch, with the next seeds."""
    config = config_of(checkpoint)
    count = config.validation.pictures
    images = generate_images(checkpoint, SamplingOptions(2 * count, first_seed=count), progress)
    embedder = embedders.make_embedder(config, device)
    scores = epoch_metrics.score(images, precomputed.reference.at(2 * count), embedder)
    del embedder
    free_memory()
    return 2 * count, scores


def score_base_model(
    config: Config, precomputed: Precomputed, *, device: torch.device, progress: ProgressCallback
) -> None:
    """Score the base model without an adapter on the seeds of `score_new_images`.

    The scores are written to the folder of precomputed data, and not computed a second time.
    """
    file, count = precomputed.folder / NEW_SEEDS_FILE, config.validation.pictures
    if file.is_file():
        return
    unet = load_unet(precomputed.base, dtype=weights_dtype(config), device=device)
    vae, seeds = load_vae(precomputed.base, device=device), image_seeds(2 * count, first=count)
    sampler, name = validation_sampler(config, precomputed.schedule), "base model's pictures"
    progress(name, 0, len(seeds))
    with mixed_precision(config, device):
        images = sample_images(
            unet, vae, precomputed.prompt, seeds, sampler, lambda done: progress(name, done, len(seeds))
        )
    embedder = embedders.make_embedder(config, device)
    scores = epoch_metrics.score(images, precomputed.reference.at(2 * count), embedder)
    write_json({"pictures": 2 * count, "first_seed": count, "scores": scores}, file)
    del unet, vae, embedder
    free_memory()


@dataclass(frozen=True)
class OpenCheckpoint:
    """Models of a checkpoint on their device, with prompt and sampler."""

    config: Config
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompt: Prompt
    sampler: Sampler

    def generate_images(self, seeds: Sequence[int], progress: Callable[[int], None] | None = None) -> torch.Tensor:
        """Generate one image a seed, uint8 (N, 3, H, W); see `woundray.sampling.pipeline.sample_images`."""
        with mixed_precision(self.config, self.unet.device):
            return sample_images(self.unet, self.vae, self.prompt, seeds, self.sampler, progress)


def open_checkpoint(checkpoint: Path, options: SamplingOptions) -> OpenCheckpoint:
    """Load the models of a checkpoint with sampling options; their count and first seed are not used."""
    config = config_of(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = base_model_folder(config.model.base)
    prompt = config.prompts.positive if options.prompt is None else options.prompt
    texts = embed_prompts(base, [prompt, config.prompts.negative], device=device)
    sampler = validation_sampler(config, load_schedule(config, base), SignalLeak.read(checkpoint))
    return OpenCheckpoint(
        config,
        load_weights(base, checkpoint, dtype=weights_dtype(config), device=device),
        load_vae(base, device=device),
        Prompt.from_embeddings(texts),
        replace(
            sampler,
            steps=options.steps or sampler.steps,
            guidance_scale=sampler.guidance_scale if options.guidance_scale is None else options.guidance_scale,
            batch_size=options.batch_size or sampler.batch_size,
        ),
    )


def generate_images(checkpoint: Path, options: SamplingOptions, progress: ProgressCallback) -> torch.Tensor:
    """Generate images of a checkpoint, uint8 (N, 3, H, W), one seed each."""
    progress("pictures", 0, options.count)
    seeds = image_seeds(options.count, first=options.first_seed)
    return open_checkpoint(checkpoint, options).generate_images(
        seeds, lambda done: progress("pictures", done, len(seeds))
    )
