"""Precomputed data that all trials of a study share, in files below `precomputed/`.

`latent_cache.safetensors` (encoded images and prompts), `signal_leak.safetensors` (see `woundray.models.signal_leak`),
`reference.safetensors` and `.json` (features of photographs and the real-vs-real baseline), `split.json`,
`base_model_scores.json` (scores of the base model without an adapter), `base_model.png`, `reference.png`. Without
held-out patients there are no reference and no scores.
"""

import json
from collections.abc import Callable
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
from woundray.models.base_model import NoiseSchedule, embed_prompts, encode_moments, free_memory, load_unet, load_vae
from woundray.models.signal_leak import LEAK_NAME, SignalLeak
from woundray.models.trainable_weights import mixed_precision, weights_dtype
from woundray.sampling import pipeline
from woundray.system.atomic_files import write_json
from woundray.training.precompute_inputs import origin_of, photographs_of, what_changed
from woundray.weights.base_models import base_model_folder

_PRIOR_SEED = 2**20  # beyond the seeds of pictures that are judged

ProgressCallback = Callable[[str, int, int], None]  # what is being done, how much of it is done, how much there is


@dataclass(frozen=True)
class Precomputed:
    """Opened materials.

    Attributes:
        base: folder of the base model.
        held_out: what pictures are scored against; None where nobody is held out.
        leak: what pictures of trained models begin with beside noise.
        baseline: scores of the base model without an adapter, as an epoch reports them.
        key: hash of everything that the bank was computed from.
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
        """What pictures are scored against."""
        assert self.held_out is not None, "nobody is held out"
        return self.held_out

    @property
    def prompt(self) -> pipeline.Prompt:
        """Embeddings that pictures are drawn from."""
        return _prompt(self.latent_cache)


def sampler_of(config: Config, schedule: NoiseSchedule, leak: SignalLeak | None = None) -> pipeline.Sampler:
    """How an epoch's pictures are drawn, or, without a leak, those of the base model."""
    return pipeline.Sampler(
        schedule,
        config.model.resolution,
        config.validation.sampling_steps,
        config.validation.guidance_scale,
        config.validation.batch_size,
        leak,
    )


def open_precomputed(folder: Path) -> Precomputed:
    """Materials that `precompute` wrote; the bank is memory-mapped."""
    facts = json.loads((folder / "base_model_scores.json").read_text(encoding="utf-8"))
    base = Path(facts["base"])
    held_out = real_reference.read_reference(folder) if (folder / "reference.json").is_file() else None
    latent_cache = read_latent_cache(folder / "latent_cache.safetensors")
    schedule = _schedule(base, facts["zero_terminal_snr"])
    leak = SignalLeak.read(folder)
    return Precomputed(folder, base, latent_cache, schedule, held_out, leak, facts["scores"], facts["key"])


def schedule_of(config: Config, base: Path) -> NoiseSchedule:
    """The noise schedule of a base model as model.zero_terminal_snr wants it."""
    return _schedule(base, config.model.zero_terminal_snr)


