"""Precomputed data that all trials of a study share, in files below `precomputed/`.

`latent_cache.safetensors` (encoded images and prompts), `signal_leak.safetensors` (see `woundray.models.signal_leak`),
`reference.safetensors` and `.json` (features of photographs and the real-vs-real baseline), `split.json`,
`base_model_scores.json` (scores of the base model without an adapter), `base_model.png`, `reference.png`. Without
held-out patients there are no reference and no scores.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from woundray.config import Config
from woundray.data.image_source import ImageSource, open_image_source
from woundray.data.latent_cache import LatentCache, latent_cache_key, read_latent_cache, write_latent_cache
from woundray.data.leakage import refuse_split_leaks
from woundray.data.split import Split, write_split
from woundray.errors import UserError
from woundray.evaluation import embedders, epoch_metrics, real_reference
from woundray.evaluation.comparable_split import comparable_split
from woundray.models.loading import free_memory
from woundray.models.noise_schedule import NoiseSchedule
from woundray.models.signal_leak import LEAK_NAME, SignalLeak
from woundray.models.text_encoder import embed_prompts
from woundray.models.trainable_weights import mixed_precision, weights_dtype
from woundray.models.unet import load_unet
from woundray.models.vae import encode_moments, load_vae
from woundray.sampling.grids import make_grid
from woundray.sampling.pipeline import image_seeds, sample_images, sample_latents
from woundray.sampling.png_files import write_png
from woundray.sampling.solver import Prompt, Sampler
from woundray.system.atomic_files import write_json
from woundray.system.progress import ProgressCallback
from woundray.training.precompute_inputs import (
    change_message,
    fingerprint_inputs,
    hash_photographs,
)
from woundray.weights.base_models import base_model_folder

_PRIOR_SEED = 2**20  # first seed of prior images, beyond the seeds of evaluated images


@dataclass(frozen=True)
class Precomputed:
    """Opened precomputed data.

    Attributes:
        base: folder of the base model.
        held_out: real photographs' features that images are scored against; None without held-out patients.
        leak: signal in the initial noise of trained models' images.
        baseline: scores of the base model without an adapter, as an epoch reports them.
        key: hash of everything that the latent cache was computed from.
    """

    folder: Path
    base: Path
    latent_cache: LatentCache
    schedule: NoiseSchedule
    held_out: real_reference.RealReference | None
    leak: SignalLeak | None
    baseline: dict[str, float]
    key: str

    @property
    def reference(self) -> real_reference.RealReference:
        """Real photographs' features that images are scored against."""
        assert self.held_out is not None, "no held-out patients"
        return self.held_out

    @property
    def prompt(self) -> Prompt:
        """Prompt embeddings that images are sampled from."""
        return _prompt(self.latent_cache)


def validation_sampler(config: Config, schedule: NoiseSchedule, leak: SignalLeak | None = None) -> Sampler:
    """Return the sampler of an epoch's images, or, without a leak, of the base model's."""
    return Sampler(
        schedule,
        config.model.resolution,
        config.validation.sampling_steps,
        config.validation.guidance_scale,
        config.validation.batch_size,
        leak,
    )


def open_precomputed(folder: Path) -> Precomputed:
    """Open the data that `precompute` wrote; the latent cache is memory-mapped."""
    facts = json.loads((folder / "base_model_scores.json").read_text(encoding="utf-8"))
    base = Path(facts["base"])
    held_out = real_reference.read_reference(folder) if (folder / "reference.json").is_file() else None
    latent_cache = read_latent_cache(folder / "latent_cache.safetensors")
    schedule = _load_schedule(base, facts["zero_terminal_snr"])
    leak = SignalLeak.read(folder)
    return Precomputed(folder, base, latent_cache, schedule, held_out, leak, facts["scores"], facts["key"])


def load_schedule(config: Config, base: Path) -> NoiseSchedule:
    """Load the noise schedule of a base model, rescaled where model.zero_terminal_snr is set."""
    return _load_schedule(base, config.model.zero_terminal_snr)


def _load_schedule(base: Path, zero_terminal_snr: bool) -> NoiseSchedule:
    schedule = NoiseSchedule.load(base)
    return schedule.with_zero_terminal_snr() if zero_terminal_snr else schedule


