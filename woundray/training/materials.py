"""Everything that the trials of a study share, computed once and read from files: `materials/`.

`bank.safetensors` (encoded pictures and prompts), `signal_leak.safetensors` (see woundray/model/leak.py),
`reference.safetensors` and `.json` (features of photographs, and the floor), `split.json`, `baseline.json` (what the
base model scores without an adapter), `baseline.png`, `reference.png`. Where nobody is
held out there are no reference and no scores.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from woundray import evaluation, sampling
from woundray.atomic import write_json
from woundray.config import Config
from woundray.data.bank import Bank, bank_key, read_bank, write_bank
from woundray.data.leaks import refuse_shared
from woundray.data.source import Source, open_source
from woundray.data.split import Split, write_split
from woundray.errors import UserError
from woundray.model.base import (
    NoiseSchedule,
    embed_prompts,
    encode_moments,
    free_memory,
    load_unet,
    load_vae,
)
from woundray.model.leak import LEAK_NAME, SignalLeak
from woundray.model.registry import resolve
from woundray.model.weights import mixed_precision, weights_dtype
from woundray.training.origin import origin_of, photographs_of, what_changed
from woundray.training.sides import comparable_split

_PRIOR_SEED = 2**20  # beyond the seeds of pictures that are judged

Stage = Callable[[str, int, int], None]  # what is being done, how much of it is done, how much there is


@dataclass(frozen=True)
class Materials:
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
    bank: Bank
    schedule: NoiseSchedule
    held_out: evaluation.Reference | None
    leak: SignalLeak | None
    baseline: dict[str, float]
    key: str

    @property
    def reference(self) -> evaluation.Reference:
        """What pictures are scored against."""
        assert self.held_out is not None, "nobody is held out"
        return self.held_out

    @property
    def prompt(self) -> sampling.Prompt:
        """Embeddings that pictures are drawn from."""
        return _prompt(self.bank)


def sampler_of(config: Config, schedule: NoiseSchedule, leak: SignalLeak | None = None) -> sampling.Sampler:
    """How an epoch's pictures are drawn, or, without a leak, those of the base model."""
    return sampling.Sampler(
        schedule,
        config.model.resolution,
        config.validation.sampling_steps,
        config.validation.guidance_scale,
        config.validation.batch_size,
        leak,
    )


def open_materials(folder: Path) -> Materials:
    """Materials that `prepare_materials` wrote; the bank is memory-mapped."""
    facts = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
    base = Path(facts["base"])
    held_out = evaluation.read_reference(folder) if (folder / "reference.json").is_file() else None
    bank = read_bank(folder / "bank.safetensors")
    schedule = _schedule(base, facts["zero_terminal_snr"])
    leak = SignalLeak.read(folder)
    return Materials(folder, base, bank, schedule, held_out, leak, facts["scores"], facts["key"])


def schedule_of(config: Config, base: Path) -> NoiseSchedule:
    """The noise schedule of a base model as model.zero_terminal_snr wants it."""
    return _schedule(base, config.model.zero_terminal_snr)


def _schedule(base: Path, zero_terminal_snr: bool) -> NoiseSchedule:
    schedule = NoiseSchedule.of(base)
    return schedule.with_zero_terminal_snr() if zero_terminal_snr else schedule