def _schedule(base: Path, zero_terminal_snr: bool) -> NoiseSchedule:
    schedule = NoiseSchedule.of(base)
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
    """Reads the photographs, splits them by patient, encodes them, and scores the base model.

    Where the folder holds all of it already it is opened; the base model may lie in another place by now.

    source: photographs to take instead of all of config.data; embedder: instead of the one of the objective.

    Raises:
        UserError: photographs, base model or settings are others than those that the folder was made of.
    """
    base = base_model_folder(config.model.base)
    source = source or open_image_source(config)
    origin = origin_of(config, base, source)
    key = latent_cache_key(origin)
    facts_file = folder / "base_model_scores.json"
    if facts_file.is_file():
        facts = json.loads(facts_file.read_text(encoding="utf-8"))
        if facts["key"] != key:
            raise UserError(what_changed(folder, facts, origin, photographs_of(source)))
        if facts["base"] != str(base):
            write_json(facts | {"base": str(base)}, facts_file)
        return open_precomputed(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scores = _compute(
        config, folder, base, source, embedder or embedders.make_embedder(config, device), device, progress
    )
    free_memory()
    facts = {
        "key": key,
        "base": str(base),
        "zero_terminal_snr": config.model.zero_terminal_snr,
        "scores": scores,
        "origin": {name: repr(value) for name, value in origin.items()},
        "photographs": photographs_of(source),
    }
    write_json(facts, facts_file)
    return open_precomputed(folder)


def usable_split(source: ImageSource, config: Config) -> Split:
    """The sides of the photographs, which share no picture and are large enough to be compared.

    Raises:
        UserError: they share one, or are too small.
    """
    split = comparable_split(source.photos, config)
    refuse_split_leaks(split, source, config.data)
    return split


def _compute(
    config: Config,
    folder: Path,
    base: Path,
    source: ImageSource,
    embedder: embedders.Embedder,
    device: torch.device,
    progress: ProgressCallback,
) -> dict[str, float]:
    """Writes split, reference, bank and the base model's pictures; gives its scores. It keeps no model."""
    split = usable_split(source, config)
    write_split(split, folder / "split.json")
    reference = _reference(config, source, split, folder, embedder, progress) if split.validation else None

    # the bank
    schedule = schedule_of(config, base)
    vae = load_vae(base, device=device)
    latent_cache = _encode(config, source, split, vae, base, device, progress)
    unet = load_unet(base, dtype=weights_dtype(config), device=device)
    if config.training.prior_weight > 0:
        latent_cache = _with_prior(latent_cache, unet, config, base, schedule, device)
    write_latent_cache(latent_cache, folder / "latent_cache.safetensors")
    (folder / LEAK_NAME).unlink(missing_ok=True)  # of other settings in the same folder
    if config.validation.signal_leak:
        SignalLeak.of(latent_cache.train.flatten(0, 1).chunk(2, dim=1)[0]).write(folder)

    # the base model without an adapter, by the same seeds as every epoch of every trial
    seeds = pipeline.seeds_of(config.validation.pictures)
    with mixed_precision(config, device):
        pictures = pipeline.sample_images(
            unet,
            vae,
            _prompt(latent_cache),
            seeds,
            sampler_of(config, schedule),
            lambda done: progress("base model's pictures", done, len(seeds)),
        )
    pipeline.write_png(pipeline.grid(pictures[: config.validation.grid]), folder / "base_model.png")
    return {} if reference is None else epoch_metrics.score(pictures, reference, embedder)


def _reference(
    config: Config,
    source: ImageSource,
    split: Split,
    folder: Path,
    embedder: embedders.Embedder,
    progress: ProgressCallback,
) -> real_reference.RealReference:
    """What real photographs reach; also a grid of held-out ones."""
    train, held_out = (torch.stack([source.plain(photo) for photo in side]) for side in (split.train, split.validation))
    pipeline.write_png(pipeline.grid(held_out[: config.validation.grid]), folder / "reference.png")
    progress("features of photographs", 0, 1)
    reference = real_reference.make_reference(
        train,
        [photo.group for photo in split.train],
        held_out,
        [photo.group for photo in split.validation],
        embedder,
        n=config.validation.pictures,
        copies=config.quality.copies,
        repeats=config.metrics.baseline_repeats,
        seed=config.reproducibility.seed,
    )
    progress("features of photographs", 1, 1)
    real_reference.write_reference(reference, folder)
    return reference


def _encode(
    config: Config,
    source: ImageSource,
    split: Split,
    vae: AutoencoderKL,
    base: Path,
    device: torch.device,
    progress: ProgressCallback,
) -> LatentCache:
    """Moments of K seeded views a training photograph, of the plain held-out ones, and the prompts' embeddings."""
    texts = embed_prompts(base, [config.prompts.positive, config.prompts.negative], device=device)
    views = config.data.views_per_photo
    train = []
    for index, photo in enumerate(split.train):
        seeds = [config.reproducibility.seed * 1_000_003 + index * views + view for view in range(views)]
        train.append(encode_moments(vae, torch.stack([source.view(photo, seed) for seed in seeds])))
        progress("latents", index + 1, len(split.train))
    encoded = torch.stack(train)  # photographs, views, 8, h, w
    plain = [encode_moments(vae, source.plain(photo)[None]) for photo in split.validation]
    validation = torch.cat([encoded.new_empty(0, *encoded.shape[2:]), *plain])
    return LatentCache(encoded, validation, **vars(pipeline.Prompt.of(texts)))


def _prompt(latent_cache: LatentCache) -> pipeline.Prompt:
    return pipeline.Prompt(
        latent_cache.positive, latent_cache.negative, latent_cache.positive_pooled, latent_cache.negative_pooled
    )


def _with_prior(
    latent_cache: LatentCache,
    unet: UNet2DConditionModel,
    config: Config,
    base: Path,
    schedule: NoiseSchedule,
    device: torch.device,
) -> LatentCache:
    """The bank with latents that the base model draws of prompts.prior, by seeds of their own."""
    prompt = pipeline.Prompt.of(embed_prompts(base, [config.prompts.prior, config.prompts.negative], device=device))
    seeds = pipeline.seeds_of(config.training.prior_pictures, first=_PRIOR_SEED)
    with mixed_precision(config, device):
        latents = pipeline.draw_latents(unet, prompt, seeds, sampler_of(config, schedule))
    no_variance = torch.full_like(latents, -30.0)  # log variance: they are what they are
    prior = torch.cat([latents, no_variance], dim=1)
    return replace(latent_cache, prior=prior, prior_text=prompt.positive, prior_pooled=prompt.positive_pooled)
