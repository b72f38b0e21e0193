"""Pictures from a checkpoint, each drawn again by its seed."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from woundray import evaluation, sampling
from woundray.config import Config
from woundray.config.layers import read_yaml
from woundray.errors import UserError
from woundray.model.base import DTYPES, NoiseSchedule, embed_prompts, load_unet, load_vae
from woundray.model.lora import WEIGHTS_NAME, load_adapter
from woundray.model.registry import resolve
from woundray.training.materials import Materials, Stage, sampler_of


@dataclass(frozen=True)
class Wish:
    """How many pictures, from which seed on; None: as the run drew its epochs."""

    count: int
    first_seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None


def find_checkpoint(reference: str, runs: Path) -> Path:
    """The checkpoint folder that a reference means: itself, the `best` below it, or the newest study's `best`.

    Raises:
        UserError: there is none.
    """
    given = runs / "best" if reference == "best" else Path(reference)
    for folder in (given, given / "best"):
        if (folder / WEIGHTS_NAME).is_file():
            return folder.resolve()
    raise UserError(f"--from: {given} is no checkpoint: it holds neither {WEIGHTS_NAME} nor best/{WEIGHTS_NAME}")


def config_of(checkpoint: Path) -> Config:
    """The configuration that a checkpoint was trained with."""
    return Config.from_nested(read_yaml(checkpoint / "config.yaml"), source=str(checkpoint / "config.yaml"))


def draw_from(checkpoint: Path, wish: Wish, out: Path, *, with_grid: bool, stage: Stage) -> torch.Tensor:
    """Writes `seed_00000.png` ... and, where asked, `grid.png`: uint8 (N, 3, H, W) also comes back."""
    pictures = draw(checkpoint, wish, stage)
    out.mkdir(parents=True, exist_ok=True)
    for seed, picture in zip(sampling.seeds_of(wish.count, first=wish.first_seed), pictures, strict=True):
        sampling.write_png(picture, out / f"seed_{seed:05d}.png")
    if with_grid:
        sampling.write_png(sampling.grid(pictures), out / "grid.png")
    return pictures


def score_again(checkpoint: Path, *, materials: Materials, device: torch.device) -> tuple[int, dict[str, float]]:
    """Number and scores of new pictures of a checkpoint: twice as many as an epoch's, with the next seeds."""
    config = config_of(checkpoint)
    count = config.validation.pictures
    pictures = draw(checkpoint, Wish(2 * count, first_seed=count), lambda *_: None)
    embedder = evaluation.make_embedder(config, device)
    return 2 * count, evaluation.score(pictures, materials.reference.at(2 * count), embedder)


def draw(checkpoint: Path, wish: Wish, stage: Stage) -> torch.Tensor:
    """Pictures of a checkpoint, uint8 (N, 3, H, W), one seed each."""
    config = config_of(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = resolve(config.model.base)
    unet = load_unet(base, dtype=DTYPES[config.model.precision], device=device)
    load_adapter(unet, checkpoint / WEIGHTS_NAME)
    embeddings = embed_prompts(base, [config.prompts.positive, config.prompts.negative], device=device)
    sampler = sampler_of(config, NoiseSchedule.of(base))
    sampler = replace(
        sampler,
        steps=wish.steps or sampler.steps,
        guidance_scale=sampler.guidance_scale if wish.guidance_scale is None else wish.guidance_scale,
    )
    seeds = sampling.seeds_of(wish.count, first=wish.first_seed)
    return sampling.draw(
        unet,
        load_vae(base, device=device),
        sampling.Prompt(*embeddings),
        seeds,
        sampler,
        lambda done: stage("pictures", done, len(seeds)),
    )