def prepare_materials(
    config: Config,
    folder: Path,
    *,
    device: torch.device,
    stage: Stage,
    source: Source | None = None,
    embedder: evaluation.Embedder | None = None,
) -> Materials:
    """Reads the photographs, splits them by patient, encodes them, and scores the base model.

    Where the folder holds all of it already it is opened; the base model may lie in another place by now.

    source: photographs to take instead of all of config.data; embedder: instead of the one of the objective.

    Raises:
        UserError: photographs, base model or settings are others than those that the folder was made of.
    """
    base = resolve(config.model.base)
    source = source or open_source(config)
    origin = origin_of(config, base, source)
    key = bank_key(origin)
    facts_file = folder / "baseline.json"
    if facts_file.is_file():
        facts = json.loads(facts_file.read_text(encoding="utf-8"))
        if facts["key"] != key:
            raise UserError(what_changed(folder, facts, origin, photographs_of(source)))
        if facts["base"] != str(base):
            write_json(facts | {"base": str(base)}, facts_file)
        return open_materials(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scores = _compute(config, folder, base, source, embedder or evaluation.make_embedder(config, device), device, stage)
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
    return open_materials(folder)


def usable_split(source: Source, config: Config) -> Split:
    """The sides of the photographs, which share no picture and are large enough to be compared.

    Raises:
        UserError: they share one, or are too small.
    """
    split = comparable_split(source.photos, config)
    refuse_shared(split, source, config.data)
    return split


def _compute(
    config: Config,
    folder: Path,
    base: Path,
    source: Source,
    embedder: evaluation.Embedder,
    device: torch.device,
    stage: Stage,
) -> dict[str, float]:
    """Writes split, reference, bank and the base model's pictures; gives its scores. It keeps no model."""
    split = usable_split(source, config)
    write_split(split, folder / "split.json")
    reference = _reference(config, source, split, folder, embedder, stage) if split.validation else None

    # the bank
    schedule = schedule_of(config, base)
    vae = load_vae(base, device=device)
    bank = _encode(config, source, split, vae, base, device, stage)
    unet = load_unet(base, dtype=weights_dtype(config), device=device)
    if config.training.prior_weight > 0:
        bank = _with_prior(bank, unet, config, base, schedule, device)
    write_bank(bank, folder / "bank.safetensors")
    (folder / LEAK_NAME).unlink(missing_ok=True)  # of other settings in the same folder
    if config.validation.signal_leak:
        SignalLeak.of(bank.train.flatten(0, 1).chunk(2, dim=1)[0]).write(folder)

    # the base model without an adapter, by the same seeds as every epoch of every trial
    seeds = sampling.seeds_of(config.validation.pictures)
    with mixed_precision(config, device):
        pictures = sampling.draw(
            unet,
            vae,
            _prompt(bank),
            seeds,
            sampler_of(config, schedule),
            lambda done: stage("base model's pictures", done, len(seeds)),
        )
    sampling.write_png(sampling.grid(pictures[: config.validation.grid]), folder / "baseline.png")
    return {} if reference is None else evaluation.score(pictures, reference, embedder)


def _reference(
    config: Config, source: Source, split: Split, folder: Path, embedder: evaluation.Embedder, stage: Stage
) -> evaluation.Reference:
    """What real photographs reach; also a grid of held-out ones."""
    train, held_out = (torch.stack([source.plain(photo) for photo in side]) for side in (split.train, split.validation))
    sampling.write_png(sampling.grid(held_out[: config.validation.grid]), folder / "reference.png")
    stage("features of photographs", 0, 1)
    reference = evaluation.make_reference(
        train,
        [photo.group for photo in split.train],
        held_out,
        [photo.group for photo in split.validation],
        embedder,
        n=config.validation.pictures,
        copies=config.quality.copies,
        repeats=config.metrics.floor_repeats,
        seed=config.reproducibility.seed,
    )
    stage("features of photographs", 1, 1)
    evaluation.write_reference(reference, folder)
    return reference


def _encode(
    config: Config,
    source: Source,
    split: Split,
    vae: AutoencoderKL,
    base: Path,
    device: torch.device,
    stage: Stage,
) -> Bank:
    """Moments of K seeded views a training photograph, of the plain held-out ones, and the prompts' embeddings."""
    texts = embed_prompts(base, [config.prompts.positive, config.prompts.negative], device=device)
    views = config.data.views_per_photo
    train = []
    for index, photo in enumerate(split.train):
        seeds = [config.reproducibility.seed * 1_000_003 + index * views + view for view in range(views)]
        train.append(encode_moments(vae, torch.stack([source.view(photo, seed) for seed in seeds])))
        stage("latents", index + 1, len(split.train))
    encoded = torch.stack(train)  # photographs, views, 2C, h, w
    plain = [encode_moments(vae, source.plain(photo)[None]) for photo in split.validation]
    validation = torch.cat([encoded.new_empty(0, *encoded.shape[2:]), *plain])
    return Bank(encoded, validation, **vars(sampling.Prompt.of(texts)))


def _prompt(bank: Bank) -> sampling.Prompt:
    return sampling.Prompt(bank.positive, bank.negative, bank.positive_pooled, bank.negative_pooled)


def _with_prior(
    bank: Bank,
    unet: UNet2DConditionModel,
    config: Config,
    base: Path,
    schedule: NoiseSchedule,
    device: torch.device,
) -> Bank:
    """The bank with latents that the base model draws of prompts.prior, by seeds of their own."""
    prompt = sampling.Prompt.of(embed_prompts(base, [config.prompts.prior, config.prompts.negative], device=device))
    seeds = sampling.seeds_of(config.training.prior_pictures, first=_PRIOR_SEED)
    with mixed_precision(config, device):
        latents = sampling.draw_latents(unet, prompt, seeds, sampler_of(config, schedule))
    no_variance = torch.full_like(latents, -30.0)  # log variance: they are what they are
    prior = torch.cat([latents, no_variance], dim=1)
    return replace(bank, prior=prior, prior_text=prompt.positive, prior_pooled=prompt.positive_pooled)
