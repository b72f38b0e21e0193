"""Full cycle of each model family: train, save, kill, resume, export, load into diffusers' pipeline."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import STEPS, family_config, pipeline_of
from mortal import outcome, work
from PIL import Image
from torch import Tensor, multiprocessing
from torchvision.transforms.functional import pil_to_tensor

from woundray.checkpoints.export import Format, export_checkpoint
from woundray.config import Config
from woundray.sampling.grids import make_grid
from woundray.sampling.pipeline import image_seeds
from woundray.training.checkpoint import read_progress
from woundray.training.distributed import DistributedContext
from woundray.training.loop import train
from woundray.training.precompute import precompute


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run torch on one thread, so that a killed worker and this process sum in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sampled_by(pipeline: Any, config: Config) -> Tensor:
    """Sample the images of an epoch's grid by diffusers' pipeline, with the same seeds."""
    side = config.model.resolution
    seeds = image_seeds(config.validation.grid)
    noise = [torch.randn(4, side // 8, side // 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    pictures = pipeline(
        config.prompts.positive,
        negative_prompt=config.prompts.negative,
        latents=torch.stack(noise),
        guidance_scale=config.validation.guidance_scale,
        num_inference_steps=STEPS,
        num_images_per_prompt=len(seeds),
        height=side,
        width=side,
        output_type="pt",
    ).images
    return make_grid((pictures * 255).round().to(torch.uint8))


@pytest.mark.usefixtures("one_thread")
def test_train_save_kill_resume_export_load(family_base: Path, tmp_path: Path) -> None:
    config, cpu = family_config(family_base), torch.device("cpu")
    precomputed = precompute(config, tmp_path / "precomputed", device=cpu, progress=lambda *_: None)

    def go_on(output: Path) -> None:
        train(
            config,
            precomputed=precomputed.folder,
            output=output,
            context=DistributedContext.single(),
            report=lambda *_: None,
        )

    # killed in the middle of the second epoch, and resumed by another process: as if left in peace
    go_on(tmp_path / "peace")
    with pytest.raises(multiprocessing.ProcessExitedException):  # type: ignore[attr-defined]
        work(config, precomputed, tmp_path / "killed", 1, fatal_update=3)
    assert read_progress(tmp_path / "killed/latest").epoch == 1
    go_on(tmp_path / "killed")
    (peace_history, peace), (history, state) = outcome(tmp_path / "peace"), outcome(tmp_path / "killed")
    assert history == peace_history
    assert all(torch.equal(tensor, state[name]) for name, tensor in peace.items())

    # each export, loaded by diffusers, draws what the trainer drew, and not what the base draws
    checkpoint = (tmp_path / "killed/latest").resolve()
    trainers = pil_to_tensor(Image.open(checkpoint / "grid.png")).int()
    plain = pipeline_of(family_base.name, family_base)
    assert (sampled_by(plain, config) - trainers).abs().float().mean() > 1
    outs: dict[Format, str] = {"kohya": "wound.safetensors", "diffusers": "adapter", "merged": "merged"}
    for kind, name in outs.items():
        export_checkpoint(checkpoint, tmp_path / name, kind, progress=lambda *_: None)
        pipeline = pipeline_of(family_base.name, tmp_path / "merged" if kind == "merged" else family_base)
        if kind != "merged":
            pipeline.load_lora_weights(tmp_path / name)
        assert (sampled_by(pipeline, config) - trainers).abs().max() <= 2, kind
