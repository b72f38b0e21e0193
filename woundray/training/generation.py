"""Pictures from a checkpoint, each drawn again by its seed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError, safe_open

from woundray import evaluation, sampling
from woundray.config import Config
from woundray.config.layers import read_yaml
from woundray.errors import UserError
from woundray.model.base import embed_prompts, free_memory, load_vae
from woundray.model.leak import SignalLeak
from woundray.model.lora import WEIGHTS_NAME
from woundray.model.registry import resolve
from woundray.model.weights import has_weights, load_weights, mixed_precision, weights_dtype
from woundray.tracking.checkpoints import SCHEMES, fetch_checkpoint
from woundray.training.materials import Materials, Stage, sampler_of, schedule_of


@dataclass(frozen=True)
class Wish:
    """How many pictures, from which seed on; None: as the run drew its epochs."""

    count: int
    first_seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    prompt: str | None = None
    batch_size: int | None = None


def find_checkpoint(reference: str, runs: Path, tracking_uri: str = "") -> Path:
    """The checkpoint folder that a reference means: itself, the `best` below it, or the newest study's `best`.

    That of `runs:/ID`, `models:/NAME@ALIAS` or `models:/NAME/VERSION` is copied from MLflow to `runs`/fetched.

    Raises:
        UserError: there is none, or it is damaged or another program's.
    """
    if reference.startswith(SCHEMES):
        given = fetch_checkpoint(reference, runs.absolute() / "fetched", tracking_uri)
    else:
        given = runs / "best" if reference == "best" else Path(reference)
    for folder in (given, given / "best"):
        if has_weights(folder):
            if (folder / WEIGHTS_NAME).is_file():
                _refuse_foreign(folder / WEIGHTS_NAME)
            if not (folder / "config.yaml").is_file():
                raise UserError(f"--from: {folder} is no checkpoint of woundray: it holds no config.yaml")
            return folder.resolve()
    raise UserError(f"--from: {given} is no checkpoint: it holds neither weights nor best/ with weights")


def _refuse_foreign(path: Path) -> None:
    """Looks at the head of the file only: the base model, seconds to load, comes later."""
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["lora_adapter_metadata"])
            missing = [name for name in ("r", "lora_alpha", "target_modules") if f"unet.{name}" not in settings]
    except (OSError, SafetensorError) as error:
        raise UserError(f"--from: {path} is damaged: {error}") from None
    except (KeyError, ValueError):
        missing = ["lora_adapter_metadata"]
    if missing:
        raise UserError(f"--from: {path} is an adapter of another program: its metadata have no {missing[0]}")


def config_of(checkpoint: Path) -> Config:
    """The configuration that a checkpoint was trained with."""
    return Config.from_nested(read_yaml(checkpoint / "config.yaml"), source=str(checkpoint / "config.yaml"))


def score_again(checkpoint: Path, *, materials: Materials, device: torch.device) -> tuple[int, dict[str, float]]:
    """Number and scores of new pictures of a checkpoint: twice as many as an epoch's, with the next seeds."""
    config = config_of(checkpoint)
    count = config.validation.pictures
    pictures = draw(checkpoint, Wish(2 * count, first_seed=count), lambda *_: None)
    embedder = evaluation.make_embedder(config, device)
    scores = evaluation.score(pictures, materials.reference.at(2 * count), embedder)
    del embedder
    free_memory()
    return 2 * count, scores


@dataclass(frozen=True)
class Opened:
    """A checkpoint's models on their device, and how they draw: as the run drew the pictures that were scored."""

    config: Config
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompt: sampling.Prompt
    sampler: sampling.Sampler

    def draw(self, seeds: Sequence[int], progress: Callable[[int], None] | None = None) -> torch.Tensor:
        """One picture a seed, uint8 (N, 3, H, W); see `woundray.sampling.draw`."""
        with mixed_precision(self.config, self.unet.device):
            return sampling.draw(self.unet, self.vae, self.prompt, seeds, self.sampler, progress)


def open_checkpoint(checkpoint: Path, wish: Wish) -> Opened:
    """What draws as a wish asks; its count and seed are left to the caller."""
    config = config_of(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = resolve(config.model.base)
    prompt = config.prompts.positive if wish.prompt is None else wish.prompt
    texts = embed_prompts(base, [prompt, config.prompts.negative], device=device)
    sampler = sampler_of(config, schedule_of(config, base), SignalLeak.read(checkpoint))
    return Opened(
        config,
        load_weights(base, checkpoint, dtype=weights_dtype(config), device=device),
        load_vae(base, device=device),
        sampling.Prompt.of(texts),
        replace(
            sampler,
            steps=wish.steps or sampler.steps,
            guidance_scale=sampler.guidance_scale if wish.guidance_scale is None else wish.guidance_scale,
            batch_size=wish.batch_size or sampler.batch_size,
        ),
    )


def draw(checkpoint: Path, wish: Wish, stage: Stage) -> torch.Tensor:
    """Pictures of a checkpoint, uint8 (N, 3, H, W), one seed each."""
    seeds = sampling.seeds_of(wish.count, first=wish.first_seed)
    return open_checkpoint(checkpoint, wish).draw(seeds, lambda done: stage("pictures", done, len(seeds)))