def precompute(
    config: Config,
    folder: Path,
    *,
    device: torch.device,
    progress: ProgressCallback,
    source: ImageSource | None = None,
    embedder: embedders.Embedder | None = None,
) -> Precomputed:
    """Read the photographs, split them by patient, encode them, and score the base model.

    A folder that is complete already is opened; the base model may have moved to another folder since.

    Args:
        source: photographs to use instead of all of config.data.
        embedder: to use instead of the one of the objective.

    Raises:
        UserError: photographs, base model or settings have changed since the folder was written.
    """
    base = base_model_folder(config.model.base)
    source = source or open_image_source(config)
    origin = fingerprint_inputs(config, base, source)
    key = latent_cache_key(origin)
    facts_file = folder / "base_model_scores.json"
    if facts_file.is_file():
        facts = json.loads(facts_file.read_text(encoding="utf-8"))
        if facts["key"] != key:
            raise UserError(change_message(folder, facts, origin, hash_photographs(source)))
        if facts["base"] != str(base):
            write_json(facts | {"base": str(base)}, facts_file)
        return open_precomputed(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scores = _compute(
        _Inputs(
            config=config,
            folder=folder,
            base=base,
            source=source,
            embedder=embedder or embedders.make_embedder(config, device),
            split=usable_split(source, config),
            device=device,
            progress=progress,
        )
    )
    free_memory()
    facts = {
        "key": key,
        "base": str(base),
        "zero_terminal_snr": config.model.zero_terminal_snr,
        "scores": scores,
        "origin": {name: repr(value) for name, value in origin.items()},
        "photographs": hash_photographs(source),
    }
    write_json(facts, facts_file)
    return open_precomputed(folder)


def usable_split(source: ImageSource, config: Config) -> Split:
    """Split the photographs into sides that share no image and are large enough to be compared.

    Raises:
        UserError: they share an image, or are too small.
    """
    split = comparable_split(source.photos, config)
    refuse_split_leaks(split, source, config.data)
    return split


@dataclass(frozen=True)
class _Inputs:
    """Everything that the data are computed from, and where they are written."""

    config: Config
    folder: Path
    base: Path
    source: ImageSource
    split: Split
    embedder: embedders.Embedder
    device: torch.device
    progress: ProgressCallback


def _compute(inputs: _Inputs) -> dict[str, float]:
    """Write split, reference, latent cache and the base model's images; return its scores. No model is kept."""
    config, folder, base, device = inputs.config, inputs.folder, inputs.base, inputs.device
    write_split(inputs.split, folder / "split.json")
    reference = _compute_reference(inputs) if inputs.split.validation else None

    # latent cache
    schedule = load_schedule(config, base)
    vae = load_vae(base, device=device)
    latent_cache = _encode(inputs, vae)
    unet = load_unet(base, dtype=weights_dtype(config), device=device)
    if config.training.prior_weight > 0:
        latent_cache = _add_prior(inputs, latent_cache, unet, schedule)
    write_latent_cache(latent_cache, folder / "latent_cache.safetensors")
    (folder / LEAK_NAME).unlink(missing_ok=True)  # of other settings in the same folder
    if config.validation.signal_leak:
        SignalLeak.fit(latent_cache.train.flatten(0, 1).chunk(2, dim=1)[0]).write(folder)

    # images of the base model without an adapter, by the same seeds as every epoch of every trial
    seeds = image_seeds(config.validation.pictures)
    with mixed_precision(config, device):
        images = sample_images(
            unet,
            vae,
            _prompt(latent_cache),
            seeds,
            validation_sampler(config, schedule),
            lambda done: inputs.progress("base model's pictures", done, len(seeds)),
        )
    write_png(make_grid(images[: config.validation.grid]), folder / "base_model.png")
    return {} if reference is None else epoch_metrics.score(images, reference, inputs.embedder)


def _compute_reference(inputs: _Inputs) -> real_reference.RealReference:
    """Compute the features of real photographs and the real-vs-real baseline; also write a grid of held-out ones."""
    config, folder, source, split = inputs.config, inputs.folder, inputs.source, inputs.split
    images = real_reference.RealImages.of(source, split)
    write_png(make_grid(images.held_out[: config.validation.grid]), folder / "reference.png")
    inputs.progress("features of photographs", 0, 1)
    options = real_reference.ReferenceOptions.of(config, config.validation.pictures)
    reference = real_reference.make_reference(images, inputs.embedder, options)
    inputs.progress("features of photographs", 1, 1)
    real_reference.write_reference(reference, folder)
    return reference


def _encode(inputs: _Inputs, vae: AutoencoderKL) -> LatentCache:
    """Encode K seeded views of each training photograph, the plain held-out ones, and the prompts."""
    config, source, split = inputs.config, inputs.source, inputs.split
    texts = embed_prompts(inputs.base, [config.prompts.positive, config.prompts.negative], device=inputs.device)
    views = config.data.views_per_photo
    train = []
    for index, photo in enumerate(split.train):
        seeds = [config.reproducibility.seed * 1_000_003 + index * views + view for view in range(views)]
        train.append(encode_moments(vae, torch.stack([source.view(photo, seed) for seed in seeds])))
        inputs.progress("latents", index + 1, len(split.train))
    encoded = torch.stack(train)  # (photographs, views, 8, h, w)
    plain = [encode_moments(vae, source.plain(photo)[None]) for photo in split.validation]
    validation = torch.cat([encoded.new_empty(0, *encoded.shape[2:]), *plain])
    return LatentCache(encoded, validation, **vars(Prompt.from_embeddings(texts)))


def _prompt(latent_cache: LatentCache) -> Prompt:
    """Return the cached embeddings of prompts.positive and prompts.negative."""
    return Prompt(
        latent_cache.positive, latent_cache.negative, latent_cache.positive_pooled, latent_cache.negative_pooled
    )


def _add_prior(
    inputs: _Inputs, latent_cache: LatentCache, unet: UNet2DConditionModel, schedule: NoiseSchedule
) -> LatentCache:
    """Add latents that the base model samples from prompts.prior, by seeds of their own."""
    config = inputs.config
    texts = embed_prompts(inputs.base, [config.prompts.prior, config.prompts.negative], device=inputs.device)
    prompt = Prompt.from_embeddings(texts)
    seeds = image_seeds(config.training.prior_pictures, first=_PRIOR_SEED)
    with mixed_precision(config, inputs.device):
        latents = sample_latents(unet, prompt, seeds, validation_sampler(config, schedule))
    no_variance = torch.full_like(latents, -30.0)  # log variance: each draw gives the same latents
    prior = torch.cat([latents, no_variance], dim=1)
    return replace(latent_cache, prior=prior, prior_text=prompt.positive, prior_pooled=prompt.positive_pooled)
