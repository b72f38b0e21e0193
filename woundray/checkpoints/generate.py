"""Pictures from a checkpoint, each drawn again by its seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from woundray.checkpoints.find import config_of
from woundray.config import Config
from woundray.evaluation import embedders, epoch_metrics
from woundray.models.base_model import embed_prompts, free_memory, load_unet, load_vae
from woundray.models.signal_leak import SignalLeak
from woundray.models.trainable_weights import load_weights, mixed_precision, weights_dtype
from woundray.sampling import pipeline
from woundray.system.atomic_files import write_json
from woundray.training.precompute import Precomputed, ProgressCallback, sampler_of, schedule_of
from woundray.weights.base_models import base_model_folder

NEW_SEEDS_FILE = "base_model_new_seeds.json"
"""In the folder of materials: what the base model scores by the seeds of finalists."""


@dataclass(frozen=True)
class SamplingOptions:
    """How many pictures, from which seed on; None: as the run drew its epochs."""

    count: int
    first_seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    prompt: str | None = None
    batch_size: int | None = None


def score_new_images(
    checkpoint: Path, *, precomputed: Precomputed, device: torch.device, progress: ProgressCallback = lambda *_: None
) -> tuple[int, dict[str, float]]:
    """Number and scores of new pictures of a checkpoint: twice as many as an epoch's, with the next seeds."""
    config = config_of(checkpoint)
    count = config.validation.pictures
    pictures = generate_images(checkpoint, SamplingOptions(2 * count, first_seed=count), progress)
    embedder = embedders.make_embedder(config, device)
    scores = epoch_metrics.score(pictures, precomputed.reference.at(2 * count), embedder)
    del embedder
    free_memory()
    return 2 * count, scores


def score_base_model(
    config: Config, precomputed: Precomputed, *, device: torch.device, progress: ProgressCallback
) -> None:
    """Scores the base model without an adapter by the seeds of finalists, as `score_new_images` does those.

    It is kept in the materials' folder, and not scored a second time.
    """
    file, count = precomputed.folder / NEW_SEEDS_FILE, config.validation.pictures
    if file.is_file():
        return
    unet = load_unet(precomputed.base, dtype=weights_dtype(config), device=device)
    vae, seeds = load_vae(precomputed.base, device=device), pipeline.seeds_of(2 * count, first=count)
    sampler, name = sampler_of(config, precomputed.schedule), "base model's pictures"
    progress(name, 0, len(seeds))
    with mixed_precision(config, device):
        pictures = pipeline.sample_images(
            unet, vae, precomputed.prompt, seeds, sampler, lambda done: progress(name, done, len(seeds))
        )
    embedder = embedders.make_embedder(config, device)
    scores = epoch_metrics.score(pictures, precomputed.reference.at(2 * count), embedder)
    write_json({"pictures": 2 * count, "first_seed": count, "scores": scores}, file)
    del unet, vae, embedder
    free_memory()


@dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint's models on their device, and how they draw: as the run drew the pictures that were scored."""

    config: Config
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompt: pipeline.Prompt
    sampler: pipeline.Sampler

    def generate_images(self, seeds: Sequence[int], progress: Callable[[int], None] | None = None) -> torch.Tensor:
        """One picture a seed, uint8 (N, 3, H, W); see `woundray.sampling.pipeline.sample_images`."""
        with mixed_precision(self.config, self.unet.device):
            return pipeline.sample_images(self.unet, self.vae, self.prompt, seeds, self.sampler, progress)


def open_checkpoint(checkpoint: Path, options: SamplingOptions) -> OpenCheckpoint:
    """What draws as a wish asks; its count and seed are left to the caller."""
    config = config_of(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = base_model_folder(config.model.base)
    prompt = config.prompts.positive if options.prompt is None else options.prompt
    texts = embed_prompts(base, [prompt, config.prompts.negative], device=device)
    sampler = sampler_of(config, schedule_of(config, base), SignalLeak.read(checkpoint))
    return OpenCheckpoint(
        config,
        load_weights(base, checkpoint, dtype=weights_dtype(config), device=device),
        load_vae(base, device=device),
        pipeline.Prompt.of(texts),
        replace(
            sampler,
            steps=options.steps or sampler.steps,
            guidance_scale=sampler.guidance_scale if options.guidance_scale is None else options.guidance_scale,
            batch_size=options.batch_size or sampler.batch_size,
        ),
    )


def generate_images(checkpoint: Path, options: SamplingOptions, progress: ProgressCallback) -> torch.Tensor:
    """Pictures of a checkpoint, uint8 (N, 3, H, W), one seed each."""
    progress("pictures", 0, options.count)
    seeds = pipeline.seeds_of(options.count, first=options.first_seed)
    return open_checkpoint(checkpoint, options).generate_images(
        seeds, lambda done: progress("pictures", done, len(seeds))
    )
